"""The cost tracker that suits a run's devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
) -> CostTracker:
    """The tracker of a run; BenchError if a measured device shares it: tracing slows its steps.

    Parameters
    ----------
    resident : returns what the method keeps in memory (walked for tensors)
    energy : meter of a measured device; by default the one that `find_meter` finds for ``meter``
    observers : listen to what is charged
    """
    modelled = [device for device in devices if device.cost == "modelled"]
    measured = [device for device in devices if device.cost == "measured"]
    if not measured:
        return ModelledTracker(modelled, resident, observers)
    if len(devices) > 1:
        raise BenchError("a measured device cannot share a run with others")
    return MeasuredTracker(measured[0], energy or find_meter(meter), observers)
