"""Rows: one method with its settings over runs, and what each row knows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bench.records.record import Amount, MethodFacts, Record, Results

from .metrics import COSTS, MEASURES
from .statistics import ANY, POSITIVE, Estimate, Range, Run, estimate, paired_difference

SOURCE_ONLY = "source-only"
"""The method that every other is compared with."""


@dataclass(frozen=True)
class Cost:
    """One cost over a row's runs, in the unit of the records.

    ``estimate`` is over the runs where the cost is known: None if it is in none of them.
    ``kinds`` of the known values, ``hows`` of the known and ``gaps`` of the unavailable ones.
    """

    estimate: Estimate | None
    kinds: tuple[str, ...] = ()
    hows: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClosedWindow:
    """Where the window closed before a row's runs were done, over domains and seeds.

    ``closed`` of ``domains``; on these, steps ``done`` and, where a device with a longer window
    tells it, how many the method ``wanted``.
    """

    closed: int
    domains: int
    done: int
    wanted: int | None

    def __str__(self) -> str:
        steps = f"{self.done}" if self.wanted is None else f"{self.done} of {self.wanted}"
        return f"{self.closed} of {self.domains} domains, {steps} steps"


@dataclass(frozen=True)
class Row:
    """A method with its settings, over seeds and draws of the source model.

    ``label`` is the method's name with what tells it from the comparison's other rows.
    ``accuracy`` has every name of `metrics.MEASURES`, as fractions or None where no run knows it;
    ``further`` those of the task's further metrics that some run has, once adapted, in their units;
    ``costs`` every name of `metrics.COSTS`, in seconds (of the stream, or for a sample), joules and
    bytes above the runtime (resident memory where it is known, else live memory).
    ``difference`` is to source-only in the score, paired by run, and None for source-only itself.
    ``older_code``: the method's newest runs have other code. ``inert``: the accuracies equal
    source-only's on every domain, split and seed. ``window``: None where no window closed.
    ``display``: what a report file calls the row.
    """

    label: str
    supervised: bool
    runs: tuple[Record, ...]
    accuracy: Mapping[str, Estimate | None]
    difference: Estimate | None
    costs: Mapping[str, Cost]
    older_code: bool = False
    inert: bool = False
    window: ClosedWindow | None = None
    further: Mapping[str, Estimate] = field(default_factory=dict)
    display: str = ""

    @property
    def is_source_only(self) -> bool:
        """Whether this is the lower reference."""
        return self.label == SOURCE_ONLY and not self.supervised

    @property
    def facts(self) -> MethodFacts:
        """What the registry said of the method; all runs of a row have the same code."""
        return max(self.runs, key=age).method

    @cached_property
    def settings(self) -> str:
        """Where the settings come from: tuned, default, given, oracle, or none to tune."""
        return origin_of_settings(max(self.runs, key=age))

    @property
    def is_oracle(self) -> bool:
        """Whether settings were selected with the labels of the test stream."""
        return self.settings == "oracle"

    @property
    def competes(self) -> bool:
        """Whether neither method nor settings saw labels that a deployed device does not have."""
        return not (self.supervised or self.is_oracle)

    @cached_property
    def results(self) -> Mapping[Run, Results]:
        """The results of the runs that are ok."""
        return results_of(self.runs)

    @cached_property
    def scores(self) -> Mapping[Run, float]:
        """What methods are compared by."""
        return {run: results.score for run, results in self.results.items()}

    def amounts(self, cost: str) -> dict[Run, float]:
        """One of `metrics.COSTS` where it is known, in the unit of the records."""
        amounts = {run: COSTS[cost].amount(r.costs) for run, r in self.results.items()}
        return {r: a.value for r, a in amounts.items() if a is not None and a.value is not None}

    @property
    def uncounted(self) -> list[str]:
        """What the counts of some run leave out, so that costs are lower bounds."""
        return sorted({what for r in self.results.values() for what in r.costs.uncounted})

    @cached_property
    def missing(self) -> tuple[Record, ...]:
        """The runs without results."""
        return tuple(r for r in self.runs if not usable(r))

    @property
    def seeds(self) -> str:
        """How many runs are ok, and what became of the others: ``4 of 5; 1 timeout``."""
        text = f"{len(self.runs) - len(self.missing)} of {len(self.runs)}"
        counts = Counter(fate(r) for r in self.missing)
        others = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        return f"{text}; {others}" if others else text


def make_row(
    label: str,
    supervised: bool,
    runs: Sequence[Record],
    reference: Mapping[Run, Results],
    older_code: bool = False,
    window: ClosedWindow | None = None,
) -> Row:
    """A row from runs that differ in seed and source draw alone; ``reference``: source-only's."""
    results = results_of(runs)
    itself = label == SOURCE_ONLY and not supervised
    accuracy = {
        name: _over_runs({run: m.value(r) for run, r in results.items()}, m.within)
        for name, m in MEASURES.items()
    }
    own, known = ({run: r.score for run, r in of.items()} for of in (results, reference))
    difference = None if itself else paired_difference(own, known)
    costs = {
        name: _cost({run: c.amount(r.costs) for run, r in results.items()})
        for name, c in COSTS.items()
    }
    return Row(
        label,
        supervised,
        tuple(runs),
        accuracy,
        difference,
        costs,
        older_code,
        inert=not itself and _inert(results, reference),
        window=window,
        further=_further(results),
    )


