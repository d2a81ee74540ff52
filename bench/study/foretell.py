"""Which windows will close before a method is done, by earlier runs of other seeds or devices."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from bench.records.cell import Cell
from bench.records.record import Record


def closing_windows(missing: Iterable[Cell], history: Iterable[Record]) -> list[str]:
    """One line for each method, model and device whose windows closed in earlier runs.

    The steps that a method wants for a domain are known where its window did not close, as on a
    faster device.
    """
    closed: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    wanted: dict[tuple[str, str], int] = {}
    for record in history:
        if record.status != "ok" or record.results is None:
            continue
        kind = training_kind(record.cell)
        for domain in record.results.domains:
            if domain.window_closed:
                closed[kind, record.cell.device].append((domain.name, domain.steps))
            else:
                wanted[kind, domain.name] = domain.steps
    lines = {}
    for cell in missing:
        kind = training_kind(cell)
        found = closed.get((kind, cell.device))
        if found:
            done = statistics.median(steps for _, steps in found)
            known = [wanted[kind, name] for name, _ in found if (kind, name) in wanted]
            of = f" of {statistics.median(known):g}" if known else ""
            name = f"{cell.method.name} · {cell.model_title} · {cell.device_title}"
            lines[name] = f"{name}: after {done:g}{of} steps in a domain"
    return list(lines.values())


def training_kind(cell: Cell) -> str:
    """Equal for cells that differ in seed and device alone."""
    where = cell.accelerator, cell.threads, cell.precision
    return repr((cell.method, cell.model, cell.variant, cell.stream, cell.protocol, where))
