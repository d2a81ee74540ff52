"""From what a run measured to the results that are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench import registry as registry
from bench.records.record import (
    Amount,
    Costs,
    DomainResult,
    Results,
)

if TYPE_CHECKING:
    from bench.costs.tracker import CostTracker, DeviceCosts
    from bench.run.protocol import StreamResult


def _results(stream: StreamResult, tracker: CostTracker, device: DeviceCosts) -> Results:
    domains = []
    for stage in stream.stages:
        charge = stage.charges[device.name]
        domains.append(
            DomainResult(
                name=stage.name,
                before=stage.before,
                after=stage.after,
                final=stage.final,
                online=stage.online,
                adapted=stage.adapted,
                adaptation_samples=stage.adaptation_samples,
                test_samples=stage.test_samples,
                steps=charge.steps,
                time_s=charge.time_s,
                energy_j=None if device.energy_unavailable else charge.energy_j,
                window_closed=stage.window_closed,
            )
        )
    return Results(
        source_before=stream.source_before,
        source_after=stream.source_after,
        source_samples=stream.source_samples,
        matrix=stream.matrix,
        domains=domains,
        costs=_costs(tracker, device, domains),
    )


def _costs(tracker: CostTracker, device: DeviceCosts, domains: Sequence[DomainResult]) -> Costs:
    def amount(value: float, unit: str, further: str = "") -> Amount:
        return Amount(value=value, unit=unit, kind=device.kind, how=device.how + further)

    def energy(values: Sequence[float | None], why_not: str) -> Amount:
        joules = [v for v in values if v is not None]
        if len(joules) < len(values) or why_not:
            return unavailable("J", why_not)
        return amount(sum(joules), "J")

    def unavailable(unit: str, how: str) -> Amount:
        return Amount(value=None, unit=unit, kind="unavailable", how=how)

    assert device.inference is not None
    return Costs(
        adaptation_time=amount(sum(d.time_s for d in domains), "s"),
        adaptation_energy=energy([d.energy_j for d in domains], device.energy_unavailable),
        peak_memory=unavailable("B", device.memory_unavailable)
        if device.memory_unavailable
        else amount(device.peak_bytes, "B"),
        runtime_memory=unavailable("B", device.runtime_unavailable)
        if device.runtime_bytes is None
        else amount(device.runtime_bytes, "B"),
        resident_memory=unavailable(
            "B", device.memory_unavailable or "the device's profile is not calibrated for it"
        )
        if device.resident_bytes is None or device.memory_unavailable
        else amount(device.resident_bytes, "B", device.resident_note),
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
        flops=tracker.flops,
        bytes=tracker.bytes,
        launches=tracker.launches,
        tracing_s=tracker.tracing_s,
    )
