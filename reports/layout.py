"""What the table of a comparison says, before any format: heads, cells and footnotes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bench.record import Record
from bench.reports.comparison import Comparison, Cost, Row, fate, flat_settings, shorten
from bench.reports.statistics import Estimate, mean_ci

DAGGER = "†"
DASH = "–"
REASON_LIMIT = 240
"""Characters of a reason in a footnote; the page shows all of it."""

ACCURACIES = ("before", "after", "gain", "final", "forgetting", "difference")
SIGNED = ("gain", "difference")
COSTS = {
    # field of a row: (head, unit in tables, units in one unit of the records)
    "time": ("adaptation time", "s", 1.0),
    "energy": ("adaptation energy", "J", 1.0),
    "memory": ("peak memory", "MB", 1e-6),
    "inference": ("inference", "ms/sample", 1e3),
}


@dataclass(frozen=True)
class Block:
    """One of a comparison's tables: ``methods`` and, set apart, the supervised references.

    The first column holds names; every row has as many cells as there are heads.
    """

    title: str
    heads: tuple[str, ...]
    methods: tuple[tuple[str, ...], ...]
    references: tuple[tuple[str, ...], ...]


def blocks(comparison: Comparison) -> list[Block]:
    """The accuracy table and the cost table of a comparison."""
    accuracy_heads = ("method", *ACCURACIES[:-1], "vs source-only", "ok runs")
    costs = [(name, *COSTS[name]) for name in COSTS]
    cost_heads = ["method"]
    for name, head, unit, _ in costs:
        kinds = sorted({k for row in comparison.rows for k in getattr(row, name).kinds})
        cost_heads.append(f"{head} ({', '.join([unit, ' and '.join(kinds)]) if kinds else unit})")

    def accuracy(row: Row) -> tuple[str, ...]:
        cells = (percent(getattr(row, name), signed=name in SIGNED) for name in ACCURACIES)
        return (name_of(row), *cells, row.seeds)

    def bill(row: Row) -> tuple[str, ...]:
        return (name_of(row), *(cost(getattr(row, name), factor) for name, _, _, factor in costs))

    methods = [row for row in comparison.rows if not row.supervised]
    references = [row for row in comparison.rows if row.supervised]
    return [
        Block(title, tuple(heads), tuple(map(cells, methods)), tuple(map(cells, references)))
        for title, heads, cells in (
            ("Accuracy (%)", accuracy_heads, accuracy),
            ("Costs", cost_heads, bill),
        )
    ]


def footnotes(comparison: Comparison, note: str = "") -> list[str]:
    """What a reader needs beside the cells, one line each; ``note`` comes first."""
    rows = comparison.rows
    notes = [clean(note)] if note else []
    protocol = ", ".join(f"{k}={v}" for k, v in comparison.cell.protocol.items() if k != "name")
    notes.append(f"Protocol {comparison.cell.protocol.get('name', DASH)}: {protocol}.")
    if comparison.drawn:
        notes.append(
            f"Accuracy is the mean over {len(comparison.domains)} target domains: before = on "
            "arrival, after = once adapted, gain = after - before, final = at the end of the "
            "stream; forgetting = after - final without the last domain (positive: forgotten); "
            "vs source-only = difference in after, paired by seed."
        )
        notes.append(_source_note(rows))
        notes.append(_interval_note(rows))
    if any(row.supervised for row in rows):
        notes.append(
            f"{DAGGER} supervised reference: adapts with the labels of the target domains, which "
            "the other methods do not see; a yardstick, not a competitor."
        )
    notes += _cost_notes(rows)
    notes += _window_notes(comparison)
    notes += [f"{text}." for text in comparison.notes]
    notes += [line for row in rows for line in missing_runs(row)]
    return [clean(text) for text in notes]


def missing_runs(row: Row) -> list[str]:
    """The runs of a row that have no results, those with one reason in one line."""
    reasons: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in row.missing:
        reasons[(fate(record), clean(record.reason))].append(record.cell.seed)
    return [
        f"No result: {name_of(row)}, {_seeds(seeds)}: {status}: "
        f"{shorten(reason or 'no reason recorded', REASON_LIMIT)}"
        for (status, reason), seeds in reasons.items()
    ]


def settings(comparison: Comparison) -> dict[str, str]:
    """What all runs of the comparison share: names, settings and digests."""
    cell = comparison.cell
    return {
        "scenario": cell.scenario.name,
        "model": cell.model.name,
        "device": cell.device,
        "protocol": str(cell.protocol.get("name", DASH)),
        **flat_settings(cell),
        "code of the scenario": cell.scenario.code[:12],
        "code of the model": cell.model.code[:12],
        "device profile": cell.device_digest[:12],
    }


def versions(records: Iterable[Record]) -> dict[str, str]:
    """Versions and machines that the records were made with; several are all named."""
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for key, value in record.environment.items():
            if key == "argv":
                continue  # a command line may hold paths of the person who ran it
            for name, text in value.items() if isinstance(value, dict) else [(key, value)]:
                if text not in ("", None):
                    seen[str(name)][str(text)] = None
    return {name: "; ".join(sorted(values)) for name, values in seen.items()}


def name_of(row: Row) -> str:
    """The label of a row, with a dagger on supervised references."""
    return clean(f"{row.label} {DAGGER}" if row.supervised else row.label)


def percent(estimate: Estimate | None, signed: bool = False) -> str:
    """A fraction as percent with one decimal: ``58.0 ± 1.2``; a dash if there is none."""
    return DASH if estimate is None else _with_interval(estimate.scaled(100.0), 1, signed)


def cost(value: Cost, factor: float) -> str:
    """A cost with three significant digits; ``unavailable``, or a dash if no run is ok."""
    if value.estimate is None:
        return "unavailable" if value.gaps else DASH
    scaled = value.estimate.scaled(factor)
    return _with_interval(scaled, decimals(scaled.mean), False)


def decimals(value: float, digits: int = 3) -> int:
    """Decimals that show ``digits`` significant digits of a value, none of them invented."""
    if value == 0.0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def clean(text: str) -> str:
    """Text in one line without control characters, which could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# ---------------------------------------------------------------------------


