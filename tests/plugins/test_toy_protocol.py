"""A protocol of a plugin runs from a suite to a report, and all that asks protocols knows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warm_bench import warm_bench

from bench import registry
from bench.contracts.protocol import protocol_config
from bench.errors import BenchError
from bench.records.protocol_facts import protocol_facts
from bench.records.store import Store
from bench.reports.comparison import compare
from bench.reports.tables import text
from bench.study.plan import make_cells
from bench.study.suite import load_suite

PLUGIN = Path(__file__).with_name("toy_protocol.py")
SUITE = """
name: mine
description: one method under one protocol
stream: {name: digits-shift, size: 16, shifts: [noise, blur], severities: [1]}
model: tiny
protocol: {PROTOCOL, window_s: 60, batch_size: 20, samples: 40}
methods: [tent]
seeds: 1
devices: xavier-nx
"""
REPEATED = "name: repeated, visits: 3"
MODEL = '''
from bench import FoundationModel, register
from bench.contracts.model import SourceTraining
from torch import nn

@register("model", "tiny")
class Tiny(FoundationModel):
    """Trained in a second."""
    source_training = SourceTraining(epochs=2)

    @classmethod
    def build(cls, config, input_shape, classes):
        inputs = input_shape[0] * input_shape[1] * input_shape[2]
        return cls(nn.Sequential(nn.Flatten(), nn.LayerNorm(inputs), nn.Linear(inputs, classes)))

    def blocks(self):
        return []
'''


def test_a_run_under_it_adapts_as_often_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "mine.yaml").write_text(SUITE.replace("PROTOCOL", REPEATED))
    command = ["run", "--suite", "mine.yaml", "--store", "store"]
    plugins = ["--plugin", str(PLUGIN), "--plugin", "model.py"]
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    done = warm_bench().run([*command, *plugins], tmp_path, environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = Store(tmp_path / "store")
    assert record.results is not None, record.reason
    assert [d.adaptation_samples for d in record.results.domains] == [3 * 40] * 2
    epochs = record.cell.method.config["epochs"]
    assert record.results.costs.steps == {"adapt": epochs * 3 * (40 // 20) * 2}
    first = [d.get("after_first_visit") for d in record.results.domains]
    assert record.results.mean_of("after_first_visit") == pytest.approx(sum(first) / 2)
    settings = {k: v for k, v in record.cell.protocol.items() if k != "code"}
    assert settings == {
        "name": "repeated", "visits": 3, "window_s": 60.0, "batch_size": 20, "samples": 40,
        "reset": "never", "evaluate_all": False,
    }  # fmt: skip
    shown = text(compare([record])[0])  # in a process without the plugin
    assert "Protocol repeated: window_s=60.0, visits=3" in shown


@pytest.fixture
def plugged(empty_registry: None, tmp_path: Path) -> None:
    registry.add_plugin(PLUGIN)
    (tmp_path / "model.py").write_text(MODEL)
    registry.add_plugin(tmp_path / "model.py")


@pytest.mark.usefixtures("plugged")
def test_what_it_declares_is_known(tmp_path: Path) -> None:
    facts = protocol_facts({"name": "repeated"})
    assert (facts.timed, facts.method_protocol) == (False, "periodic")
    assert protocol_config({"name": "repeated"}).budget_s == 60.0
    (tmp_path / "mine.yaml").write_text(SUITE.replace("PROTOCOL", "name: repeated, visit: 3"))
    with pytest.raises(BenchError, match=r"key 'visit': unknown; did you mean 'visits'"):
        make_cells(*load_suite(str(tmp_path / "mine.yaml")))


@pytest.mark.usefixtures("plugged")
def test_its_code_is_part_of_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace("PROTOCOL", REPEATED))
    (cell,) = make_cells(*load_suite(str(path)))
    assert len(cell.protocol["code"]) == 64
    path.write_text(SUITE.replace("PROTOCOL", "name: periodic"))
    (own,) = make_cells(*load_suite(str(path)))
    assert "code" not in own.protocol
