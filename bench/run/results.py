"""From what a run measured to the results that are recorded for one of its devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.records.record import Amount, Costs, DomainResult, Results

if TYPE_CHECKING:
    from bench.costs.tracker import CostTracker, DeviceCosts
    from bench.run.protocols.base import Stage, StreamResult


def results_on(device: DeviceCosts, stream: StreamResult, tracker: CostTracker) -> Results:
    """The results of a run on one device: the scores of the stream, and the device's costs."""
    domains = [_domain(stage, device) for stage in stream.stages]
    return Results(
        **stream.model_dump(exclude={"stages"}),
        domains=domains,
        costs=_costs(device, domains, tracker),
    )


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
        flops=tracker.flops,
        bytes=tracker.bytes,
        launches=tracker.launches,
        tracing_s=tracker.tracing_s,
    )  # fmt: skip
