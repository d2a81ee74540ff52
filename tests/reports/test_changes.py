"""What `bench compare` says: its numbers against scipy's, and what counts as a change."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from bench import BenchError, registry
from bench.records.record import Metric, Record
from bench.reports.paired import holm, t_test_p

Make = Callable[..., Record]
NAMES = ("old", "new")
BEFORE = [0.60, 0.62, 0.58, 0.61, 0.59]
DROPS = [0.050, 0.048, 0.053, 0.047, 0.052]
NOISE = [0.011, -0.008, 0.004, -0.012, 0.007]


def compare(a: Iterable[Record], b: Iterable[Record], form: str = "text") -> tuple[str, bool]:
    told: tuple[str, bool] = registry.load("report", "changes")(a, b, NAMES, form)
    return told


def told(a: Iterable[Record], b: Iterable[Record]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(compare(a, b, "json")[0])
    return content


def changes(content: dict[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """The changes of a method by quantity."""
    (found,) = (m for m in content["methods"] if m["method"] == method)
    return {c["quantity"]: c for c in found["changes"]}


def runs(make: Make, method: str, scores: list[float], **more: Any) -> list[Record]:
    return [make(method, seed, after=score, **more) for seed, score in enumerate(scores)]


def less(values: list[float], others: list[float]) -> list[float]:
    return [a - b for a, b in zip(values, others, strict=True)]


def test_a_drop_is_beyond_noise_and_noise_is_not(make: Make) -> None:
    a = [*runs(make, "tent", BEFORE), *runs(make, "shot", BEFORE)]
    fell, noisy = less(BEFORE, DROPS), less(BEFORE, NOISE)
    b = [*runs(make, "tent", fell, version="x"), *runs(make, "shot", noisy, version="x")]
    content = told(a, b)
    tent, shot = (changes(content, name)["score"] for name in ("tent", "shot"))
    p = [scipy.stats.ttest_rel(BEFORE, after).pvalue for after in (fell, noisy)]
    assert (tent["p"], shot["p"]) == pytest.approx(tuple(p), rel=1e-6)
    assert p[0] < p[1] / 2
    assert (tent["p_holm"], shot["p_holm"]) == pytest.approx((2 * p[0], p[1]), rel=1e-6)
    assert (tent["verdict"], shot["verdict"]) == ("worse", "within noise")
    assert tent["difference"] == pytest.approx(-0.05)
    half = scipy.stats.t.ppf(0.975, 4) * scipy.stats.sem(DROPS)
    assert tent["interval"] == pytest.approx([-0.05 - half, -0.05 + half])
    assert tent["n"] == 5
    assert content["changed"] is True
    text, changed = compare(a, b)
    assert changed
    assert "Changed beyond noise: 0 better, 1 worse, 0 runs ended otherwise; 1 within" in text
    assert "Differs between A and B: method shot, method tent" in text


def test_the_same_records_differ_in_nothing(paper: list[Record]) -> None:
    text, changed = compare(paper, paper)
    assert not changed
    assert text.splitlines()[-1].startswith("No change beyond noise: 0 better, 0 worse, 0 runs")
    verdicts = {c["verdict"] for m in told(paper, paper)["methods"] for c in m["changes"]}
    assert verdicts == {"same", "not compared"}  # the energy of a method without a meter


def test_holm_takes_back_what_one_of_many_tests_finds_by_chance(make: Make) -> None:
    lucky = less(BEFORE, [0.02, 0.01, 0.03, 0.005, 0.025])  # p = .017 by itself
    quiet = less(BEFORE, NOISE)
    names = [f"m{i}" for i in range(9)]
    a = [r for n in ["lucky", *names] for r in runs(make, n, BEFORE)]
    b = [r for n in names for r in runs(make, n, quiet)]
    alone = told(runs(make, "lucky", BEFORE), runs(make, "lucky", lucky))
    among = told(a, [*runs(make, "lucky", lucky), *b])
    (one,) = (changes(alone, "lucky")["score"],)
    assert one["p"] == one["p_holm"] < 0.05
    assert one["verdict"] == "worse"
    many = changes(among, "lucky")["score"]
    assert many["p_holm"] == pytest.approx(10 * one["p"])
    assert many["verdict"] == "within noise"
    assert not among["changed"]


def test_costs_are_ratios_and_say_how_they_are_known(make: Make) -> None:
    times = [1.0, 2.0, 4.0]
    a = [make("tent", s, time=t, energy=10.0) for s, t in enumerate(times)]
    b = [make("tent", s, time=t * 1.5, energy=10.0 - s) for s, t in enumerate(times)]
    found = changes(told(a, b), "tent")
    assert found["time"]["ratio"] == pytest.approx(1.5)
    assert (found["time"]["verdict"], found["time"]["known"]) == ("worse", "modelled")
    assert found["time"]["p"] == 0.0  # the same ratio in each run
    energy = found["energy"]
    logs = [math.log((10 - s) / 10) for s in range(3)]
    assert energy["ratio"] == pytest.approx(math.exp(sum(logs) / 3))
    assert energy["p"] == pytest.approx(scipy.stats.ttest_1samp(logs, 0).pvalue)
    assert energy["verdict"] == "within noise"
    assert found["memory"]["verdict"] == "same"
    assert "1.50" in compare(a, b)[0]
    assert "(B / A, modelled)" in compare(a, b, "markdown")[0]


def test_a_cost_of_nothing_has_a_difference_and_no_ratio(make: Make) -> None:
    a = [make("source-only", s, time=0.0) for s in range(3)]
    b = [make("source-only", s, time=0.25) for s in range(3)]
    found = changes(told(a, b), "source-only")["time"]
    assert (found["difference"], found["verdict"]) == (0.25, "worse")
    assert "ratio" not in found


def test_sums_in_another_order_are_the_same(make: Make) -> None:
    a = [make("tent", s, time=0.1 + 0.2 + 0.3) for s in range(3)]
    b = [make("tent", s, time=0.3 + 0.2 + 0.1) for s in range(3)]
    assert a[0].results.costs.adaptation_time != b[0].results.costs.adaptation_time
    assert changes(told(a, b), "tent")["time"]["verdict"] == "same"


def test_one_pair_and_a_few_equal_steps_are_too_few(make: Make) -> None:
    alone = changes(told([make("tent", 0, after=0.6)], [make("tent", 0, after=0.4)]), "tent")
    assert alone["score"]["verdict"] == "n too small"
    assert alone["score"]["interval"] is None
    # A share of 100 samples moves in steps: five equal drops may be chance, six hardly.
    fell = [score - 0.01 for score in BEFORE]
    five = changes(told(runs(make, "t", BEFORE), runs(make, "t", fell)), "t")["score"]
    assert (five["verdict"], five["p"]) == ("n too small", None)
    more = told(runs(make, "t", [*BEFORE, 0.6]), runs(make, "t", [*fell, 0.59]))
    six = changes(more, "t")["score"]
    assert (six["p"], six["verdict"]) == (2 / 2**6, "worse")


def test_the_p_of_the_t_test() -> None:
    assert t_test_p(DROPS) == pytest.approx(scipy.stats.ttest_1samp(DROPS, 0).pvalue)
    assert t_test_p([0.1]) is None
    assert t_test_p([0.0, 0.0]) == 1.0
    assert t_test_p([0.1, 0.1]) == 0.0
    assert t_test_p([0.1, 0.1], steps=True) is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_stores_without_a_change_few_have_one(seeds: int) -> None:
    """Differences of 20 scores, shares of 400 samples: at most 5 % of the families, but for chance
    (of 100 families 10 or more have a probability of 3 %).
    """
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        family = np.round(random.normal(0, 4, (20, seeds))) / 400
        tests = [t_test_p(list(map(float, row)), steps=True) for row in family if row.any()]
        alarms += min(holm([p for p in tests if p is not None])) < 0.05
    assert alarms < 10


def test_lower_may_be_better(make: Make) -> None:
    def with_loss(record: Record) -> Record:
        loss = Metric(name="error", title="error", higher_is_better=False)
        results = record.results.model_copy(update={"metric": loss})
        return record.model_copy(update={"results": results})

    a = [with_loss(r) for r in runs(make, "tent", BEFORE)]
    b = [with_loss(r) for r in runs(make, "tent", less(BEFORE, DROPS))]
    assert changes(told(a, b), "tent")["score"]["verdict"] == "better"
    mixed = changes(told(runs(make, "tent", BEFORE), b), "tent")["score"]
    assert mixed == {
        "quantity": "score", "verdict": "not compared", "why": "A has accuracy, B error",
    }  # fmt: skip


def test_runs_that_ended_otherwise_are_changes_and_stopped_ones_are_none(make: Make) -> None:
    a = [make("tent", s) for s in range(4)]
    b = [
        make("tent", 0),
        make("tent", 1, status="failed", reason="ValueError: loss is nan"),
        make("tent", 2, status="oom", oom_on="device", reason="too large"),
        make("tent", 3, status="interrupted"),
    ]
    text, changed = compare(a, b)
    assert changed
    (method,) = told(a, b)["methods"]
    assert method["statuses"] == [
        {"seed": 1, "source_draw": 0, "a": "ok", "b": "failed",
         "reason": "ValueError: loss is nan"},
        {"seed": 2, "source_draw": 0, "a": "ok", "b": "oom on the device", "reason": "too large"},
    ]  # fmt: skip
    assert method["runs_only_in_a"] == [{"draw": 0, "seed": 3}]
    assert "2 runs ended otherwise" in text
    assert all(word in text for word in ("ValueError:", "loss", "nan"))  # in lines of its cell
    again, changed = compare([make("tent", 0), b[3]], [make("tent", 0), a[3]])
    assert not changed
    assert "Only in B: tent · domain-shift · digits · small-vit · board (seed 3)" in again


def test_what_one_store_alone_has_is_named_and_no_change(make: Make) -> None:
    both = [make("source-only", s) for s in range(2)]
    a = [*both, make("tent", 0), make("shot", 0, device="other")]
    b = [*both, make("tent", 0, changed={"learning_rate": 0.1})]
    content = told(a, b)
    assert content["only_in_a"] == [
        "tent · domain-shift · digits · small-vit · board",
        "shot · domain-shift · digits · small-vit · other",
    ]
    assert content["only_in_b"] == [
        "tent (learning_rate=0.1) · domain-shift · digits · small-vit · board"
    ]
    assert not content["changed"]


@pytest.mark.parametrize("b", [[], ["device"], ["seed"]])
def test_stores_without_a_common_run_cannot_be_compared(make: Make, b: list[str]) -> None:
    others = {"device": [make("tent", 0, device="other")], "seed": [make("tent", 5)]}
    with pytest.raises(BenchError, match="old and new: no run of one method, stream, model"):
        compare([make("tent", 0)], [r for each in b for r in others[each]])


def test_costs_of_other_kinds_or_machines_are_not_compared(make: Make) -> None:
    host = {"device": "host", "kind": "measured"}
    elsewhere = {"environment": {"processor": "Another CPU"}}
    a = [make("tent", s, time=1.0, **host) for s in range(3)]
    b = [make("tent", s, time=2.0 + s, **host, **elsewhere) for s in range(3)]
    found = changes(told(a, b), "tent")
    assert found["time"] == {
        "quantity": "time", "verdict": "not compared", "why": "measured on Another CPU and Some CPU"
    }  # fmt: skip
    here = [make("tent", s, time=2.0 + s / 100, **host) for s in range(3)]
    measured = changes(told(a, here), "tent")["time"]
    assert (measured["verdict"], measured["known"]) == ("worse", "measured")
    modelled = [make("tent", s, device="host") for s in range(3)]
    assert changes(told(a, modelled), "tent")["time"]["why"] == "A: measured, B: modelled"
    gone = [make("tent", s, energy=None, **host) for s in range(3)]
    why = "A: measured, B: unavailable (no meter is read)"
    assert changes(told(a, gone), "tent")["energy"]["why"] == why
    said = " ".join(compare(a, gone)[0].split())
    where = "tent · domain-shift · digits · small-vit · host"
    assert f"Not compared: adaptation energy: {why} ({where})" in said


def test_intervals_are_over_source_draws_where_there_are_three(make: Make) -> None:
    def drawn(record: Record, draw: int) -> Record:
        cell = record.cell.model_copy(update={"source_draw": draw})
        return record.model_copy(update={"cell": cell, "identity": cell.identity})

    def of(shift: float) -> list[Record]:
        return [
            drawn(make("tent", s, after=0.6 + shift * (1 + d) + s / 1000), d)
            for d in range(3) for s in range(4)
        ]  # fmt: skip

    found = changes(told(of(0.0), of(0.01)), "tent")["score"]
    assert found["n"] == 3
    assert found["p"] == pytest.approx(scipy.stats.ttest_1samp([0.01, 0.02, 0.03], 0).pvalue)


def test_names_and_reasons_cannot_become_markup_or_steer_a_terminal(make: Make, nasty: str) -> None:
    a = [make(nasty, 0, device=nasty), make("tent", 0)]
    b = [make(nasty, 0, device=nasty, status="failed", reason=nasty), make("tent", 0)]
    for form in ("text", "markdown", "json"):
        text, changed = compare(a, b, form)
        assert changed
        assert all(c.isprintable() or c == "\n" for c in text)
    assert "<script>" not in compare(a, b, "markdown")[0]
