"""From what a run measured to the results that are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.records.record import (
    Amount,
    Costs,
    DomainResult,
    Results,
)

if TYPE_CHECKING:
    from bench.costs.tracker import CostTracker, DeviceCosts
    from bench.run.protocols.base import StreamResult


def _results(stream: StreamResult, tracker: CostTracker, device: DeviceCosts) -> Results:
    domains = []
    for stage in stream.stages:
        charge = stage.charges[device.name]
        domains.append(
            DomainResult(
                **stage.model_dump(exclude={"charges"}),
                steps=charge.steps,
                time_s=charge.time_s,
                energy_j=None if device.energy_unavailable else charge.energy_j,
            )
        )
    return Results(
        **stream.model_dump(exclude={"stages"}),
        domains=domains,
        costs=_costs(tracker, device, domains),
    )


def _costs(tracker: CostTracker, device: DeviceCosts, domains: Sequence[DomainResult]) -> Costs:
    known: Any = device.kind

    def amount(value: float, unit: str, further: str = "") -> Amount:
        return Amount(value=value, unit=unit, kind=known, how=device.how + further)

    def energy(values: Sequence[float | None], why_not: str) -> Amount:
        joules = [v for v in values if v is not None]
        if len(joules) < len(values) or why_not:
            return unavailable("J", why_not)
        return amount(sum(joules), "J")

    def unavailable(unit: str, how: str) -> Amount:
        return Amount(value=None, unit=unit, kind="unavailable", how=how)

    assert device.inference is not None
    modelled = device.kind == "modelled"
    return Costs(
        adaptation_time=amount(sum(d.time_s for d in domains), "s"),
        adaptation_energy=energy([d.energy_j for d in domains], device.energy_unavailable),
        peak_memory=unavailable("B", device.memory_unavailable)
        if device.memory_unavailable
        else amount(device.peak_bytes, "B"),
        runtime_memory=amount(device.runtime_bytes, "B")
        if modelled
        else unavailable("B", "inside the process's baseline"),
        resident_memory=unavailable(
            "B", device.memory_unavailable or "the device's profile is not calibrated for it"
        )
        if device.resident_bytes is None or device.memory_unavailable
        else amount(device.resident_bytes, "B", "; memory that the process takes" * modelled),
        source_storage=Amount(
            value=tracker.source_bytes,
            unit="B",
            kind="measured",
            how="size of the source data kept",
        ),
        inference_time=amount(device.inference.time_s / device.inference_samples, "s/sample"),
        inference_energy=energy(
            [device.inference.energy_j / device.inference_samples],
            device.inference_energy_unavailable,
        ),
        steps=dict(tracker.counts),
        flops=tracker.flops if modelled else None,
        bytes=tracker.bytes if modelled else None,
        launches=tracker.launches if modelled else None,
        tracing_s=tracker.tracing_s,
    )
