"""From records to comparisons: which runs may share a table, and what each row knows."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from bench.cell import Cell
from bench.digest import digest
from bench.record import Amount, Costs, Record, Results
from bench.reports.statistics import Estimate, mean_ci, paired_difference

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
class Row:
    """A method with its settings, over seeds.

    Accuracies are fractions, `time` is in seconds over the whole stream, `energy` in joules,
    `memory` in bytes above the runtime, `inference` in seconds for a sample. All are None (or
    a `Cost` without estimate) if no run is ok. ``difference`` is to source-only in ``after``,
    paired by seed, and None for source-only itself.
    """

    label: str
    supervised: bool
    runs: tuple[Record, ...]
    before: Estimate | None
    after: Estimate | None
    gain: Estimate | None
    final: Estimate | None
    forgetting: Estimate | None
    difference: Estimate | None
    time: Cost
    energy: Cost
    memory: Cost
    inference: Cost

    @property
    def is_source_only(self) -> bool:
        """Whether this is the lower reference."""
        return self.label == SOURCE_ONLY and not self.supervised

    @property
    def results(self) -> dict[int, Results]:
        """The results of the runs that are ok, by seed."""
        return _results(self.runs)

    @property
    def missing(self) -> tuple[Record, ...]:
        """The runs without results."""
        return tuple(r for r in self.runs if not _usable(r))

    @property
    def seeds(self) -> str:
        """How many runs are ok, and what became of the others: ``4 of 5; 1 timeout``."""
        text = f"{len(self.runs) - len(self.missing)} of {len(self.runs)}"
        counts = Counter(fate(r) for r in self.missing)
        others = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        return f"{text}; {others}" if others else text


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in the method alone, and so may stand in one table.

    ``rows``: source-only, the other methods, then the supervised references. ``notes``: what
    a reader must know of runs that were left out or do not quite match. ``variant`` names the
    settings that tell this comparison from others with the same title, else "".
    """

    key: str
    cell: Cell
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    variant: str = ""

    @property
    def title(self) -> str:
        """Scenario, model and device, for people."""
        title = _title(self.cell)
        return f"{title} ({self.variant})" if self.variant else title

    @property
    def slug(self) -> str:
        """A safe file name: lower case letters, digits and hyphens only."""
        slug = _slug(self.cell)
        return f"{slug}-{self.key[:6]}" if self.variant else slug

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All runs in the order of the rows."""
        return tuple(r for row in self.rows for r in row.runs)

    @cached_property
    def drawn(self) -> tuple[Row, ...]:
        """The rows that have results."""
        return tuple(row for row in self.rows if row.results)

    @property
    def domains(self) -> list[str]:
        """Names of the target domains in the order of the stream."""
        streams = (r.domains for row in self.drawn for r in row.results.values())
        return list(dict.fromkeys(d.name for stream in streams for d in stream))


def compare(records: Iterable[Record]) -> list[Comparison]:
    """Sort records into comparisons, by title.

    Records share a comparison if scenario, data, model, protocol and device, settings included,
    are equal; a modelled and a measured device never meet. Where their code differs, a table
    shows one version: that of the record that was started last. The rest is counted in a note.
    """
    newest: dict[str, Record] = {}
    for record in sorted(records, key=_age):
        newest[record.identity] = record
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in newest.values():
        groups[digest(_settings(record.cell))].append(record)
    cells = {key: group[0].cell for key, group in groups.items()}
    variants = _variants(cells)
    order = sorted(groups, key=lambda key: (_title(cells[key]), variants[key], key))
    return [_comparison(key, groups[key], variants[key]) for key in order]


def fate(record: Record) -> str:
    """The status of a run without results."""
    return record.status if record.status != "ok" else "empty"


def label(record: Record) -> str:
    """A method's name with the settings that differ from its defaults."""
    changed = record.method.changed
    settings = ", ".join(f"{k}={show(v)}" for k, v in sorted(changed.items()))
    return f"{record.cell.method.name} ({settings})" if settings else record.cell.method.name


