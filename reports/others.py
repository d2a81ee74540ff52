"""What a table's rows owe to records of other tables: newer code, and steps with more time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.records.record import Record, Results

from .aggregate import ClosedWindow, age, usable


class Others:
    """The records of all tables of a report, as far as the rows of one need them."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._newest: dict[tuple[str, str], object] = {}
        self._steps: dict[tuple[str, int], int] = {}
        for record in sorted(records, key=age):
            self._newest |= _versions(record)
            if usable(record) and record.results is not None:
                key = record.cell.training_key
                for i, domain in enumerate(record.results.domains):
                    if not domain.window_closed:
                        self._steps[(key, i)] = domain.steps

    def has_newer(self, record: Record) -> bool:
        """Whether the method's run that was started last, in any table, has other code."""
        key = ("method", record.cell.method.name)
        return self._newest.get(key) != _versions(record)[key]

    def newer(self, record: Record) -> list[str]:
        """What else of a record has changed since: streams, models, variants and the core."""
        versions = _versions(record)
        return [
            f"{kind} {name}".strip()
            for (kind, name), version in versions.items()
            if kind != "method" and self._newest.get((kind, name)) != version
        ]

    def closed_window(self, runs: Sequence[Record]) -> ClosedWindow | None:
        """Where the window closed, with the steps done and, if all are known, wanted."""
        found = [r for r in runs if usable(r)]
        stages = [
            (d.steps, self._steps.get((r.cell.training_key, i)))
            for r in found
            for i, d in enumerate(_results(r).domains)
            if d.window_closed
        ]
        if not stages:
            return None
        wanted = [known for done, known in stages if known is not None and known >= done]
        return ClosedWindow(
            closed=len(stages),
            domains=sum(len(_results(r).domains) for r in found),
            done=sum(done for done, _ in stages),
            wanted=sum(wanted) if len(wanted) == len(stages) else None,
        )


def _results(record: Record) -> Results:
    assert record.results is not None
    return record.results


def _versions(record: Record) -> dict[tuple[str, str], object]:
    cell = record.cell
    parts = {"method": cell.method, "stream": cell.stream, "model": cell.model}
    versions: dict[tuple[str, str], object] = {(k, c.name): c.code for k, c in parts.items()}
    if cell.variant is not None:
        versions["variant", cell.variant.name] = cell.variant.code
    return versions | {("core of the benchmark", ""): cell.core}
