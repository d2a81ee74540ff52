"""From records to comparisons: which runs may share a table, in which order, by what names."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.io.digest import digest
from bench.records.cell import Cell, variant_title
from bench.records.record import Metric, Record

from .aggregate import (
    SOURCE_ONLY,
    Row,
    age,
    clean,
    label,
    make_row,
    origin_of_settings,
    results_of,
    run_of,
    shorten,
    show,
    usable,
)
from .others import Others
from .resampling import front_shares
from .showable import showable
from .statistics import units


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in the method alone, and so may stand in one table.

    ``rows``: source-only, the other methods, then the supervised references, each from the best
    score down. ``notes``: of runs that were left out or do not quite match. ``variant``: the
    settings that tell this comparison from others of the same title, else "".
    """

    key: str
    cell: Cell
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    variant: str = ""

    @property
    def title(self) -> str:
        """Suite, stream, model and device, for people, and a warning where one is due."""
        warning = " — contains ORACLE settings" if self.has_oracle else ""
        return f"{self.place}{warning}"

    @property
    def place(self) -> str:
        """The title without a warning."""
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.suite} · {_title(self.cell)}{variant}"

    @cached_property
    def suite(self) -> str:
        """The suite that most of the runs were last made for."""
        counts = Counter(record.suite for record in self.records)
        return min(counts, key=lambda name: (-counts[name], name))

    @property
    def has_oracle(self) -> bool:
        """Whether a row's settings were selected with the labels of the test stream."""
        return any(row.is_oracle for row in self.rows)

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

    @cached_property
    def inapplicable(self) -> tuple[str, ...]:
        """Where every run is unsupported, why: a line for each reason; else empty.

        A table of such runs would have nothing but dashes.
        """
        if any(record.status != "unsupported" for record in self.records):
            return ()
        reasons: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            for record in row.runs:
                reasons[clean(record.reason)].append(row)
        lines = []
        for reason, rows in reasons.items():
            labels = list(dict.fromkeys(clean(row.label) for row in rows))
            who = (
                f"does not apply: {', '.join(labels)}" if len(reasons) > 1 else "no method applies"
            )
            runs = f"{len(rows)} run{'s' * (len(rows) > 1)}"
            lines.append(f"{clean(self.title)}: {who} ({runs}): {reason}")
        return tuple(lines)

    @cached_property
    def front_shares(self) -> dict[str, float]:
        """By label the share of bootstrap draws in which a competing row is on the Pareto front of
        score against energy; empty with fewer than 3 repeats. Over the runs that all of them have,
        so that the repeats are the same.
        """
        rows = {row.label: row for row in self.drawn if row.competes and row.amounts("energy")}
        if len(rows) < 2:
            return {}
        known = {name: (row.amounts("energy"), row.scores) for name, row in rows.items()}
        common = set.intersection(*(e.keys() & s.keys() for e, s in known.values()))
        points: dict[str, dict[int, tuple[float, float]]] = {}
        for name, both in known.items():
            energies, scores = (units({run: of[run] for run in common}) for of in both)
            points[name] = {unit: (energies[unit], scores[unit]) for unit in energies}
        return front_shares(points)

    @property
    def metric(self) -> Metric:
        """What the scores of all runs are: they share the stream, and so its task."""
        for row in self.drawn:
            return next(iter(row.results.values())).metric
        return Metric()

    @property
    def further_metrics(self) -> list[Metric]:
        """What some run records of the task besides its metric."""
        runs = (r for row in self.drawn for r in row.results.values())
        return list({m.name: m for r in runs for m in r.further_metrics}.values())

    @property
    def domains(self) -> list[str]:
        """Names of the target domains in the order of the stream."""
        streams = (r.domains for row in self.drawn for r in row.results.values())
        return list(dict.fromkeys(d.name for stream in streams for d in stream))


