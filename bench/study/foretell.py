"""Which windows will close before a method is done, by earlier runs of other seeds or devices."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.records.cell import Cell
from bench.records.summary import RecordSummary


def closing_windows(missing: Sequence[Cell], history: Iterable[RecordSummary]) -> list[str]:
    """One line for each method, model and device whose windows closed in earlier runs.

    The steps that a method wants for a domain are known where its window did not close, as on a
    faster device.
    """
    closed: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    wanted: dict[tuple[str, str], int] = {}
    kinds_of = TrainingKinds()
    asked = [kinds_of.of(cell) for cell in missing]
    kinds = set(asked)
    for kind, record in by_kind(history):
        if record.status != "ok" or kind not in kinds:
            continue
        device = record.template.cell.device
        for name, steps, window_closed in record.windows:
            if window_closed:
                closed[kind, device].append((name, steps))
            else:
                wanted[kind, name] = steps
    lines = {}
    for cell, kind in zip(missing, asked, strict=True):
        found = closed.get((kind, cell.device))
        if found:
            done = statistics.median(steps for _, steps in found)
            known = [wanted[kind, name] for name, _ in found if (kind, name) in wanted]
            of = f" of {statistics.median(known):g}" if known else ""
            name = f"{cell.method.name} · {cell.model_title} · {cell.device_title}"
            lines[name] = f"{name}: after {done:g}{of} steps in a domain"
    return list(lines.values())


_KINDS: dict[str, str] = {}
"""`training_kind` by the keys of templates, which are digests of their content."""


def by_kind(history: Iterable[RecordSummary]) -> Iterator[tuple[str, RecordSummary]]:
    """Records with the `training_kind` of their cells, which is made once for each template."""
    for record in history:
        template = record.template
        if template.key not in _KINDS:
            _KINDS[template.key] = training_kind(template.cell)
        yield _KINDS[template.key], record


def training_kind(cell: Cell) -> str:
    """Equal for cells that differ in seed and device alone."""
    where = cell.accelerator, cell.threads, cell.precision
    return repr((cell.method, cell.model, cell.variant, cell.stream, cell.protocol, where))


class TrainingKinds:
    """`training_kind` of many cells, made once for those that are made of the same objects."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Cell, str]] = {}

    def of(self, cell: Cell) -> str:
        """The kind of a cell."""
        where = cell.accelerator, cell.threads, cell.precision
        parts = cell.method, cell.model, cell.variant, cell.stream, cell.protocol
        key = (*map(id, parts), where)
        if key not in self._known:
            self._known[key] = cell, training_kind(cell)  # with the cell, whose parts it names
        return self._known[key][1]
