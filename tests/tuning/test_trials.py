"""Trials: run by run, stopped and resumed, and a search that starts from another's best."""

from __future__ import annotations

import pytest
from toy_search import RESULTS, SUITE, Bench, fresh, quality

from bench.errors import BenchError
from bench.execute.base import Ended
from bench.records.cell import Cell
from bench.tuning.tune import (
    Tuner,
    validation_runs,
)

# --- again ------------------------------------------------------------------------------


def test_the_same_command_again_runs_nothing_and_finds_the_same(bench: Bench) -> None:
    first = bench.tuner()
    bench.run(first)
    told, ran = list(bench.told), len(bench.ran)
    again = bench.tuner()
    assert again.begin() == []
    assert again.results() == first.results()
    assert sorted(map(repr, bench.told[len(told) :])) == sorted(map(repr, told))
    assert len(bench.ran) == ran


@pytest.mark.parametrize("most", [1, 2, 5, 9, 13])
def test_a_stopped_search_goes_on_as_if_it_had_not_been(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, most: int
) -> None:
    whole = fresh(tmp_path_factory)
    undisturbed = whole.tuner()
    runs = whole.run(undisturbed)
    assert runs > 13
    bench.run(bench.tuner(), most=most)
    bench.told.clear()
    resumed = bench.tuner()
    assert bench.run(resumed) == runs - most
    assert resumed.results() == undisturbed.results()
    for name in resumed.names:
        assert bench.tried(name) == whole.tried(name)


def test_more_trials_later_do_not_run_the_defaults_again(bench: Bench) -> None:
    """A longer search draws more of its trials at random first, so the others may differ."""
    bench.run(bench.tuner(trials=4))
    jobs = bench.tuner(trials=8).begin()
    assert [(t.method, t.trial) for t in bench.told if t.trials == 8][:1] == [("two", 1)]
    assert {job.cells[0].identity for job in jobs}.isdisjoint(c.identity for c in bench.ran[:4])


def test_an_interrupted_run_is_made_again_and_a_failed_one_is_not(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "one"))
    first, second = tuner.begin()
    for job, status in ((first, "interrupted"), (second, "timeout")):
        record = bench.record(job, status)
        bench.store.write(record)
        assert tuner.ended(Ended(job, [record], [])) == []  # Ctrl-C: nothing follows
    resumed = bench.tuner(SUITE.replace("two, one", "one"))
    (again,) = resumed.begin()
    assert (again.cells, again.attempts) == (first.cells, (1,))
    record = bench.record(again, 0.5)
    bench.store.write(record)
    (following,) = resumed.ended(Ended(again, [record], []))  # the defaults failed: the next trial
    assert following.cells[0].method.config != first.cells[0].method.config
    assert following.attempts == (0,)