def compare(records: Iterable[Record], checked: bool = False) -> list[Comparison]:
    """Sort records into comparisons, by title.

    Records share a comparison if stream, data, model, protocol and device, settings included, are
    equal, and where runs are computed; a modelled and a measured device never meet. Where their
    code differs, a row shows one version: that of the record that was started last. The rest is
    counted in a note, and rows and tables of older code than others of the report are marked.
    Records whose contents cannot be shown are left out: see `showable`; ``checked``: it gave these.
    """
    kept = list(records) if checked else showable(records)[0]
    newest = {record.identity: record for record in sorted(kept, key=age)}
    others = Others(newest.values())
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in newest.values():
        groups[digest(_settings(record.cell))].append(record)
    cells = {key: group[0].cell for key, group in groups.items()}
    variants = _variants(cells)
    order = sorted(groups, key=lambda key: (_title(cells[key]), variants[key], key))
    return [_comparison(key, groups[key], variants[key], others) for key in order]


def flat_settings(cell: Cell) -> dict[str, str]:
    """What a comparison holds fixed besides names and code: dotted key to value for people."""
    parts = {
        "stream": cell.stream.config,
        "model": {**cell.model.config, **_training(cell)},
        "variant": cell.variant.config if cell.variant is not None else {},
        "protocol": cell.protocol,
    }
    flat = {f"{part}.{k}": show(v) for part, config in parts.items() for k, v in config.items()}
    return flat | {"data": cell.data[:12], **_computing(cell)}


def _computing(cell: Cell) -> dict[str, str]:
    """Where and how runs are computed, as far as it is not one thread of the CPU in float32."""
    told = {
        "accelerator": (cell.accelerator, "cpu"),
        "threads": (str(cell.threads), "1"),
        "precision": (cell.precision, "float32"),
    }
    return {name: value for name, (value, usual) in told.items() if value != usual}


def _training(cell: Cell) -> dict[str, Any]:
    """What the suite changes of the source training, as settings of the model."""
    return {f"training.{key}": value for key, value in cell.model.training.items()}


def settings_of_cell(cell: Cell) -> dict[str, Any]:
    """What a scenario holds fixed: stream, data, model and protocol."""
    settings = {
        "stream": [cell.stream.name, cell.stream.config],
        "data": cell.data,
        "model": [cell.model.name, {**cell.model.config, **_training(cell)}],
        "protocol": cell.protocol,
    }
    if cell.variant is not None:  # left out otherwise: file names and labels hold the digest
        settings["variant"] = [cell.variant.name, cell.variant.config]
    return settings


def _settings(cell: Cell) -> dict[str, Any]:
    """What a comparison holds fixed besides code."""
    return settings_of_cell(cell) | {"device": cell.device_title} | _computing(cell)


def _title(cell: Cell) -> str:
    return f"{cell.stream.name} · {cell.model_title} · {cell.device_title}{cell.computed_title}"


def _slug(cell: Cell) -> str:
    # A device may be given as the path of its profile; the folder says nothing to a reader.
    # The variant by itself, so that a long name of the model does not cut it off.
    variant = [] if cell.variant is None else [variant_title(cell.variant)]
    names = [cell.stream.name, cell.model.name, *variant, cell.device_title]
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


def _comparison(key: str, records: Sequence[Record], variant: str, others: Others) -> Comparison:
    kept, notes = _newest_setting(records)
    if changed := others.newer(kept[-1]):
        notes.append(
            f"OLDER CODE: {', '.join(changed)} changed since these runs, and other tables have "
            "newer ones; run the suite again before comparing with them"
        )
    cell = kept[-1].cell
    groups: dict[tuple[bool, str, str, str], list[Record]] = defaultdict(list)
    for record in kept:
        # The settings as JSON keep apart what reads alike, such as 1 and "1".
        exact = json.dumps(record.method.changed, sort_keys=True)
        origin = record.cell.settings_origin
        groups[(record.cell.target_labels, label(record), origin, exact)].append(record)
    named = _names([group for _, group in sorted(groups.items())])
    runs = []
    for name, group in named:
        code = group[-1].cell.method.code
        current = [r for r in group if r.cell.method.code == code]
        current.sort(key=run_of)
        if len(current) < len(group):
            notes.append(f"{_count(len(group) - len(current))} of older code of {name} left out")
        runs.append((name, group[-1].cell.target_labels, current))
    reference = next((results_of(r) for n, s, r in runs if n == SOURCE_ONLY and not s), {})
    made = (
        make_row(*run, reference, others.has_newer(run[2][-1]), others.closed_window(run[2]))
        for run in runs
    )
    rows = sorted(made, key=_rank)
    return Comparison(key, cell, tuple(rows), tuple(notes + _mismatches(rows)), variant)


