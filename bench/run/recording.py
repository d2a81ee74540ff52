"""Make the record of a cell from a run."""

from __future__ import annotations

import datetime
from typing import Any

from pydantic_core import to_jsonable_python

from bench import registry
from bench.records.cell import Cell
from bench.records.environment import environment
from bench.records.record import MethodFacts, Record, Status
from bench.study.job import Job


def now() -> str:
    """UTC time in ISO 8601, seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def method_facts(cell: Cell) -> MethodFacts:
    """What a cell's method declares, with the settings that differ from its defaults."""
    from bench.contracts.method import search_space

    method = registry.load("method", cell.method.name)
    defaults = {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in method.Config.model_fields.items()
        if not field.is_required()
    }
    config = cell.method.config
    changed = {k: v for k, v in config.items() if k not in defaults or defaults[k] != v}
    return MethodFacts(
        family=method.family,
        provenance=method.provenance,
        paper=method.paper,
        needs=list(method.needs),
        changed=changed,
        settings_origin=cell.settings_origin if any(search_space(method.Config)) else "none",
    )


def make_record(
    job: Job,
    cell: Cell,
    *,
    status: Status,
    started: str,
    wall_s: float,
    reason: str = "",
    **more: Any,
) -> Record:
    """The record of ``cell`` in this run; ``more``: further fields of `Record`."""
    return Record(
        identity=cell.identity,
        run=job.run,
        suite=job.suite,
        status=status,
        reason=reason,
        cell=cell,
        method=method_facts(cell),
        started=started,
        wall_s=wall_s,
        attempt=job.attempts[job.cells.index(cell)] + 1,
        log=str(job.log.relative_to(job.store)),
        environment=environment(),
        **more,
    )