def show(value: Any) -> str:
    """A setting for people: text bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shorten(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def flat_settings(cell: Cell) -> dict[str, str]:
    """What a comparison holds fixed besides names and code: dotted key to value for people."""
    parts = {
        "scenario": cell.scenario.config,
        "model": cell.model.config,
        "protocol": cell.protocol,
    }
    flat = {f"{part}.{k}": show(v) for part, config in parts.items() for k, v in config.items()}
    return flat | {"data": cell.data[:12]}


# ---------------------------------------------------------------------------


def _settings(cell: Cell) -> dict[str, Any]:
    return {
        "scenario": [cell.scenario.name, cell.scenario.config],
        "data": cell.data,
        "model": [cell.model.name, cell.model.config],
        "protocol": cell.protocol,
        "device": cell.device,
    }


def _age(record: Record) -> tuple[str, str]:
    return record.started, record.identity


def _title(cell: Cell) -> str:
    return f"{cell.scenario.name} · {cell.model.name} · {cell.device}"


def _slug(cell: Cell) -> str:
    # A device may be given as the path of its profile; the folder says nothing to a reader.
    names = (cell.scenario.name, cell.model.name, PurePath(cell.device).stem)
    return "-".join(re.sub(r"[^a-z0-9]+", "-", n.lower()).strip("-")[:40] or "x" for n in names)


def _variants(cells: Mapping[str, Cell]) -> dict[str, str]:
    """For comparisons that would get one file name: the settings in which they differ."""
    variants = dict.fromkeys(cells, "")
    same: dict[str, list[str]] = defaultdict(list)
    for key, cell in cells.items():
        same[_slug(cell)].append(key)
    for keys in same.values():
        if len(keys) < 2:
            continue
        flats = {key: flat_settings(cells[key]) for key in keys}
        names = sorted({name for flat in flats.values() for name in flat})
        differing = [n for n in names if len({flat.get(n) for flat in flats.values()}) > 1]
        for key, flat in flats.items():
            told = (f"{n}={shorten(flat[n], 40)}" for n in differing if n in flat)
            variants[key] = ", ".join(told) or key[:6]
    return variants


def _usable(record: Record) -> bool:
    return record.status == "ok" and record.results is not None and bool(record.results.domains)


def _results(runs: Iterable[Record]) -> dict[int, Results]:
    return {r.cell.seed: r.results for r in runs if _usable(r) and r.results is not None}


def _comparison(key: str, records: Sequence[Record], variant: str) -> Comparison:
    kept, notes = _newest_setting(records)
    cell = kept[-1].cell
    groups: dict[tuple[bool, bool, str, str], list[Record]] = defaultdict(list)
    for record in kept:
        name, supervised = label(record), record.cell.target_labels
        # The settings as JSON keep apart what reads alike, such as 1 and "1".
        exact = json.dumps(record.method.changed, sort_keys=True)
        groups[(supervised, name != SOURCE_ONLY, name, exact)].append(record)
    runs = []
    for (supervised, _, name, _), group in sorted(groups.items()):
        code = group[-1].cell.method.code
        current = sorted((r for r in group if r.cell.method.code == code), key=_seed)
        if len(current) < len(group):
            notes.append(f"{_count(len(group) - len(current))} of older code of {name} left out")
        runs.append((name, supervised, current))
    reference = next((_afters(_results(r)) for n, s, r in runs if n == SOURCE_ONLY and not s), {})
    rows = tuple(_row(name, supervised, group, reference) for name, supervised, group in runs)
    return Comparison(key, cell, rows, tuple(notes + _mismatches(rows)), variant)


def _newest_setting(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records, oldest first, whose scenario, model, profile and core are the last one's."""
    ordered = sorted(records, key=_age)
    newest = _versions(ordered[-1].cell)
    left: dict[str, list[Record]] = defaultdict(list)
    kept = []
    for record in ordered:
        versions = _versions(record.cell)
        differing = [name for name, version in versions.items() if version != newest[name]]
        if differing:
            left[", ".join(differing)].append(record)
        else:
            kept.append(record)
    notes = [
        f"{_count(len(group))} of older {what} left out "
        f"({', '.join(sorted({label(r) for r in group}))})"
        for what, group in sorted(left.items())
    ]
    return kept, notes


