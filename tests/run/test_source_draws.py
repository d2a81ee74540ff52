"""Draws of the source model: a factor of its own, crossed with the seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from workplace import Workplace

import bench
from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel, weights_digest
from bench.errors import BenchError
from bench.execute.preparation import made_ahead, source_models
from bench.study.plan import make_cells
from bench.study.record_selection import matching
from bench.study.suite import Reference, Suite, load_suite
from bench.testing import isolated_registry

DRAWS = ["", " · draw 1", " · draw 2"]
SEEN: list[tuple[int, str, str]] = []
"""(draw of the source view, its first batch, weights) of each offline stage."""


class Watch(bench.Method):
    """Keeps an offline stage of its own, and notes what it was given."""

    @classmethod
    def offline_settings(cls, config: Any) -> dict[str, Any]:
        return {}

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        with source.preserve_rng():
            first = next(source.batches()).sample_ids.tolist()
        SEEN.append((source.draw, str(first), weights_digest(model.module)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workplace = Workplace(tmp_path, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    SEEN.clear()
    with isolated_registry():
        registry.add_plugin("plugin.py")
        bench.register("method", "watch")(Watch)
        yield workplace


def tiny(**changes: Any) -> tuple[Suite, Path]:
    suite, path = load_suite("tiny.yaml")
    return suite.model_copy(update=changes), path


def run(**options: Any) -> bench.SuiteResults:
    return bench.run_suite("tiny.yaml", executor="inline", **options)


def test_draws_are_crossed_with_the_seeds_and_the_first_draw_keeps_its_cells(place):
    plain = make_cells(*tiny(seeds=[0, 1]))
    crossed = make_cells(*tiny(seeds=[0, 1], source_draws=3))
    assert len(crossed) == 3 * len(plain)
    first = [cell for cell in crossed if cell.source_draw == 0]
    assert [cell.identity for cell in first] == [cell.identity for cell in plain]
    assert first == plain
    assert len({cell.identity for cell in crossed}) == len(crossed)
    assert len({cell.training_key for cell in crossed}) == len(crossed)
    found = {(cell.source_draw, cell.seed) for cell in crossed}
    assert found == {(draw, seed) for draw in range(3) for seed in (0, 1)}


def test_runs_on_two_draws(place):
    """One test for what needs runs, which take seconds each."""
    first = run(methods="watch", seeds=[0]).records
    assert [(draw, seen) for draw, *_, seen in SEEN] == [(0, first[0].source_model)] * 2
    results = run(methods="watch", seeds=[0, 1], source_draws=2)

    # The record of the suite without draws is that of the first draw: only the others were run.
    records = {(r.cell.source_draw, r.cell.seed): r for r in results.records}
    assert set(records) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert records[0, 0] == first[0]
    assert [r.status for r in records.values()] == ["ok"] * 4

    # A draw is one source model, whatever the seed.
    models = {key: record.source_model for key, record in records.items()}
    assert models[0, 0] == models[0, 1] != models[1, 0] == models[1, 1]

    # A method is given the source model and the seed of its own draw, ahead and in each run.
    by_draw = {draw: {tuple(rest) for d, *rest in SEEN if d == draw} for draw in (0, 1)}
    assert [len(found) for found in by_draw.values()] == [1, 1]
    (zero,), (one,) = by_draw.values()
    assert all(a != b for a, b in zip(zero, one, strict=True))
    assert (zero[-1], one[-1]) == (models[0, 0], models[1, 0])

    assert set(bench.load_results()["source_draw"]) == {0, 1}
    with pytest.warns(UserWarning, match=r"2 of other draws of the source.*--source-draws"):
        bench.report(out="report", suite="tiny.yaml", methods="watch")
    assert len(matching(results.records, source_draws=1)) == 2
    assert len(matching(results.records, source_draws=2)) == 4
    with pytest.raises(BenchError, match="--source-draws: draw 2: no record is of it"):
        matching(results.records, source_draws=3)


def test_what_is_made_ahead_is_made_for_each_draw(place):
    cells = make_cells(*tiny(methods=[Reference(name="watch")], source_draws=3, seeds=[0, 1]))
    titles = [f"training tiny on the source of digits-shift{d}" for d in DRAWS]
    assert [p.title for p in source_models(cells)] == titles
    ahead = made_ahead(cells)
    assert [p.title for p in ahead] == [f"offline stage of watch for tiny{d}" for d in DRAWS]
    assert len({p.name for p in ahead}) == 3


@pytest.mark.parametrize("draws", [0, -1, 101])
def test_a_number_of_draws_that_cannot_be_is_one_line(place, draws):
    with pytest.raises(BenchError, match=f"--source-draws {draws}: give a number from 1 to 100"):
        run(methods="source-only", source_draws=draws)


@pytest.mark.parametrize("given", ["0", "-1", "x", "2.5", "true", "101", "[0, 1]"])
def test_a_suite_file_with_such_a_number_names_the_key(place, given):
    text = (place.folder / "tiny.yaml").read_text()
    (place.folder / "mine.yaml").write_text(f"{text}\nsource_draws: {given}\n")
    with pytest.raises(BenchError, match=r"mine\.yaml: key 'source_draws'") as caught:
        load_suite("mine.yaml")
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_trained_here_has_one_draw(place):
    text = (place.folder / "tiny.yaml").read_text()
    text = text.replace(
        "model: {name: tiny, width: 32", "model: {name: tiny, training: {epochs: 0}"
    )
    (place.folder / "mine.yaml").write_text(text)
    suite, path = load_suite("mine.yaml")
    assert make_cells(suite, path)
    with pytest.raises(BenchError, match="source_draws 2: model 'tiny' is not trained"):
        make_cells(suite.model_copy(update={"source_draws": 2}), path)
