"""Fair tuning: equal budgets, the defaults first, failures counted, the same on resume."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import SUITE, Bench, quality

from bench import registry
from bench.cli.tune import command, tuned_file
from bench.contracts.method import (
    MethodConfig,
    Searched,
    SearchedChoice,
    choice,
    search_space,
    tunable,
)
from bench.errors import BenchError
from bench.records.cell import Cell
from bench.study.plan import make_cells
from bench.study.tuned_settings import merged, write_tuned
from bench.tuning.tune import (
    DIGITS,
    default_out,
    distribution,
    rounded,
    validation_suite,
)

# --- the budget -------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_every_method_gets_as_many_trials_and_its_defaults_first(bench: Bench, trials: int) -> None:
    tuner = bench.tuner(trials=trials)
    assert tuner.names == ["two", "one"]
    assert bench.run(tuner) == sum(tried.runs for tried in bench.told)
    for name in tuner.names:
        mine = [tried for tried in bench.told if tried.method == name]
        assert [tried.trial for tried in mine] == list(range(1, trials + 1))
        first, *others = bench.tried(name)
        assert first == {}
        assert all(others)
        assert len({json.dumps(o) for o in others}) == len(others)
        assert mine[0].runs == 2
        assert {tried.runs for tried in mine} <= {1, 2}
    assert {tried.trials for tried in bench.told} == {trials}
    defaults = {c.method.name: c.method.config for c in bench.ran[:4]}
    assert defaults == {
        "two": {"learning_rate": 0.001, "epochs": 1, "fixed": 7}, "one": {"weight": 0.5},
    }  # fmt: skip
    assert {n: t.trials for n, t in tuner.results().items()} == {"two": trials, "one": trials}


def test_a_search_with_few_possibilities_spends_its_trials_all_the_same(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "whole"), trials=8)
    ran = bench.run(tuner)
    assert [tried.trial for tried in bench.told] == list(range(1, 9))
    assert ran == len({c.identity for c in bench.ran}) <= 2 * 3  # nothing is run twice
    assert tuner.results()["whole"].trials == 8


def test_jobs_say_where_to_write_and_which_plugins_to_load(bench: Bench, plugin: Path) -> None:
    jobs = bench.tuner().begin()
    assert [len(job.cells) for job in jobs] == [1] * 4
    assert len({job.run for job in jobs}) == 4
    for job in jobs:
        assert (job.suite, job.store) == ("mine", str(bench.store.root))
        assert (job.attempts, job.plugins) == ((0,), (str(plugin),))
        assert job.cells[0].device == "xavier-nx"


# --- what is found ----------------------------------------------------------------------


def test_the_best_trial_is_found_with_its_score(bench: Bench) -> None:
    tuner = bench.tuner(trials=12)
    bench.run(tuner)
    for name, found in tuner.results().items():
        scores = [(t.score, t.settings) for t in bench.told if t.method == name and t.runs == 2]
        best = max(score for score, _ in scores)
        assert found.score == pytest.approx(best, abs=1e-6)
        assert found.score > found.default_score == pytest.approx(scores[0][0], abs=1e-6)
        assert (found.settings, found.failed) == (dict(scores)[best], 0)
        cell = next(c for c in bench.ran if c.method.name == name)
        assert found.code == cell.method.code


def test_equal_scores_keep_the_defaults(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: 0.5)
    for found in tuner.results().values():
        assert (found.settings, found.score, found.default_score) == ({}, 0.5, 0.5)


def test_a_score_of_zero_is_a_score(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: 0.0)
    for found in tuner.results().values():
        assert (found.settings, found.score, found.default_score, found.failed) == ({}, 0, 0, 0)


def test_defaults_outside_of_the_search_are_tried_and_can_win(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "outside"))
    bench.run(tuner, lambda cell: 0.9 if cell.method.config["weight"] > 1 else 0.1)
    found = tuner.results()["outside"]
    assert (found.settings, found.default_score, found.trials) == ({}, 0.9, 6)
    assert all(0 <= s["weight"] <= 1 for s in bench.tried("outside")[1:])


def test_names_are_chosen_among_those_that_are_searched(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "named"), trials=16)
    bench.run(tuner, lambda cell: 0.9 if cell.method.config["optimizer"] == "adamw" else 0.1)
    tried = [settings["optimizer"] for settings in bench.tried("named")[1:]]
    assert set(tried) == {"sgd", "adamw"}
    assert tried.count("adamw") > tried.count("sgd")  # the sampler learns which is better
    assert tuner.results()["named"].settings["optimizer"] == "adamw"


def test_a_choice_needs_two_names() -> None:
    for names in (("a",), ("a", "a"), ("a", "b", "b")):
        with pytest.raises(ValueError, match="at least two different names"):
            choice(*names)


# --- failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "unsupported"])
def test_failed_trials_are_counted_and_told_and_the_search_goes_on(
    bench: Bench, status: str
) -> None:
    def outcome(cell: Cell) -> float | str:
        config = cell.method.config
        return status if config.get("epochs", 1) > 2 else quality(config)

    tuner = bench.tuner(trials=10)
    bench.run(tuner, outcome)
    assert len(bench.told) == 20
    found = tuner.results()["two"]
    failed = [t.settings for t in bench.told if t.method == "two" and t.score is None]
    assert found.failed == len(failed) > 0
    assert all(s["epochs"] > 2 for s in failed)
    assert found.settings.get("epochs", 1) <= 2
    assert found.trials == 10
    assert tuner.results()["one"].failed == 0


def test_defaults_that_fail_have_no_score_and_others_can_be_found(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: "oom" if cell.method.config.get("weight") == 0.5 else 0.25)
    found = tuner.results()["one"]
    assert (found.default_score, found.score, found.failed) == (None, 0.25, 1)
    assert found.settings == bench.tried("one")[1]  # the first of equals
    assert (found.gain, found.standard_error, found.not_taken) == (None, None, None)


def test_a_method_whose_every_trial_fails_has_no_result(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: "failed" if cell.method.name == "two" else 0.5)
    assert set(tuner.results()) == {"one"}
    assert tuner.names == ["two", "one"]
    assert len(bench.tried("two")) == 6


def test_a_method_that_does_not_apply_is_not_searched(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: "unsupported" if cell.method.name == "two" else 0.5)
    assert tuner.names == ["one"] == list(tuner.results())
    assert tuner.untunable == {"two": "made to be unsupported"}
    assert bench.tried("two") == [{}]
    again = bench.tuner()
    assert bench.run(again) == 0  # all is in the store
    assert again.untunable == tuner.untunable


# --- values -----------------------------------------------------------------------------


def test_values_are_inside_their_bounds_short_and_of_their_type(bench: Bench) -> None:
    bench.run(bench.tuner(trials=20))
    for tried in bench.tried("two")[1:]:
        assert set(tried) == {"learning_rate", "epochs"}
        assert isinstance(tried["learning_rate"], float)
        assert 1e-5 <= tried["learning_rate"] <= 1e-1
        assert tried["learning_rate"] == float(f"{tried['learning_rate']:.{DIGITS}g}")
        assert type(tried["epochs"]) is int
        assert 1 <= tried["epochs"] <= 5
    for cell in bench.ran:
        config = registry.load("method", cell.method.name).Config
        assert config.model_validate(cell.method.config).model_dump() == cell.method.config
        assert cell.method.config.get("fixed", 7) == 7
    rates = sorted(t["learning_rate"] for t in bench.tried("two")[1:])
    assert rates[0] < 1e-3 < rates[-1]  # on a logarithmic scale few of 19 would be uniform's


@settings(max_examples=25)
@given(
    low=st.floats(1e-6, 10), width=st.floats(1e-3, 10), log=st.booleans(), whole=st.booleans(),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_no_rounding_leaves_the_bounds(
    low: float, width: float, log: bool, whole: bool, seed: int
) -> None:
    import optuna

    low, high = (math.ceil(low), math.ceil(low) + round(width)) if whole else (low, low + width)
    searched = Searched("x", low, high, log, whole)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(5):
        value = rounded(study.ask({"x": distribution(searched)}).params["x"], searched)
        assert low <= value <= high
        assert isinstance(value, int if whole else float)


def test_a_search_space_is_read_off_the_settings() -> None:
    class Config(MethodConfig):
        rate: float = tunable(0.1, 0.01, 1.0, unit="1/s", log=True, ge=0.001, le=2.0)
        count: int = tunable(3, 1, 9)
        kind: Literal["a", "b", "c"] = choice("b", "a")
        plain: float = 5.0

    assert list(search_space(Config)) == [
        Searched("rate", 0.01, 1.0, True, False), Searched("count", 1, 9, False, True),
        SearchedChoice("kind", ("b", "a")),
    ]  # fmt: skip
    assert Config().model_dump() == {"rate": 0.1, "count": 3, "kind": "b", "plain": 5.0}
    assert Config(rate=0.001, count=9).rate == 0.001  # accepted, though not searched
    assert Config(kind="c").kind == "c"
    for bad in (
        {"kind": "d"},
        {"rate": 2.1},
        {"rate": 0.0009},
        {"count": 0},
        {"count": 10},
        {"count": 2.5},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Config(**bad)
    assert list(search_space(MethodConfig)) == []


# --- what is not tuned ------------------------------------------------------------------


def test_methods_that_cannot_be_tuned_are_named_with_the_reason(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "nothing, labels, one"))
    assert tuner.names == ["one"]
    assert set(tuner.untunable) == {"nothing", "labels"}
    assert tuner.untunable["nothing"] == "it has no setting to search"
    assert "labels needs target labels" in tuner.untunable["labels"]
    bench.run(tuner)
    assert len(bench.told) == 6


def test_what_the_suite_gives_is_kept_and_not_searched(bench: Bench) -> None:
    text = SUITE.replace("two, one", "{name: two, epochs: 3, fixed: 1}, {name: one, weight: 0.1}")
    tuner = bench.tuner(text)
    assert tuner.names == ["two"]
    assert tuner.untunable == {"one": "the suite gives every setting that would be searched"}
    bench.run(tuner)
    for cell in bench.ran:
        assert (cell.method.config["epochs"], cell.method.config["fixed"]) == (3, 1)
    assert all(set(s) == {"learning_rate"} for s in bench.tried("two")[1:])


def test_a_method_listed_twice_is_tuned_as_its_first_listing(bench: Bench) -> None:
    twice = SUITE.replace("two, one", "{name: two, fixed: 1}, two").replace(
        "seeds: 2", "supervised_references: [two]\nseeds: 2"
    )
    tuner = bench.tuner(twice, trials=3)
    assert tuner.names == ["two"]
    assert bench.run(tuner) == tuner.results()["two"].runs == sum(t.runs for t in bench.told)
    assert {(c.method.config["fixed"], c.target_labels) for c in bench.ran} == {(1, False)}


def test_a_method_that_needs_labels_is_tuned_as_the_reference_that_it_is(bench: Bench) -> None:
    text = SUITE.replace("two, one", "one, labels").replace(
        "seeds: 2", "supervised_references: [labels]\nseeds: 2"
    )
    tuner = bench.tuner(text, trials=1)
    assert (tuner.names, tuner.untunable) == (["one", "labels"], {})
    assert bench.run(tuner) == 4
    assert {c.target_labels for c in bench.ran if c.method.name == "labels"} == {True}


# --- the stream that is searched on -----------------------------------------------------


def test_the_validation_suite_is_the_suite_on_its_validation_stream(bench: Bench) -> None:
    suite, _ = bench.suite(SUITE.replace("toy-shift", "{name: toy-shift, shifts: [shear]}"))
    searched = validation_suite(suite)
    assert searched.name == "mine-validation"
    assert searched.stream.name == "toy-shift"
    assert searched.stream.config == {"part": "validation", "shifts": ["blur"]}
    same = {"name", "stream"}
    assert searched.model_dump(exclude=same) == suite.model_dump(exclude=same)
    cells = make_cells(searched, bench.folder / "mine.yaml")
    assert {c.stream.config["part"] for c in cells} == {"validation"}


def test_a_stream_without_a_validation_stream_says_what_to_implement(bench: Bench) -> None:
    suite, _ = bench.suite(SUITE.replace("toy-shift", "toy-without"))
    with pytest.raises(
        BenchError, match=re.escape("ToyWithout has no validation stream: implement validation")
    ):
        validation_suite(suite)


def test_the_digits_validation_shares_no_shift_with_the_test(bench: Bench) -> None:
    stream = registry.load("stream", "digits-shift")
    config = stream.Config()
    validation = stream.validation(config)
    assert set(validation.shifts).isdisjoint(config.shifts)
    assert stream.Config.model_validate(validation.model_dump(mode="json")) == validation


def test_tuned_settings_are_written_beside_a_users_suite_and_never_into_the_package(
    tmp_path: Path,
) -> None:
    assert default_out(tmp_path / "a" / "mine.yaml", tmp_path) == tmp_path / "a/mine.tuned.yaml"
    assert default_out(tmp_path / "mine.yaml", tmp_path) == Path("mine.tuned.yaml")


# --- what the command refuses before anything runs ------------------------------------------


@pytest.fixture
def refusal(bench: Bench, plugin: Path) -> Callable[..., str]:
    """The error of ``bench tune``; nothing is written."""

    def ask(text: str = SUITE, **options: Any) -> str:
        suite = bench.folder / "mine.yaml"
        suite.write_text(text)
        before = sorted(bench.folder.rglob("*"))
        with pytest.raises(BenchError) as caught:
            command(
                suite=str(suite), plugins=[plugin], jobs=1,
                **{"store": bench.folder / "trials", "trials": 2, **options},
            )  # fmt: skip
        assert sorted(bench.folder.rglob("*")) == before
        return str(caught.value)

    return ask


def test_a_suite_with_nothing_to_tune_writes_no_file(
    refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(methods="nothing")
    assert text.endswith("nothing to tune; name other methods with --methods")
    assert "nothing: not tuned: it has no setting to search" in capsys.readouterr().err


def test_a_mistake_in_the_suite_is_the_one_line_that_planning_gives(
    refusal: Callable[..., str],
) -> None:
    text = refusal(SUITE.replace("toy-shift", "{name: toy-shift, shfts: [a]}"))
    assert "mine.yaml: stream 'toy-shift': key 'shfts': unknown" in text
    assert "unknown stream 'toy-shfit'" in refusal(SUITE.replace("toy-shift", "toy-shfit"))
    assert "key 'epochs': 0 is not allowed" in refusal(
        SUITE.replace("[two", "[{name: two, epochs: 0}")
    )


def test_a_stream_without_validation_is_refused(refusal: Callable[..., str]) -> None:
    assert "no validation stream" in refusal(SUITE.replace("toy-shift", "toy-without"))


def test_an_out_that_cannot_be_written_is_refused(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert refusal(out=tmp_path).endswith("is a folder; name a file")
    file = tmp_path / "file"
    file.write_text("")
    assert f"--store {file}: is a file; name a folder" in refusal(store=file)


def test_settings_tuned_under_another_budget_are_not_written_over(
    refusal: Callable[..., str], bench: Bench, tmp_path: Path
) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "two, one, whole"), trials=1)
    bench.run(tuner)
    out = tmp_path / "mine.tuned.yaml"
    suite, cells = bench.suite()
    write_tuned(out, tuned_file(suite, suite, cells, tuner, 1, False))
    kept = out.read_bytes()
    text = refusal(methods="one")
    assert text.startswith(f"--out {out}: has settings of other methods that were tuned with ")
    assert text.endswith("tune all of its methods, or name another file")
    assert "were tuned with validation" in refusal()
    assert out.read_bytes() == kept


def test_a_method_tuned_under_the_same_budget_joins_the_others(bench: Bench) -> None:
    text = SUITE.replace("two, one", "two, one, whole")
    first = bench.tuner(text, trials=2)
    bench.run(first)
    suite, cells = bench.suite(text)
    old = tuned_file(suite, suite, cells, first, 2, False)
    new = old.model_copy(
        update={
            "command": "bench tune --methods one",
            "methods": {"one": old.methods["one"].model_copy(update={"score": 0.125})},
        }
    )
    both = merged(old, new)
    assert list(both.methods) == ["two", "one", "whole"]
    assert both.methods["two"] == old.methods["two"]
    assert both.methods["one"].score == 0.125
    assert both.methods["one"].command == "bench tune --methods one"
    assert both.command == old.command
    for name, other in (
        ("trials", 3),
        ("seeds", [0, 2]),
        ("source_draws", 3),
        ("rule", "another"),
        ("oracle", True),
        ("data", "other"),
    ):
        with pytest.raises(BenchError, match=f"were tuned with {name} "):
            merged(old, new.model_copy(update={name: other}))


def test_every_variant_of_the_model_is_searched_for_itself(bench: Bench) -> None:
    """The same number of trials each; a method that starts from the full model only once."""
    text = SUITE.replace("two, one", "two, from-full") + "variants: [full, compressed:4]\n"
    tuner = bench.tuner(text, trials=3)
    assert tuner.names == ["two", "two@compressed:4", "from-full"]
    bench.run(tuner)
    tried = [t.method for t in bench.told]
    assert {key: tried.count(key) for key in tuner.names} == dict.fromkeys(tuner.names, 3)
    assert {cell.variant is None for cell in bench.ran if cell.method.name == "two"} == {
        True,
        False,
    }


def test_settings_of_a_variant_are_its_own_else_those_of_the_full_model(bench: Bench) -> None:
    text = SUITE.replace("two, one", "two, one") + "variants: [full, compressed:4]\n"
    tuner = bench.tuner(text, trials=1)
    bench.run(tuner)
    suite, cells = bench.suite(text)
    made = tuned_file(suite, suite, cells, tuner, 1, False)
    found = made.methods["two"]
    methods = {
        "two": found.model_copy(update={"settings": {"epochs": 2}}),
        "two@compressed:4": found.model_copy(update={"settings": {"epochs": 3}}),
        "one": made.methods["one"].model_copy(update={"settings": {"weight": 0.25}}),
    }
    settled = make_cells(
        suite, bench.folder / "mine.yaml", made.model_copy(update={"methods": methods})
    )
    used = {cell.tuning_key: cell.method.config for cell in settled}
    assert used["two"]["epochs"] == 2
    assert used["two@compressed:4"]["epochs"] == 3
    assert used["one"]["weight"] == used["one@compressed:4"]["weight"] == 0.25
