"""From counted operations to seconds, joules and bytes on a modelled device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.device.profile import ModelledDevice

if TYPE_CHECKING:
    from bench.device.trace import StepTrace


@dataclass(frozen=True)
class Cost:
    """What one step costs on one device, in seconds, joules, and bytes held at the peak."""

    time_s: float
    energy_j: float
    peak_bytes: float


def step_cost(trace: StepTrace, device: ModelledDevice) -> Cost:
    """Roofline time, energy and peak memory of a counted step.

    Time: operators are dispatched one after another while the device works, so each costs
    the longest of its dispatch, its arithmetic and its memory traffic (Williams, Waterman &
    Patterson, CACM 2009, per operator, at the share of the peak its class reaches).
    Energy: idle power over the whole time, plus joules per operation and per byte.
    Memory: the counted live storages; the runtime's own share stands in the profile.
    """
    time = arithmetic = traffic = 0.0
    for (kind, dtype, flops, size), count in trace.operations.items():
        reach = device.efficiency[kind]
        peak = device.flops.get(dtype, device.flops["float32"]).value
        per_flop = device.energy_per_flop.get(dtype, device.energy_per_flop["float32"]).value
        time += count * max(
            device.launch_overhead.value,
            flops / (peak * reach.flops.value),
            size / (device.bandwidth.value * reach.bandwidth.value),
        )
        arithmetic += count * flops * per_flop
        traffic += count * size * device.energy_per_byte.value
    energy = device.power_idle.value * time + arithmetic + traffic
    return Cost(time, energy, trace.peak_bytes)
