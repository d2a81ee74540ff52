"""The source recipe of a suite: what it changes of the training, and how good the model must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from workplace import Workplace

import bench
from bench import registry
from bench.contracts.model import weights_digest
from bench.errors import BenchError
from bench.records.cell import Cell
from bench.records.record import Record
from bench.run.source_model import source_path
from bench.study.plan import make_cells
from bench.study.suite import load_suite
from bench.testing import isolated_registry

TINY = "model: {name: tiny, width: 32"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workplace = Workplace(tmp_path, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    with isolated_registry():
        registry.add_plugin("plugin.py")
        yield workplace


def suite(place: Workplace, recipe: str) -> str:
    text = (place.folder / "tiny.yaml").read_text()
    (place.folder / "mine.yaml").write_text(text.replace(TINY, f"{TINY}{recipe}"))
    return "mine.yaml"


def cell(place: Workplace, recipe: str) -> Cell:
    return make_cells(*load_suite(suite(place, recipe)))[0]


def run(place: Workplace, recipe: str, **options: Any) -> Record:
    (record,) = bench.run_suite(
        suite(place, recipe), methods="source-only", seeds=[0], executor="inline", **options
    ).records
    return record


def path(of: Cell) -> Path:
    return source_path(of, registry.load("stream", of.stream.name)(_stream(of), of.seed))


def _stream(of: Cell) -> Any:
    return registry.load("stream", of.stream.name).Config.model_validate(of.stream.config)


def complaint(place: Workplace, recipe: str) -> str:
    with pytest.raises(BenchError) as caught:
        cell(place, recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("recipe", ["", ", training: {}", ", training: {epochs: 8}"])
def test_what_says_the_default_changes_no_cell_and_no_source_model(place, recipe):
    plain, said = cell(place, ""), cell(place, recipe)
    assert (said.identity, path(said)) == (plain.identity, path(plain))
    assert "training" not in said.model_dump_json()
    assert said == Cell.model_validate_json(plain.model_dump_json())


def test_what_differs_is_part_of_the_cell_and_of_the_source_model(place):
    plain = cell(place, "")
    other = cell(place, ", training: {epochs: 3, learning_rate: 3.0e-3, clip_norm: 2}")
    assert other.model.training == {"epochs": 3, "clip_norm": 2.0}
    assert other.identity != plain.identity
    assert path(other) != path(plain)
    assert Cell.model_validate_json(other.model_dump_json()) == other


def test_the_source_model_is_trained_by_the_recipe(place):
    digests = {e: run(place, f", training: {{epochs: {e}}}").source_model for e in (1, 2, 8)}
    assert digests[8] == run(place, "").source_model
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.2), (2, 0.5), (5, 0.2)])
def test_a_source_of_one_batch_is_trained_too(place, epochs, warmup):
    recipe = f", training: {{epochs: {epochs}, batch_size: 5000, warmup: {warmup}}}"
    assert run(place, recipe).status == "ok"


def test_no_epochs_leave_the_weights_as_they_are_built(place):
    record = run(place, ", training: {epochs: 0}")
    assert record.status == "ok"
    model_class = registry.load("model", "tiny")
    torch.manual_seed(0)
    built = model_class.build(model_class.Config(width=32), (1, 32, 32), 10)
    assert record.source_model == weights_digest(built.module)


def test_a_comparison_shows_the_recipe_and_keeps_others_apart(place):
    from bench.reports.comparison import flat_settings

    shown = flat_settings(cell(place, ", training: {epochs: 3}"))
    assert shown["model.training.epochs"] == "3"
    assert not any("training" in key for key in flat_settings(cell(place, "")))


@pytest.mark.parametrize("isolated", [False, True])
def test_a_source_model_outside_the_expected_band_fails_the_run(place, isolated):
    options = {"isolate_labels": isolated}
    good = run(place, ", expected_source: [0.5, 1]", **options)
    assert good.status == "ok"
    metric = good.results.source_before
    bad = run(
        place, f", training: {{epochs: 7}}, expected_source: [0, {metric / 2:.3f}]", **options
    )
    assert bad.status == "failed"
    assert "source model tiny: its metric on the test split of the source is 0." in bad.reason
    assert f"expected_source of the suite is 0 to {metric / 2:.3g};" in bad.reason


def test_the_band_is_no_part_of_the_cell(place):
    assert cell(place, ", expected_source: [0.9, 1]").identity == cell(place, "").identity


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (", training: {epochs: -1}", "model 'tiny': training: key 'epochs': -1 is not allowed"),
        (", training: {epoch: 3}", "key 'epoch': unknown; did you mean 'epochs'?"),
        (", training: {learning_rate: .inf}", "key 'learning_rate': inf is not allowed"),
        (", training: 3", "key 'model.training': 3 is not allowed"),
        (", expected_source: 0.9", "key 'model.expected_source"),
        (", expected_source: [1, 0.9]", "give the least and the greatest, as [0.9, 1.0]"),
        (", expected_source: [0, .inf]", "key 'model.expected_source.1': inf is not allowed"),
        (", expected_source: [.nan, 1]", "key 'model.expected_source"),
        (", widht: 3", "key 'widht': unknown; did you mean 'width'?"),
    ],
)
def test_a_mistake_is_one_line(place, recipe, said):
    text = complaint(place, recipe)
    assert said in text
    assert "mine.yaml" in text
