"""From counted operations to seconds, joules and bytes on a modelled device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.costs.device_profile import ModelledDevice
from bench.costs.speed_curves import Speed

if TYPE_CHECKING:
    from bench.costs.step_tracer import StepTrace


@dataclass(frozen=True)
class Cost:
    """What one step costs on one device, in seconds, joules, and bytes held at the peak."""

    time_s: float
    energy_j: float
    peak_bytes: float


def step_cost(trace: StepTrace, device: ModelledDevice) -> Cost:
    """Time, energy and peak memory of a counted step, see `StepPrices`."""
    return StepPrices(device).cost(trace)


class StepPrices:
    """What counted steps cost on one device.

    Time: the sum over the calls. Without curves a call takes the longest of its dispatch, its
    arithmetic and its memory traffic (Williams, Waterman & Patterson, CACM 2009, per operator, at
    the share of the peak its class reaches). With curves its work takes what was measured for its
    kind and size; where ``dispatch`` is ``added`` the dispatch comes on top, but for the calls of
    an optimizer, which were measured with theirs.
    Energy: idle power over the whole time, plus joules per operation and per byte; with ``added``
    the watts of ``power_budget`` over the whole time, since such a processor is always busy.
    Memory: the counted live storages, without the runtime's own share.

    What is read from the profile is kept by kind of call: one serves all steps of a run.
    """

    def __init__(self, device: ModelledDevice) -> None:
        self._device = device
        self._launch = device.launch_overhead.value
        self._per_byte = device.energy_per_byte.value
        self._speeds: dict[tuple[str, str, str], Speed | None] = {}
        self._rooflines: dict[tuple[str, str], tuple[float, float]] = {}

    def cost(self, trace: StepTrace) -> Cost:
        """Time, energy and peak memory of a counted step."""
        device = self._device
        if device.curves is not None and trace.details:
            time = sum(n * self._call_s(*call) for call, n in trace.details.items())
        else:
            time = sum(n * self._call_s(call[0], *call) for call, n in trace.operations.items())
        if device.dispatch == "added":
            return Cost(time, device.power_budget.value * time, trace.peak_bytes)
        arithmetic = traffic = 0.0
        for (_, dtype, flops, size), count in trace.operations.items():
            arithmetic += count * flops * self._per_flop(dtype)
            traffic += count * size * self._per_byte
        energy = device.power_idle.value * time + arithmetic + traffic
        return Cost(time, energy, trace.peak_bytes)

    def _per_flop(self, dtype: str) -> float:
        joules = self._device.energy_per_flop
        return joules.get(dtype, joules["float32"]).value

    def _call_s(self, kind: str, of: str, dtype: str, flops: float, size: float) -> float:
        speed = self._speed(kind, of, dtype)
        if speed is None:
            peak, bandwidth = self._roofline(of, dtype)
            work = max(flops / peak, size / bandwidth)
        else:
            work = speed.seconds(flops, size)
            if of == "optimiser":
                return work
        return self._launch + work if self._device.dispatch == "added" else max(self._launch, work)

    def _roofline(self, of: str, dtype: str) -> tuple[float, float]:
        """Operations and bytes a second that calls of a class reach."""
        key = (of, dtype)
        if key not in self._rooflines:
            reach = self._device.efficiency[of]
            self._rooflines[key] = (
                self._peak(dtype) * reach.flops.value,
                self._device.bandwidth.value * reach.bandwidth.value,
            )
        return self._rooflines[key]

    def _peak(self, dtype: str) -> float:
        return self._device.flops.get(dtype, self._device.flops["float32"]).value

    def _speed(self, kind: str, of: str, dtype: str) -> Speed | None:
        curves = self._device.curves
        if curves is None:
            return None
        key = (kind, of, dtype)
        if key not in self._speeds:
            points = curves.find(kind, of, dtype)
            bandwidth = self._device.bandwidth.value
            self._speeds[key] = Speed(points, self._peak(dtype), bandwidth) if points else None
        return self._speeds[key]


@dataclass(frozen=True)
class MemoryFootprint:
    """What is held at the peak of a step, in bytes, the runtime's share left out.

    Attributes
    ----------
    stored : live when the step begins
    step : what the step adds at its peak
    convolution : of its largest convolution, for which libraries need scratch space
    """

    stored: float
    step: float
    convolution: float

    @classmethod
    def of(cls, trace: StepTrace) -> MemoryFootprint:
        """What a counted step holds."""
        of_convolutions = (call[4] for call in trace.details if call[1] == "convolution")
        stored = trace.resident_bytes
        return cls(stored, trace.peak_bytes - stored, max(of_convolutions, default=0.0))

    @property
    def live_bytes(self) -> float:
        """Live memory at the peak: what the allocator has given out."""
        return self.stored + self.step

    def resident_bytes(self, device: ModelledDevice) -> float | None:
        """What the process takes at the peak; None if the profile is not calibrated for it."""
        known = device.resident_memory
        if known is None:
            return None
        tensors = known.stored.value * self.stored + known.step.value * self.step
        return tensors + known.convolution.value * self.convolution + known.added.value

    def needed_bytes(self, device: ModelledDevice) -> float:
        """Bytes that must fit: resident memory if the profile is calibrated, else live memory."""
        resident = self.resident_bytes(device)
        return self.live_bytes if resident is None else resident
