"""From what a run measured, or how it ended, to the record of each of its cells."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from bench import registry
from bench.accelerator.facts import accelerator_facts
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported
from bench.io.one_line import error_text
from bench.records.cell import Cell
from bench.records.environment import environment
from bench.records.record import (
    Amount,
    Costs,
    DomainResult,
    MethodFacts,
    ProfileError,
    Record,
    Results,
    Status,
)
from bench.study.job import Job

if TYPE_CHECKING:
    from bench.contracts.method import Method
    from bench.costs.tracker import CostTracker, DeviceCosts
    from bench.run.protocols.base import Stage, StreamResult


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
    missing = object()
    changed = {k: v for k, v in cell.method.config.items() if defaults.get(k, missing) != v}
    return MethodFacts(
        family=method.family,
        provenance=_provenance(cell.method.name, method),
        paper=method.paper,
        needs=list(method.needs),
        changed=changed,
        settings_origin=cell.settings_origin if any(search_space(method.Config)) else "none",
    )


def _provenance(name: str, method: type[Method]) -> str:
    """What a method declares; "plugin" of one from outside the project that says nothing itself, so
    that no table calls a reader's method the project's own.
    """
    if registry.entry("method", name).origin == "bench":
        return method.provenance
    says = next(each for each in method.__mro__ if "provenance" in vars(each))
    own = not says.__module__.startswith("bench.") and method.provenance != "chosen-here"
    return method.provenance if own else "plugin"


def make_record(job: Job, cell: Cell, *, status: Status, **more: Any) -> Record:
    """The record of ``cell`` in this run; ``more``: ``started``, ``wall_s`` and what is known.

    Beside the record's own fields ``more`` may have ``deterministic``: whether a step on a GPU gave
    equal bits twice.
    """
    computed_on = accelerator_facts(cell.accelerator)
    if (deterministic := more.pop("deterministic", None)) is not None:
        computed_on["accelerator"]["deterministic"] = deterministic
    return Record(
        identity=cell.identity,
        run=job.run,
        suite=job.suite,
        status=status,
        cell=cell,
        method=method_facts(cell),
        attempt=job.attempts[job.cells.index(cell)] + 1,
        log=str(job.log.relative_to(job.store)),
        environment=environment() | computed_on,
        **more,
    )


def ending(error: BaseException) -> dict[str, Any]:
    """The fields ``status``, ``reason`` and ``oom_on`` of a record."""
    text = error_text(error)
    if isinstance(error, DeviceOutOfMemory):
        return {"status": "oom", "reason": text, "oom_on": "device"}
    if isinstance(error, Unsupported):
        return {"status": "unsupported", "reason": text}
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return {"status": "oom", "reason": f"GPU memory: {text}", "oom_on": "host"}
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        reason = f"host memory: {text or 'MemoryError'}"
        return {"status": "oom", "reason": reason, "oom_on": "host"}
    if isinstance(error, SystemExit):
        reason = f"sys.exit({text}) was called: what runs here returns or raises"
        return {"status": "failed", "reason": reason}
    reason = text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
    return {"status": "failed", "reason": reason}


def results_on(
    device: DeviceCosts,
    stream: StreamResult,
    tracker: CostTracker,
    further: Mapping[str, Amount] | None = None,
) -> Results:
    """The results of a run on one device: the scores of the stream, and the device's costs.

    ``further``: costs that the method knows besides, by names that `Costs` does not have.
    """
    domains = [_domain(stage, device) for stage in stream.stages]
    costs = _costs(device, domains, tracker)
    for name, amount in (further or {}).items():
        if name in Costs.model_fields:
            raise BenchError(f"further_costs gives {name!r}, which is counted: choose another name")
        setattr(costs, name, amount)
    return Results(**stream.model_dump(exclude={"stages"}), domains=domains, costs=costs)


def _domain(stage: Stage, device: DeviceCosts) -> DomainResult:
    charge = stage.charges[device.name]
    return DomainResult(
        **stage.model_dump(exclude={"charges"}),
        steps=charge.steps,
        time_s=charge.time_s,
        energy_j=None if device.energy_unavailable else charge.energy_j,
    )


def _costs(device: DeviceCosts, domains: Sequence[DomainResult], tracker: CostTracker) -> Costs:
    """All costs of a run. A cost given here under a new name is recorded: see `Costs`."""

    def amount(value: float | None, unit: str, why_not: str = "", more: str = "") -> Amount:
        """Unavailable if there is a reason ``why_not`` or no value; ``more`` is added to how."""
        if value is None or why_not:
            return Amount(value=None, unit=unit, kind="unavailable", how=why_not)
        if not math.isfinite(value):
            raise BenchError(
                f"a cost of {value} {unit} on device {device.name}: check the device's profile"
            )
        return Amount(value=value, unit=unit, kind=device.kind, how=device.how + more)

    def measured(value: float, unit: str, how: str) -> Amount:
        return Amount(value=value, unit=unit, kind="measured", how=how)

    assert device.inference is not None
    joules = [d.energy_j for d in domains if d.energy_j is not None]
    energy = sum(joules) if len(joules) == len(domains) else None
    no_memory = device.memory_unavailable
    uncalibrated = "" if device.resident_bytes is not None else (
        "the device's profile is not calibrated for it"
    )  # fmt: skip
    n = device.inference_samples
    return Costs(
        adaptation_time=amount(sum(d.time_s for d in domains), "s"),
        adaptation_energy=amount(energy, "J", device.energy_unavailable),
        peak_memory=amount(device.peak_bytes, "B", no_memory),
        runtime_memory=amount(device.runtime_bytes, "B", device.runtime_unavailable),
        resident_memory=amount(
            device.resident_bytes, "B", no_memory or uncalibrated, device.resident_note
        ),
        source_storage=measured(tracker.source_bytes, "B", "size of the source data kept"),
        inference_time=amount(device.inference.time_s / n, "s/sample"),
        inference_energy=amount(
            device.inference.energy_j / n, "J", device.inference_energy_unavailable
        ),
        steps=dict(tracker.counts),
        time_by_kind=dict(device.time_by_kind),
        flops=tracker.flops,
        bytes=tracker.bytes,
        launches=tracker.launches,
        tracing_s=tracker.tracing_s,
        uncounted=sorted(tracker.uncounted),
        profile_error=device.profile_error
        and ProfileError.model_validate(device.profile_error.model_dump()),
        **(
            {"process_memory": measured(device.process_bytes, "B", "by the GPU's driver")}
            if device.process_bytes is not None
            else {}
        ),
    )  # fmt: skip