def test_a_search_depends_on_no_other_method_and_on_no_order_of_endings(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench.run(bench.tuner())
    for text, last in (
        (SUITE.replace("two, one", "two"), False),
        (SUITE.replace("two, one", "one, twin, whole, two"), False),
        (SUITE, True),
    ):
        other = fresh(tmp_path_factory)
        other.run(other.tuner(text), last=last)
        assert other.tried("two") == bench.tried("two")


def test_methods_with_the_same_settings_do_not_try_the_same_values(bench: Bench) -> None:
    bench.run(bench.tuner(SUITE.replace("one", "twin")))
    assert bench.tried("two")[1:] != bench.tried("twin")[1:]


# --- a search that starts from another method's ---------------------------------------------


STARTS = SUITE.replace("two, one", "more, one, two")


@pytest.mark.parametrize("last", [False, True])
def test_a_penalised_method_starts_from_the_plain_ones_best(bench: Bench, last: bool) -> None:
    """Whatever is run first its second trial waits: the other's best and its own default."""
    tuner = bench.tuner(STARTS, trials=5)
    bench.run(tuner, last=last)
    assert len(bench.told) == 15
    best = tuner.results()["two"].settings
    assert best
    first, second, *others = bench.tried("more")
    assert (first, second) == ({}, {**best, "weight": 0.5})
    assert len(others) == 3
    assert tuner.startless == []
    assert tuner.results()["more"].score >= quality({**best, "weight": 0.5})


def test_where_the_plain_ones_defaults_are_best_they_are_what_is_tried(bench: Bench) -> None:
    """Its defaults are not this method's: one pass, not two."""
    tuner = bench.tuner(STARTS, trials=2)
    bench.run(tuner, lambda cell: 0.5)  # of equal scores the defaults stand
    assert tuner.results()["two"].settings == {}
    assert bench.tried("more")[1] == {"learning_rate": 0.001, "epochs": 1, "weight": 0.5}


def test_the_start_is_taken_from_the_file_that_is_added_to(bench: Bench) -> None:
    whole = bench.tuner(STARTS, trials=4)
    bench.run(whole)
    tried, known = bench.tried("more"), whole.results()
    suite, cells = bench.suite(SUITE.replace("two, one", "more, one"))
    alone = Bench(bench.folder / "alone")
    tuner = Tuner(suite, cells, 4, alone.store, alone.told.append, known)
    alone.run(tuner)
    assert alone.tried("more") == tried
    unknown = Tuner(suite, cells, 4, alone.store, lambda tried: None)
    assert (tuner.startless, unknown.startless) == ([], ["more"])


def test_settings_that_the_suite_gives_are_no_start(bench: Bench) -> None:
    given = "{name: more, learning_rate: 0.001, epochs: 1}, {name: two, learning_rate: 0.002}"
    tuner = bench.tuner(SUITE.replace("two, one", given), trials=3)
    bench.run(tuner)
    assert all(list(settings) == ["weight"] for settings in bench.tried("more")[1:])


@pytest.mark.parametrize("last", [False, True])
def test_a_search_with_a_start_goes_on_the_same_wherever_it_was_stopped(
    bench: Bench, last: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After every run, and so also where one search has ended and the other has begun with it."""
    other = fresh(tmp_path_factory)
    runs = other.run(other.tuner(STARTS, trials=4), last=last)
    done = 0
    while done < runs:
        assert bench.run(bench.tuner(STARTS, trials=4), most=1, last=last) == 1
        done += 1
    bench.told.clear()
    assert bench.tuner(STARTS, trials=4).begin() == []
    for name in ("more", "one", "two"):
        assert bench.tried(name) == other.tried(name)


# --- the validation runs of a trial -----------------------------------------------------


def test_a_trial_is_the_mean_over_its_seeds(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: [3, 5]")
    assert [j.cells[0].seed for j in bench.tuner(text).begin()] == [3, 5, 3, 5]
    bench.run(
        bench.tuner(text, trials=4),
        lambda cell: quality(cell.method.config) - (0.25 if cell.seed == 5 else 0),
    )
    for name, _, _, score, tried, runs in bench.told:
        default = {"two": {"learning_rate": 0.001, "epochs": 1}, "one": {"weight": 0.5}}[name]
        lost = 0.125 if runs == 2 else 0
        assert score == pytest.approx(quality(tried or default) - lost)


def test_a_trial_waits_for_all_its_seeds_and_fails_with_one_of_them(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "one"))
    first, second = tuner.begin()
    for job, outcome in ((first, 0.5), (second, "failed")):
        assert bench.told == []
        record = bench.record(job, outcome)
        bench.store.write(record)
        jobs = tuner.ended(Ended(job, [record], []))
        assert len(jobs) == (0 if job is first else 1)
    assert bench.told == [("one", 1, 6, None, {}, 2)]


def test_only_the_missing_run_of_a_trial_is_made_on_resume(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 3").replace("two, one", "one")
    bench.run(bench.tuner(text), most=2)
    (job,) = bench.tuner(text).begin()
    assert (job.cells[0].seed, job.cells[0].method.config) == (2, {"weight": 0.5})


def test_trials_below_the_better_half_are_stopped_and_the_defaults_are_not(bench: Bench) -> None:
    """By successive halving: after 1, 2 ... runs, as Optuna's pruner has it."""
    text = SUITE.replace("seeds: 2", "seeds: 4").replace("two, one", "one")
    tuner = bench.tuner(text, trials=12)
    bench.run(
        tuner, lambda c: 0.0 if c.method.config["weight"] == 0.5 else quality(c.method.config)
    )
    told = bench.told
    assert told[0].runs == 4
    assert {t.runs for t in told[1:]} <= {1, 2, 4}
    first = [t.score for t in told[1:]]
    for i, tried in enumerate(told[1:]):
        so_far = sorted(first[: i + 1], reverse=True)
        among_the_better = tried.score in so_far[: max(len(so_far) // 2, 1)]
        assert (tried.runs > 1) == among_the_better
    found = tuner.results()["one"]
    assert found.runs == sum(t.runs for t in told) < 12 * 4
    assert found.first_scores == pytest.approx([0.0, *first], abs=1e-6)
    assert found.steps == {k: v * found.runs for k, v in RESULTS.costs.steps.items()}


def test_a_stopped_trial_is_not_chosen_though_its_first_run_was_good(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 4").replace("two, one", "one")

    def outcome(cell: Cell) -> float:
        weight = cell.method.config["weight"]
        return 0.5 if weight == 0.5 else 0.9 - weight / 100 if cell.seed == 0 else 0.1

    tuner = bench.tuner(text, trials=8)
    bench.run(tuner, outcome)
    found = tuner.results()["one"]
    assert found.settings == {}
    assert found.score == found.default_score == 0.5


def test_seeds_take_the_draws_of_the_source_in_turn(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 5\nsource_draws: 2").replace("two, one", "one")
    suite, cells = bench.suite(text)
    assert len(cells) == 2 * 5
    runs = [(cell.seed, cell.source_draw) for cell in validation_runs(suite, cells)]
    assert runs == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]


def test_a_search_needs_two_validation_runs(bench: Bench) -> None:
    with pytest.raises(BenchError, match=r"one validation run .* give two or more seeds"):
        bench.tuner(SUITE.replace("seeds: 2", "seeds: 1"))