def _rank(row: Row) -> tuple[bool, bool, float]:
    """Best score first; rows without results last. Ties stay in the order of names."""
    score = row.accuracy["score"]
    return row.supervised, not row.is_source_only, math.inf if score is None else -score.mean


def _names(groups: Sequence[list[Record]]) -> list[tuple[str, list[Record]]]:
    """Each row's runs with a name that no other row has, if settings or their origin allow it."""
    last = [group[-1] for group in groups]
    short = [(r.cell.target_labels, label(r), r.cell.settings_origin) for r in last]
    alike: dict[Any, list[Record]] = defaultdict(list)
    for record, said in zip(last, short, strict=True):
        alike[said].append(record)
    names = [
        label(r, full=len(alike[s]) > 1, mark_unavailable=_shared(alike[s]))
        for r, s in zip(last, short, strict=True)
    ]
    origins: dict[tuple[bool, str], set[str]] = defaultdict(set)
    for record, name in zip(last, names, strict=True):
        origins[(record.cell.target_labels, name)].add(origin_of_settings(record))
    for i, (record, name) in enumerate(zip(last, names, strict=True)):
        if len(origins[(record.cell.target_labels, name)]) > 1:
            names[i] = f"{name} [{origin_of_settings(record)}]"
    return list(zip(names, groups, strict=True))


def _shared(records: Sequence[Record]) -> set[str]:
    """The settings whose value is the same in all of several records: they tell none apart."""
    first, *others = (record.method.changed for record in records)
    return {k for k, v in first.items() if others and all(k in o and o[k] == v for o in others)}


def _newest_setting(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records, oldest first, whose stream, model, profile and core are the last one's."""
    ordered = sorted(records, key=age)
    newest = _versions(ordered[-1].cell)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in ordered:
        versions = _versions(record.cell)
        differing = [name for name, version in versions.items() if version != newest[name]]
        groups[", ".join(differing)].append(record)
    kept = groups.pop("")
    notes = [
        f"{_count(len(group))} of older {what} left out "
        f"({', '.join(sorted({label(r) for r in group}))})"
        for what, group in sorted(groups.items())
    ]
    return kept, notes


def _versions(cell: Cell) -> dict[str, object]:
    variants = [] if cell.variant is None else [cell.variant]
    return {f"code of variant {v.name}": v.code for v in variants} | {
        f"code of stream {cell.stream.name}": cell.stream.code,
        f"code of model {cell.model.name}": cell.model.code,
        f"profile of device {cell.device}": cell.device_digest,
        "core of the benchmark": cell.core,
    }


def _mismatches(rows: Sequence[Row]) -> list[str]:
    """Differences between runs that no code digest shows."""
    notes = []
    ok = [r for row in rows for r in row.runs if usable(r)]
    models: dict[int, set[str]] = defaultdict(set)
    for r in ok:
        models[r.cell.source_draw] |= {r.source_model} - {""}
    most = max(map(len, models.values()), default=0)
    if most > 1:
        of_draw = "" if len(models) == 1 else " of one source draw"
        notes.append(
            f"Runs{of_draw} start from {most} different source models: differences between "
            "methods contain that"
        )
    machines = sorted({str(r.environment.get("processor") or "unknown") for r in ok})
    if len(machines) > 1 and any("measured" in row.costs["time"].kinds for row in rows):
        notes.append(
            f"Costs were measured on {len(machines)} different machines "
            f"({'; '.join(machines)}): do not compare them between rows"
        )
    reference = next((row.results for row in rows if row.is_source_only and row.results), {})
    if not reference:
        notes.append(f"No {SOURCE_ONLY} run is ok here, so no difference to it is known")
    for row in rows:
        n, energy = len(row.results), row.costs["energy"]
        shared = len(row.results.keys() & reference.keys())
        if row.difference is not None and shared < n:
            notes.append(
                f"The difference of {row.label} to {SOURCE_ONLY} is over common runs alone: "
                f"{shared} of its {n}"
            )
        if energy.estimate is not None and energy.gaps:
            notes.append(
                f"Energy of {row.label} is known in {len(row.amounts('energy'))} of {n} runs"
            )
    return notes


def _count(n: int) -> str:
    return "1 record" if n == 1 else f"{n} records"
