"""What changed between two stores beyond noise, paired by seed and source draw.

Noise is what a change of seed, or of source model, does to a paired difference. A difference counts
as a change where the paired t-test, that of the interval shown, still rejects at 5 % after Holm's
correction over everything that is tested: of two stores without any change at most one pair in
twenty has one. Wilcoxon's test cannot be used for this: of m comparisons it tells none apart before
2 / 2^n < .05 / m, so before 10 pairs where there are 20.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.errors import BenchError
from bench.records.record import Amount, Record, Results

from .aggregate import Row, clean, fate, run_of, usable
from .comparison import Comparison, compare
from .metrics import COSTS, primary
from .paired import geometric_mean, hedges_g, holm, t_test_p
from .showable import showable
from .statistics import (
    ANY,
    CONFIDENCE,
    DIFFERENCE,
    POSITIVE,
    SHARE,
    Estimate,
    Run,
    estimate,
    mean_ci,
    units,
)

SCORE = "score"
EQUAL = 1e-9
"""Relative difference up to which two costs are equal: sums in another order differ by less."""

Verdict = Literal["same", "within noise", "better", "worse", "n too small", "not compared"]


@dataclass(frozen=True)
class Change:
    """One quantity of one method in both stores, over the runs that are ok in both.

    Attributes
    ----------
    quantity : ``score`` or a name of `metrics.COSTS`
    title, unit, factor : for readers; so many of the unit are one of the records' unit
    kind : how a cost is known, ``modelled`` or ``measured``; empty for the score
    a, b : the means
    change : B - A, or for a cost that is above 0 in all runs the geometric mean of B / A
    is_ratio : which of them it is
    effect : Hedges' g of the paired differences, of ratios of their logarithms
    p, adjusted : of the paired t-test, and by Holm over all that is tested; None where n is too
        small
    same : whether no run differs
    higher_is_better : the direction
    why_not : why the two are not compared; empty if they are
    """

    quantity: str
    title: str
    unit: str = ""
    factor: float = 1.0
    kind: str = ""
    a: Estimate | None = None
    b: Estimate | None = None
    change: Estimate | None = None
    is_ratio: bool = False
    effect: float | None = None
    p: float | None = None
    adjusted: float | None = None
    same: bool = False
    higher_is_better: bool = False
    why_not: str = ""

    @property
    def verdict(self) -> Verdict:
        """What can be said of B against A."""
        if self.change is None:
            return "not compared"
        if self.same:
            return "same"
        if self.p is None:
            return "n too small"
        if self.adjusted is None or self.adjusted >= 1 - CONFIDENCE:
            return "within noise"
        more = self.change.mean > (1.0 if self.is_ratio else 0.0)
        return "better" if more is self.higher_is_better else "worse"

    @property
    def beyond_noise(self) -> bool:
        """Whether it counts as a change."""
        return self.verdict in ("better", "worse")


@dataclass(frozen=True)
class StatusChange:
    """A run whose status differs: in ``a`` and in ``b``, and the reason that the record gives."""

    run: Run
    a: str
    b: str
    reason: str


@dataclass(frozen=True)
class MethodChange:
    """One method with its settings on one comparison of both stores.

    ``title``: of the comparison; ``only_a``, ``only_b``: runs that one store has; ``code``: what
    of the code, profile or source models differs.
    """

    title: str
    suites: tuple[str, ...]
    model: str
    device: str
    variant: str
    method: str
    changes: tuple[Change, ...]
    statuses: tuple[StatusChange, ...]
    only_a: tuple[Run, ...]
    only_b: tuple[Run, ...]
    code: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What two stores have in common, what changed, and what one of them alone has.

    ``a``, ``b``: names of the stores; ``only_a``, ``only_b``: methods on comparisons that one has;
    ``notes``: of records that were left out.
    """

    a: str
    b: str
    methods: tuple[MethodChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether a quantity changed beyond noise or the status of a run differs."""
        return any(m.statuses or any(c.beyond_noise for c in m.changes) for m in self.methods)

    def json(self) -> str:
        """All of it, for programs: shares in [0, 1], costs in the unit of the records."""
        content = {
            "a": self.a,
            "b": self.b,
            "changed": self.changed,
            "methods": [_method_json(method) for method in self.methods],
            "only_in_a": list(self.only_a),
            "only_in_b": list(self.only_b),
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def changes_between(a: Iterable[Record], b: Iterable[Record], names: tuple[str, str]) -> Changes:
    """What changed from the records of one store to those of another, beyond noise.

    Of each store the newest code counts, as in its report. Raises BenchError if no method has runs
    of a common seed and source draw in both.
    """
    kept, told = zip(*map(showable, (a, b)), strict=True)
    known = [{c.key: c for c in compare(records)} for records in kept]
    rows = [
        {(key, *_setting(row)): (c, row) for key, c in found.items() for row in c.rows}
        for found in known
    ]
    common = [key for key in rows[0] if key in rows[1]]
    paired = [_method(*rows[0][key], *rows[1][key]) for key in common]
    if not any(_runs(rows[0][key][1]).keys() & _runs(rows[1][key][1]).keys() for key in common):
        raise BenchError(
            f"{names[0]} and {names[1]}: no run of one method, stream, model, device, seed and "
            "source draw is in both; name two stores of one suite"
        )
    return Changes(
        *names,
        methods=_adjusted(paired),
        only_a=tuple(_named(*rows[0][key]) for key in rows[0] if key not in rows[1]),
        only_b=tuple(_named(*rows[1][key]) for key in rows[1] if key not in rows[0]),
        notes=tuple(
            f"{name}: {note}"
            for name, found, lines in zip("AB", known, told, strict=True)
            for note in (*lines, *_left_out(found.values()))
        ),
    )


def _setting(row: Row) -> tuple[object, ...]:
    """What tells a row from the others of its comparison, whatever these are."""
    record = row.runs[-1]
    changed = json.dumps(record.method.changed, sort_keys=True)
    origin = record.cell.settings_origin
    return row.supervised, record.cell.method.name, origin, changed


def _named(comparison: Comparison, row: Row) -> str:
    return clean(f"{row.label} · {comparison.title}")


def _left_out(comparisons: Iterable[Comparison]) -> Iterable[str]:
    """What the comparisons say of records that they have not."""
    return (f"{clean(c.title)}: {n}" for c in comparisons for n in c.notes if "left out" in n)


def _runs(row: Row) -> dict[Run, Record]:
    """Those that came to an end: one that was stopped tells nothing of what changed."""
    return {run_of(r): r for r in row.runs if r.status != "interrupted"}


def _method(in_a: Comparison, a: Row, in_b: Comparison, b: Row) -> MethodChange:
    runs = [_runs(a), _runs(b)]
    shared = sorted(runs[0].keys() & runs[1].keys())
    both = [(runs[0][run], runs[1][run]) for run in shared]
    ok = [pair for pair in both if all(map(usable, pair))]
    cell = a.runs[-1].cell
    return MethodChange(
        title=clean(in_a.title),
        suites=tuple(sorted({clean(r.suite) for row in (a, b) for r in row.runs})),
        model=clean(cell.model.name),
        device=clean(cell.device_title),
        variant=clean(cell.model_title.removeprefix(cell.model.name).strip()) or "full",
        method=clean(a.label),
        changes=tuple(_changes(ok)),
        statuses=tuple(
            StatusChange(run_of(x), _ending(x), _ending(y), clean(y.reason or x.reason))
            for x, y in both
            if _ending(x) != _ending(y)
        ),
        only_a=tuple(sorted(runs[0].keys() - runs[1].keys())),
        only_b=tuple(sorted(runs[1].keys() - runs[0].keys())),
        code=tuple(_differing(a.runs[-1], b.runs[-1], ok)),
    )


def _ending(record: Record) -> str:
    """The status, with where memory ran out: on the device that is a result."""
    status = "ok" if usable(record) else fate(record)
    return f"{status} on the {record.oom_on}" if record.oom_on else status


def _differing(a: Record, b: Record, pairs: Iterable[tuple[Record, Record]]) -> list[str]:
    """What two records of one setting do not share: code, profile, core, source model."""
    x, y = a.cell, b.cell
    parts = {
        f"method {x.method.name}": (x.method.code, y.method.code),
        f"model {x.model.name}": (x.model.code, y.model.code),
        f"stream {x.stream.name}": (x.stream.code, y.stream.code),
        "profile of the device": (x.device_digest, y.device_digest),
        "core of the benchmark": (str(x.core), str(y.core)),
    }
    if x.variant is not None and y.variant is not None:
        parts[f"variant {x.variant.name}"] = (x.variant.code, y.variant.code)
    told = [name for name, (of_a, of_b) in parts.items() if of_a != of_b]
    if any(r.source_model != s.source_model for r, s in pairs):
        told.append("source model")
    return [clean(each) for each in told]


def _changes(pairs: list[tuple[Record, Record]]) -> Iterable[Change]:
    """Of the score and each cost, over pairs of runs that are ok in both."""
    if not pairs:
        return
    yield _score(pairs)
    for name in COSTS:
        yield _cost(name, pairs)


def _score(pairs: list[tuple[Record, Record]]) -> Change:
    first, other = (_results(record) for record in pairs[0])
    title = f"{first.metric.title}, {primary(pairs[0][0].cell.protocol).head}"
    higher = first.metric.higher_is_better
    found = Change(SCORE, title, "%", 100.0, higher_is_better=higher)
    if first.metric.name != other.metric.name:
        why = f"A has {first.metric.title}, B {other.metric.title}"
        return replace(found, why_not=clean(why))
    a, b = ({run_of(r): _results(r).score for r in side} for side in zip(*pairs, strict=True))
    found = replace(found, a=estimate(a, SHARE), b=estimate(b, SHARE))
    return _tested(found, {run: round(b[run] - a[run], 12) for run in a}, steps=True)


def _cost(name: str, pairs: list[tuple[Record, Record]]) -> Change:
    column = COSTS[name]
    found = Change(name, column.head, column.unit, column.factor)
    amounts = [
        [column.amount(_results(r).costs) for r in side] for side in zip(*pairs, strict=True)
    ]
    runs = [run_of(record) for record, _ in pairs]
    a, b = (
        {run: x.value for run, x in zip(runs, side, strict=True) if x and x.value is not None}
        for side in amounts
    )
    kinds = [sorted({x.kind for x in side if x and x.value is not None}) for side in amounts]
    told = [" and ".join(each) or f"unavailable ({_gap(side)})" for each, side in zip(
        kinds, amounts, strict=True)]  # fmt: skip
    if kinds[0] != kinds[1] or len(kinds[0]) != 1:
        return replace(found, why_not=clean(f"A: {told[0]}, B: {told[1]}"))
    common = sorted(a.keys() & b.keys())
    if not common:
        return replace(found, why_not="no run has it in both")
    machines = {str(r.environment.get("processor") or "unknown") for p in pairs for r in p}
    if kinds[0] == ["measured"] and len(machines) > 1:
        return replace(found, why_not=clean(f"measured on {' and '.join(sorted(machines))}"))
    a, b = ({run: side[run] for run in common} for side in (a, b))
    found = replace(found, kind=kinds[0][0], a=estimate(a, POSITIVE), b=estimate(b, POSITIVE))
    if all(v > 0 for side in (a, b) for v in side.values()):
        logs = {run: math.log(b[run] / a[run]) for run in common}
        return _tested(replace(found, is_ratio=True), _rounded(logs, 1.0))
    scale = max(abs(v) for side in (a, b) for v in side.values())
    return _tested(found, _rounded({run: b[run] - a[run] for run in common}, scale))


def _rounded(values: Mapping[Run, float], scale: float) -> dict[Run, float]:
    return {run: 0.0 if abs(v) <= EQUAL * scale else v for run, v in values.items()}


def _tested(found: Change, differences: Mapping[Run, float], steps: bool = False) -> Change:
    """With change, effect and p from the differences (of logarithms, if it is a ratio).

    ``steps``: the values are shares of a number of samples, see `t_test_p`.
    """
    known = list(units(differences).values())
    within = DIFFERENCE if found.quantity == SCORE else ANY
    ratio = geometric_mean([math.exp(v) for v in known]) if found.is_ratio else None
    return replace(
        found,
        change=ratio or mean_ci(known, within),
        effect=hedges_g(known),
        p=t_test_p(known, steps),
        same=not any(differences.values()),
    )


def _adjusted(methods: Iterable[MethodChange]) -> tuple[MethodChange, ...]:
    """With Holm's p-values over all changes that are tested.

    Where no run differs nothing can be rejected, and there is no test (Tarone, A modified
    Bonferroni method for discrete data, Biometrics 1990).
    """
    every = list(methods)
    tested = [(i, j, c.p) for i, m in enumerate(every) for j, c in enumerate(m.changes)
              if c.p is not None and not c.same]  # fmt: skip
    adjusted = dict(zip([t[:2] for t in tested], holm([p for *_, p in tested]), strict=True))
    return tuple(
        replace(m, changes=tuple(replace(c, adjusted=adjusted.get((i, j)))
                                 for j, c in enumerate(m.changes)))
        for i, m in enumerate(every)
    )  # fmt: skip


def _gap(amounts: Iterable[Amount | None]) -> str:
    """Why a cost is unavailable."""
    return "; ".join(sorted({x.how for x in amounts if x is not None})) or "not recorded"


def _results(record: Record) -> Results:
    assert record.results is not None
    return record.results


def _method_json(method: MethodChange) -> dict[str, Any]:
    return {
        "comparison": method.title,
        "suites": list(method.suites),
        "model": method.model,
        "device": method.device,
        "variant": method.variant,
        "method": method.method,
        "changes": [_change_json(change) for change in method.changes],
        "statuses": [
            {"seed": s.run.seed, "source_draw": s.run.draw, "a": s.a, "b": s.b, "reason": s.reason}
            for s in method.statuses
        ],
        "runs_only_in_a": [run._asdict() for run in method.only_a],
        "runs_only_in_b": [run._asdict() for run in method.only_b],
        "code_differs": list(method.code),
    }


def _change_json(change: Change) -> dict[str, Any]:
    made: dict[str, Any] = {"quantity": change.quantity, "verdict": change.verdict}
    if change.why_not:
        return made | {"why": change.why_not}
    assert change.a is not None
    assert change.b is not None
    assert change.change is not None
    interval = change.change.interval
    return made | {
        "known": change.kind or "measured",
        "a": change.a.mean,
        "b": change.b.mean,
        "ratio" if change.is_ratio else "difference": change.change.mean,
        "interval": None if interval is None else list(interval),
        "n": change.change.n,
        "effect": change.effect,
        "p": change.p,
        "p_holm": change.adjusted,
    }