def _with_interval(estimate: Estimate, places: int, signed: bool) -> str:
    # Rounding first and adding zero turns a negative zero into a plain one.
    mean = round(estimate.mean, places) + 0.0
    text = f"{mean:{'+' if signed else ''}.{places}f}"
    return text if estimate.half_width is None else f"{text} ± {estimate.half_width:.{places}f}"


def _source_note(rows: Iterable[Row]) -> str:
    """Accuracy of the model before any adaptation: the same for every method of a seed."""
    by_seed = {seed: r.source_before for row in rows for seed, r in row.results.items()}
    held_out = percent(mean_ci(by_seed.values()))
    return f"Before the stream, accuracy on held-out source data: {held_out}."


def _interval_note(rows: Iterable[Row]) -> str:
    counts = sorted({len(row.results) for row in rows if row.results})
    seeds = sorted({seed for row in rows for seed in row.results})
    if counts == [1]:
        return f"One ok run per method ({_seeds(seeds)}): no intervals, no claim about differences."
    alone = ", none where one run is ok" if counts[0] == 1 else ""
    return (
        "± half width of the 95 % Student-t interval over the ok runs, one per seed "
        f"({_seeds(seeds)}){alone}."
    )


def _cost_notes(rows: Iterable[Row]) -> list[str]:
    known: dict[tuple[str, str], list[str]] = defaultdict(list)
    gaps: dict[tuple[str, str], list[str]] = defaultdict(list)
    runtime: set[float] = set()
    for name, (head, _, _) in COSTS.items():
        hows, kinds = set(), set()
        for row in rows:
            value: Cost = getattr(row, name)
            hows |= set(value.hows)
            kinds |= set(value.kinds)
            for how in value.gaps:
                gaps[(head, how or "no reason recorded")].append(name_of(row))
        if hows:
            known[(" and ".join(sorted(kinds)), "; ".join(sorted(hows)))].append(head)
    for row in rows:
        amounts = (r.costs.runtime_memory.value for r in row.results.values())
        runtime |= {a for a in amounts if a is not None}
    notes = []
    for (kind, how), heads in known.items():
        told = ", ".join(heads)
        notes.append(f"{told[0].upper()}{told[1:]}: {kind}: {how}.")
    for (head, how), labels in gaps.items():
        notes.append(f"{head[0].upper()}{head[1:]} unavailable ({', '.join(labels)}): {how}.")
    if known:
        notes.append("Adaptation time and energy are sums over the stream; 1 MB is 1e6 bytes.")
    if runtime:
        sizes = ", ".join(f"{a / 1e6:.{decimals(a / 1e6)}f}" for a in sorted(runtime))
        notes.append(f"Peak memory does not include the runtime itself: {sizes} MB more.")
    return notes


def _window_notes(comparison: Comparison) -> list[str]:
    closed = []
    for row in comparison.drawn:
        stages = [d for r in row.results.values() for d in r.domains]
        n = sum(d.window_closed for d in stages)
        if n:
            closed.append(f"{name_of(row)} on {n} of {len(stages)}")
    if not closed:
        return []
    return [f"The window closed before the method was done: {'; '.join(closed)} domains."]


def _seeds(seeds: Iterable[int]) -> str:
    listed = sorted(seeds)
    return f"seed{'s' if len(listed) > 1 else ''} {_listed(listed)}"


def _listed(seeds: list[int]) -> str:
    """Seeds in ascending order, with runs of three or more as ``0-4``."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][-1] + 1:
            spans[-1].append(seed)
        else:
            spans.append([seed])
    parts = (f"{s[0]}-{s[-1]}" if len(s) > 2 else ", ".join(map(str, s)) for s in spans)
    return ", ".join(parts)
