"""What was planned is what runs: code, files and device profiles may be edited in between."""

from __future__ import annotations

from bench import registry
from bench.contracts.build import config_of
from bench.contracts.protocol import protocol_config
from bench.contracts.settings import file_digests
from bench.costs.device_profile import load_device, profile_digest
from bench.errors import BenchError
from bench.records.cell import Cell, Component
from bench.registry.component_code import component_digest
from bench.study.job import Job


def require_planned_code(job: Job) -> None:
    """Raise BenchError if a component, a file or a profile differs from what the cells name."""
    cell = job.cells[0]
    _require_components(cell)
    protocol = protocol_config(cell.protocol)
    if protocol.code and protocol.code != _code("protocol", protocol.name):
        raise _changed(f"the code of protocol {protocol.name!r}")
    for each in job.cells:
        if profile_digest(load_device(each.device)) != each.device_digest:
            raise _changed(f"the profile of {each.device!r}")


def _require_components(cell: Cell) -> None:
    for kind in ("method", "model", "variant", "stream"):
        component: Component | None = getattr(cell, kind)
        if component is None:
            continue
        for what, planned, found in (
            ("code", component.code, _code(kind, component.name)),
            ("files", component.files, file_digests(config_of(kind, component))),
        ):
            if found != planned:
                raise _changed(f"the {what} of {kind} {component.name!r}")


def _code(kind: str, name: str) -> str:
    return component_digest(registry.entry(kind, name))


def _changed(what: str) -> BenchError:
    return BenchError(f"{what} changed after this run was planned; give the command again")
