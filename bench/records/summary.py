"""What commands ask of many records without their results: small, and quick to read from an index.

A `Template` is what records of one method, model, stream and device share: cells of it differ in
seed and draw of the source alone, so that it is kept once for all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from bench.io.digest import digest
from bench.records.cell import Cell
from bench.records.record import Record


@dataclass(frozen=True)
class Template:
    """A suite's name and a cell as JSON, its seed and draw left open; ``key``: their digest."""

    key: str
    suite: str
    content: dict[str, Any]

    @cached_property
    def cell(self) -> Cell:
        """The cell of seed 0 on the first draw."""
        return Cell.model_validate({**self.content, "seed": 0})


class RecordSummary(NamedTuple):
    """A record without what its run measured; attributes as in `Record`.

    ``windows_json``: `windows` as JSON; few commands ask for them.
    """

    identity: str
    template: Template
    seed: int
    source_draw: int
    status: str
    reason: str
    started: str
    wall_s: float
    log: str
    windows_json: str

    @property
    def windows(self) -> list[tuple[str, int, bool]]:
        """Of each domain in order its name, the method's steps, and whether the window closed."""
        return [(name, steps, closed) for name, steps, closed in json.loads(self.windows_json)]

    @property
    def suite(self) -> str:
        """By which the cell was run."""
        return self.template.suite

    @property
    def cell(self) -> Cell:
        """What was run; its components are shared with all cells of the template."""
        own = {"seed": self.seed, "source_draw": self.source_draw}
        return self.template.cell.model_copy(update=own)


def summarize(record: Record) -> RecordSummary:
    """The summary of a record that was read."""
    content = json.loads(record.cell.model_dump_json(exclude={"seed", "source_draw"}))
    domains = record.results.domains if record.results else ()
    return RecordSummary(
        record.identity,
        Template(digest([record.suite, content])[:16], record.suite, content),
        record.cell.seed,
        record.cell.source_draw,
        record.status,
        record.reason,
        record.started,
        record.wall_s,
        record.log,
        json.dumps([(domain.name, domain.steps, domain.window_closed) for domain in domains]),
    )
