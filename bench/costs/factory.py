"""The cost tracker that suits a run's devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.accelerator.choice import Kind
from bench.accelerator.facts import gpu_in_use, why_not_alone
from bench.costs.device_profile import DeviceProfile
from bench.costs.measured import MeasuredTracker
from bench.costs.modelled import ModelledTracker
from bench.costs.tracker import CostTracker, StepObserver
from bench.errors import BenchError
from bench.meters.base import EnergyMeter, Unavailable
from bench.meters.find import find_meter


def make_tracker(
    devices: Sequence[DeviceProfile],
    resident: Callable[[], Any],
    energy: EnergyMeter | Unavailable | None = None,
    observers: Sequence[StepObserver] = (),
    meter: str = "auto",
    accelerator: Kind = "cpu",
) -> CostTracker:
    """The tracker of a run; BenchError if a measured device shares it: tracing slows its steps.

    ``resident``: returns what the method keeps in memory (walked for tensors); ``energy``: meter of
    a measured device, by default the one that `find_meter` finds for ``meter``; ``observers``:
    listen to what is charged; ``accelerator``: where the run computes.
    """
    measured = [device for device in devices if device.cost == "measured"]
    if not measured:
        return ModelledTracker([d for d in devices if d.cost == "modelled"], resident, observers)
    if len(devices) > 1:
        raise BenchError("a measured device cannot share a run with others")
    if energy is None:
        energy = find_meter(meter) if accelerator == "cpu" else gpu_meter(meter)
    return MeasuredTracker(measured[0], energy, observers, accelerator)


def gpu_meter(name: str) -> EnergyMeter | Unavailable:
    """The meter of the GPU that this process is about to use, if it uses it alone."""
    if reason := why_not_alone(gpu_in_use(), ours=0):
        return Unavailable(reason, {"nvml": reason})
    return find_meter(name, processor="gpu")