def _further(found: Mapping[Run, Results]) -> dict[str, Estimate]:
    """The further metrics that runs have."""
    known: dict[str, dict[Run, float | None]] = {}
    ranges: dict[str, Range] = {}
    for run, results in found.items():
        for metric in results.further_metrics:
            known.setdefault(metric.name, {})[run] = results.further(metric.name)
            highest = math.inf if metric.highest is None else metric.highest
            ranges[metric.name] = Range(metric.lowest, highest)
    made = {}
    for name, values in known.items():
        within = ranges[name]
        told = [v for v in values.values() if v is not None]
        inside = all(within.low <= v <= within.high for v in told)
        made[name] = _over_runs(values, within if inside else ANY)
    return {name: estimate for name, estimate in made.items() if estimate is not None}


def _inert(results: Mapping[Run, Results], reference: Mapping[Run, Results]) -> bool:
    """Whether no accuracy differs from source-only's; not known where a run has no source-only."""
    own = {run: _accuracies(r) for run, r in results.items()}
    return bool(own) and all(
        run in reference and _accuracies(reference[run]) == own[run] for run in own
    )


def _accuracies(results: Results) -> list[object]:
    domains = [(d.name, d.before, d.after, d.final, d.online) for d in results.domains]
    return [*domains, results.source_before, results.source_after, results.matrix]


def find_row(rows: Iterable[Row], name: str) -> Row | None:
    """The row with a label, else the first of a method, tuned before others; None if none is."""
    known = list(rows)
    of_method = sorted(
        (row for row in known if row.runs[0].cell.method.name == name),
        key=lambda row: (row.supervised, row.settings != "tuned"),
    )
    labelled = [row for row in known if row.label == name]
    return next(iter([*labelled, *of_method]), None)


def fate(record: Record) -> str:
    """The status of a run without results."""
    return record.status if record.status != "ok" else "empty"


def age(record: Record) -> tuple[str, str]:
    """What orders records in time."""
    return record.started, record.identity


def usable(record: Record) -> bool:
    """Whether a run has results."""
    return record.status == "ok" and record.results is not None and bool(record.results.domains)


def run_of(record: Record) -> Run:
    """What tells a record from the others of its row."""
    return Run(record.cell.source_draw, record.cell.seed)


def results_of(runs: Iterable[Record]) -> dict[Run, Results]:
    """The results of the runs that have some."""
    return {run_of(r): r.results for r in runs if usable(r) and r.results is not None}


def origin_of_settings(record: Record) -> str:
    """Where a method's settings come from; records that do not say so yet had them given."""
    kind: str = record.cell.settings_origin
    if kind == "default":
        kind = record.method.settings_origin
    return "given" if record.method.changed and kind in ("default", "none") else kind


def label(record: Record, full: bool = False, mark_unavailable: Container[str] = ()) -> str:
    """A method's name with the settings that differ from its defaults.

    A search's settings are many and of many digits: they are told only if ``full``, and not those
    to ``mark_unavailable``.
    """
    name = record.cell.method.name
    if origin_of_settings(record) in ("tuned", "oracle") and not full:
        return name
    told = {k: v for k, v in record.method.changed.items() if k not in mark_unavailable}
    changed = show_all(told)
    return f"{name} ({changed})" if changed else name


def show_all(settings: Mapping[str, object]) -> str:
    """Settings for people: ``epochs=2, learning_rate=0.01``."""
    return ", ".join(f"{k}={show(v)}" for k, v in sorted(settings.items()))


def show(value: object) -> str:
    """A setting for people: text bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shorten(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean(text: str) -> str:
    """Text in one line without control characters, which could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _over_runs(values: Mapping[Run, float | None], within: Range) -> Estimate | None:
    known = {run: v for run, v in values.items() if v is not None}
    return estimate(known, within) if known else None


def _cost(found: Mapping[Run, Amount | None]) -> Cost:
    amounts = [a for a in found.values() if a is not None]
    known = [a for a in amounts if a.value is not None]
    return Cost(
        estimate=_over_runs(
            {run: None if a is None else a.value for run, a in found.items()}, POSITIVE
        ),
        kinds=tuple(sorted({a.kind for a in known})),
        hows=tuple(sorted({a.how for a in known})),
        gaps=tuple(sorted({a.how for a in amounts if a.value is None})),
    )
