"""A task of a plugin: a stream and a model of it run, and its metric is named to the end."""

from __future__ import annotations

import os
from pathlib import Path

from warm_bench import warm_bench

from bench import registry
from bench.records.store import Store
from bench.reports.comparison import compare
from bench.reports.tables import comma_separated, text
from bench.study.plan import make_cells
from bench.study.suite import load_suite
from bench.testing import isolated_registry

PLUGIN = Path(__file__).with_name("toy_task.py")
PARTS = '''
import torch
from bench import Domain, Split, SourceTraining, register
from bench.methods.fine_tune import FineTune
from bench.testing import TinyModel, TinyStream

@register("stream", "films")
class Films(TinyStream):
    """Two labels a sample: whether its number is even, and its opposite."""
    task = "multi-label"

    def labels(self, place, number):
        even = (number.long() % 2 == 0).float()
        return torch.stack([even, 1 - even], dim=1)

@register("model", "of-films")
class OfFilms(TinyModel):
    """Says no to the first label and yes to the second."""
    task = "multi-label"
    source_training = SourceTraining(epochs=1)

@register("method", "tunes-films")
class TunesFilms(FineTune):
    """Trains on labels."""
    tasks = ("multi-label",)
'''
SUITE = """
name: mine
description: a task of a plugin
stream: {name: films, samples: 40, tests: 20}
model: of-films
protocol: {name: periodic, window_s: 60, batch_size: 20}
methods: [tent]
supervised_references: [tunes-films]
seeds: 1
devices: xavier-nx
"""


def test_a_run_of_it_ends_with_its_metric(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "mine.yaml").write_text(SUITE)
    command = ["run", "--suite", "mine.yaml", "--store", "store"]
    plugins = ["--plugin", str(PLUGIN), "--plugin", "parts.py"]
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    done = warm_bench().run([*command, *plugins], tmp_path, environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hamming score" in done.stderr + done.stdout
    records = {record.cell.method.name: record for record in Store(tmp_path / "store")}
    assert records["tent"].status == "unsupported"
    assert "tent does classification" in records["tent"].reason
    assert "stream films is multi-label" in records["tent"].reason
    results = records["tunes-films"].results
    assert results is not None, records["tunes-films"].reason
    assert results.metric.title == "Hamming score"
    (comparison,) = compare(list(records.values()))
    shown = text(comparison)
    assert "Hamming score along the stream (%)" in shown
    assert "ccuracy" not in shown
    assert "hamming-score" in comma_separated(comparison)


def test_its_code_is_part_of_the_identity(tmp_path: Path) -> None:
    identities = []
    for name, change in (("as-is", ""), ("edited", "y > 0.4")):
        folder = tmp_path / name
        folder.mkdir()
        source = PLUGIN.read_text()
        (folder / "task.py").write_text(source.replace("y > 0.5", change) if change else source)
        (folder / "parts.py").write_text(PARTS)
        (folder / "mine.yaml").write_text(SUITE)
        with isolated_registry():
            for file in ("task.py", "parts.py"):
                registry.add_plugin(folder / file)
            cells = make_cells(*load_suite(str(folder / "mine.yaml")))
        identities.append({cell.method.name: cell.identity for cell in cells})
    assert all(identities[0][name] != identities[1][name] for name in identities[0])