def _versions(cell: Cell) -> dict[str, object]:
    return {
        f"code of scenario {cell.scenario.name}": cell.scenario.code,
        f"code of model {cell.model.name}": cell.model.code,
        f"profile of device {cell.device}": cell.device_digest,
        "core of the benchmark": cell.core,
    }


def _mismatches(rows: Sequence[Row]) -> list[str]:
    """Differences between runs that no code digest shows."""
    notes = []
    ok = [r for row in rows for r in row.runs if _usable(r)]
    sources = {r.source_model for r in ok if r.source_model}
    if len(sources) > 1:
        notes.append(
            f"Runs start from {len(sources)} different source models: differences between "
            "methods contain that"
        )
    machines = sorted({str(r.environment.get("processor") or "unknown") for r in ok})
    if len(machines) > 1 and any("measured" in row.time.kinds for row in rows):
        notes.append(
            f"Costs were measured on {len(machines)} different machines "
            f"({'; '.join(machines)}): do not compare them between rows"
        )
    if not any(row.is_source_only and row.results for row in rows):
        notes.append(f"No {SOURCE_ONLY} run is ok here, so no difference to it is known")
    for row in rows:
        if row.difference is not None and row.difference.n < len(row.results):
            notes.append(
                f"The difference of {row.label} to {SOURCE_ONLY} is over common seeds alone: "
                f"{row.difference.n} of its {len(row.results)}"
            )
        if row.energy.estimate is not None and row.energy.gaps:
            known, n = row.energy.estimate.n, len(row.results)
            notes.append(f"Energy of {row.label} is known in {known} of {n} runs")
    return notes


def _count(n: int) -> str:
    return "1 record" if n == 1 else f"{n} records"


def _seed(record: Record) -> int:
    return record.cell.seed


def _afters(results: Mapping[int, Results]) -> dict[int, float]:
    return {seed: r.mean("after") for seed, r in results.items()}


def _row(
    name: str, supervised: bool, runs: Sequence[Record], reference: Mapping[int, float]
) -> Row:
    results = _results(runs)

    def over_seeds(value: Callable[[Results], float]) -> Estimate | None:
        return mean_ci(value(r) for r in results.values()) if results else None

    def cost(amount: Callable[[Costs], Amount]) -> Cost:
        return _cost([amount(r.costs) for r in results.values()])

    itself = name == SOURCE_ONLY and not supervised
    return Row(
        label=name,
        supervised=supervised,
        runs=tuple(runs),
        before=over_seeds(lambda r: r.mean("before")),
        after=over_seeds(lambda r: r.mean("after")),
        gain=over_seeds(lambda r: r.mean("after") - r.mean("before")),
        final=over_seeds(lambda r: r.mean("final")),
        forgetting=over_seeds(lambda r: r.forgetting),
        difference=None if itself else paired_difference(_afters(results), reference),
        time=cost(lambda c: c.adaptation_time),
        energy=cost(lambda c: c.adaptation_energy),
        memory=cost(lambda c: c.peak_memory),
        inference=cost(lambda c: c.inference_time),
    )


def _cost(amounts: Sequence[Amount]) -> Cost:
    known = [a.value for a in amounts if a.value is not None]
    return Cost(
        estimate=mean_ci(known) if known else None,
        kinds=tuple(sorted({a.kind for a in amounts if a.value is not None})),
        hows=tuple(sorted({a.how for a in amounts if a.value is not None})),
        gaps=tuple(sorted({a.how for a in amounts if a.value is None})),
    )
