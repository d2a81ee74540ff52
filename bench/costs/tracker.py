"""Costs of a run: each step is traced once and priced for every device.

A run trains once for several devices as long as they would make the same decisions. The
`CostTracker` asks every device whether the next step still fits its window; devices that answer
otherwise than the rest are *deferred* to a run of their own, and devices whose memory
or window does not suffice leave with their reason. What remains at the end was trained
exactly as it would have been for each device alone.
"""

from __future__ import annotations

import time
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bench.costs.device_profile import DeviceProfile, MeasuredDevice, ModelledDevice
from bench.costs.pricing import Cost, MemoryFootprint, step_cost
from bench.costs.process_memory import held_bytes, peak_bytes, reset_peak
from bench.costs.step_tracer import StepTrace, StepTracer, live_tensors
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported
from bench.meters.base import EnergyMeter
from bench.meters.errors import MeterError, Unavailable
from bench.meters.find import find_meter

Key = tuple[str, Hashable]
"""A step's kind and the shape of its batch."""


@dataclass
class WindowCosts:
    """A running total on one device: seconds, joules (None if unknown) and steps."""

    time_s: float = 0.0
    energy_j: float | None = 0.0
    steps: int = 0


class DeviceCosts(ABC):
    """What one device is charged for adaptation, inference and memory in one run.

    ``window`` is the total since the current window opened; ``inference`` is the cost of
    predicting one batch of ``inference_samples``; ``peak_bytes`` counts above the runtime, and so
    does ``resident_bytes``, what the process takes, where it is known beside what lives.
    ``energy_unavailable`` and ``inference_energy_unavailable``: why adaptation and predictions have
    no energy, if they have none; ``memory_unavailable``: why its peak is not known.
    """

    kind: str
    how: str
    energy_unavailable = ""
    inference_energy_unavailable = ""
    memory_unavailable = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.window = WindowCosts()
        self.inference: Cost | None = None
        self.inference_samples = 0
        self.peak_bytes = 0.0
        self.resident_bytes: float | None = None

    @abstractmethod
    def expected_s(self, key: Key) -> float | None:
        """Seconds that a step of this key will take, if one was charged before."""

    @property
    def memory_limit(self) -> float:
        """Bytes that an application may take on this device, its runtime included."""
        return float("inf")

    @property
    def runtime_bytes(self) -> float:
        """Bytes that the runtime holds before the first tensor; not in ``peak_bytes``."""
        return 0.0


class ModelledCosts(DeviceCosts):
    """Charges profile x counts."""

    kind = "modelled"

    def __init__(self, device: ModelledDevice) -> None:
        super().__init__(device.name)
        self.profile = device
        self.how = f"profile {device.name} x counted step"
        self.energy_unavailable = self.inference_energy_unavailable = device.energy_unavailable
        self._costs: dict[Key, Cost] = {}

    def price(self, key: Key, trace: StepTrace) -> Cost:
        """Set the price of steps of this key."""
        cost = self._costs[key] = step_cost(trace, self.profile)
        return cost

    def expected_s(self, key: Key) -> float | None:
        cost = self._costs.get(key)
        return None if cost is None else cost.time_s

    def hold(self, holding: MemoryFootprint) -> float:
        """Bring the peaks up to date; bytes that must fit beside the runtime."""
        self.peak_bytes = max(self.peak_bytes, holding.live_bytes)
        resident = holding.resident_bytes(self.profile)
        if resident is not None:
            self.resident_bytes = max(self.resident_bytes or 0.0, resident)
        return holding.needed_bytes(self.profile)

    def charge(self, key: Key) -> None:
        """WindowCosts one step of a priced key."""
        cost = self._costs[key]
        self.window.time_s += cost.time_s
        assert self.window.energy_j is not None
        self.window.energy_j += cost.energy_j
        self.window.steps += 1

    @property
    def memory_limit(self) -> float:
        return self.profile.memory_for_applications.value

    @property
    def runtime_bytes(self) -> float:
        return self.profile.runtime_memory.value


class MeasuredCosts(DeviceCosts):
    """Charges wall time and resident memory of this process, and the energy of this machine.

    Energy is all that the meter's scope used from the opening of a window to its end, whatever
    else the machine did meanwhile; a window without steps took none. Where there is no meter, or it
    refuses a window (which may be too short for its sensor), the energy of adaptation is
    unavailable, with the reason; so is that of predictions, for reasons of its own.
    """

    kind = "measured"

    def __init__(self, device: MeasuredDevice, energy: EnergyMeter | Unavailable) -> None:
        super().__init__(device.name)
        self.how = "wall clock; peak resident memory above the start of the run, with its data"
        self.window.energy_j = None
        self._last: dict[Key, float] = {}
        self._baseline = 0
        try:
            self._baseline = held_bytes("cpu")
        except BenchError as error:
            self.memory_unavailable = str(error)
        self._energy: EnergyMeter | None = None
        self._energy_open = False
        if isinstance(energy, Unavailable):
            self.energy_unavailable = self.inference_energy_unavailable = energy.reason
        else:
            self._energy = energy
            self.how += f"; energy of whole windows by {energy.how}"

    def expected_s(self, key: Key) -> float | None:
        return self._last.get(key)

    def charge(self, key: Key, seconds: float, cut_short: bool = False) -> None:
        """WindowCosts one step that took ``seconds``; one ``cut_short`` is no guide to others."""
        if not cut_short:
            self._last[key] = seconds
        self.window.time_s += seconds
        self.window.steps += 1

    def start(self) -> None:
        """Forget what was held offline: the peak counts from now, the baseline stays."""
        try:
            reset_peak("cpu")
        except BenchError as error:
            self.memory_unavailable = str(error)

    def begin_energy(self) -> None:
        """A window opens."""
        if self._energy is not None and not self.energy_unavailable:
            try:
                self._energy.begin()
                self._energy_open = True
            except MeterError as error:
                self.energy_unavailable = str(error)

    def end_energy(self) -> None:
        """The window ends; nothing where none is open."""
        if self._energy is not None and self._energy_open:
            self._energy_open = False
            if self.window.steps == 0:
                self._energy.cancel()
                self.window.energy_j = 0.0
                return
            try:
                self.window.energy_j = self._energy.end().joules
            except MeterError as error:
                self.energy_unavailable = str(error)

    def inference_energy(self, predict: Callable[[], Any]) -> float:
        """Joules of predicting one batch, by repeating it; not a number if they are unknown."""
        if self._energy is None or self.inference_energy_unavailable:
            return float("nan")
        from bench.meters.measurement import measure

        shortest = max(self._energy.minimum_s, 1.0)
        try:
            found = measure(
                predict, self._energy, idle_s=shortest, repeats=3, minimum_s=shortest, settle_s=0.0
            )
        except MeterError as error:
            self.inference_energy_unavailable = str(error)
            return float("nan")
        return found.gross_j.mean

    def read_memory(self) -> None:
        """Update the peak from the kernel's high-water mark."""
        if not self.memory_unavailable:
            self.peak_bytes = max(self.peak_bytes, peak_bytes("cpu") - self._baseline)
            self.resident_bytes = self.peak_bytes


class CostTracker:
    """Counts steps once and charges them to every device of the run.

    Parameters
    ----------
    devices : profiles; a measured one stands alone, since counting slows the steps it measures
    resident : returns what the method keeps in memory (walked for tensors)
    energy : meter of a measured device; default: the one that ``meter`` names
    meter : for `find_meter`
    """

    def __init__(
        self,
        devices: list[DeviceProfile],
        resident: Callable[[], Any],
        energy: EnergyMeter | Unavailable | None = None,
        meter: str = "auto",
    ) -> None:
        self.devices: list[DeviceCosts] = []
        for device in devices:
            if isinstance(device, MeasuredDevice):
                self.devices.append(MeasuredCosts(device, energy or find_meter(meter)))
            else:
                self.devices.append(ModelledCosts(device))
        self.measured = any(isinstance(b, MeasuredCosts) for b in self.devices)
        if self.measured and len(self.devices) > 1:
            raise BenchError("a measured device cannot share a run with others")
        self.deferred: list[str] = []
        self.dropped: dict[str, BenchError] = {}
        self.counts: Counter[str] = Counter()
        self.flops = self.bytes = self.launches = 0.0
        self.tracing_s = 0.0
        self.source_bytes = 0
        self._resident = resident
        self._traces: dict[Key, StepTrace] = {}
        self._seen: Counter[Key] = Counter()
        self._holdings: dict[Key, MemoryFootprint] = {}
        self._twice_bytes: int | None = None
        self._predicting = 0.0
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._counted_here: set[Key] = set()
        self._settled: set[Key] = set()
        self._tracer: StepTracer | None = None
        self._open: Key | None = None
        self._started = 0.0

    def start(self) -> None:
        """Deployment begins: offline work is not on the device."""
        for device in self.devices:
            if isinstance(device, MeasuredCosts):
                device.start()

    def mark_unavailable(self, energy: str = "", memory: str = "") -> None:
        """Why the energy of windows or the peak of memory cannot be measured in this run.

        Nothing is left out where costs are modelled.
        """
        for device in self.devices:
            if isinstance(device, MeasuredCosts):
                device.energy_unavailable = device.energy_unavailable or energy
                device.memory_unavailable = device.memory_unavailable or memory

    def open_window(self) -> None:
        """Start every device's window at zero and bring memory peaks up to date."""
        self._account_growth()
        self._settled.clear()
        self._counted_here.clear()
        for device in self.devices:
            device.window = WindowCosts(0.0, None if device.kind == "measured" else 0.0, 0)
            if isinstance(device, MeasuredCosts):
                device.begin_energy()

    def admit(self, key: Key, budget_s: float) -> bool:
        """Whether one more step of ``key`` fits the window; devices that differ are deferred."""
        fits = []
        for device in self.devices:
            expected = device.expected_s(key)
            spent = device.window.time_s
            if expected is None:
                fits.append(spent < budget_s)
            else:  # the tolerance is for sums of rounded costs: 600 steps of 0.1 s fit 60 s
                fits.append(spent + expected <= budget_s * (1 + 1e-9))
        if any(fits) and not all(fits):
            self.deferred += [b.name for b, fit in zip(self.devices, fits, strict=True) if not fit]
            self.devices = [b for b, fit in zip(self.devices, fits, strict=True) if fit]
        return any(fits)

    @property
    def is_open(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._open is not None

    def begin(self, key: Key, recount: bool = False) -> None:
        """A step begins. It is counted if it is one of the first two of its key in the run, the
        first in its window (a method's work may grow), or the second there if the first left
        something behind, as an optimizer's state.
        """
        if self._open is not None:
            raise BenchError(f"step {key[0]!r} begins inside step {self._open[0]!r}: do not nest")
        self._open = key
        if not self.measured and (recount or key not in self._settled or self._seen[key] < 2):
            self._tracer = StepTracer(self._kept())
            self._tracer.__enter__()
        self._started = time.perf_counter()

    def end(self, budget_s: float = float("inf"), cut_short: bool = False) -> None:
        """The step ended: charge it. Devices that it does not fit leave with the reason.

        A step that was ``cut_short`` (left by ``break``) sets no price for others: if it was
        counted it is charged what it did, else a whole step.
        """
        if self._open is None:
            return
        seconds = time.perf_counter() - self._started
        key, self._open = self._open, None
        self.counts[key[0]] += 1
        if cut_short and self._tracer is not None:
            key = (f"{key[0]} (cut short)", object())
        self._seen[key] += 1
        if self.measured:
            for device in self.devices:
                assert isinstance(device, MeasuredCosts)
                device.charge(key, seconds, cut_short)
                self._check(device, key, seconds, budget_s)
        else:
            if self._tracer is not None:
                self.tracing_s += seconds
                self._take_trace(key, budget_s)
            trace = self._traces[key]
            self.flops += trace.flops
            self.bytes += trace.bytes
            self.launches += trace.launches
            for device in self.devices:
                assert isinstance(device, ModelledCosts)
                device.charge(key)
        self._require_somebody()

    def inference(self, samples: int, predict: Callable[[], Any]) -> Any:
        """Run ``predict`` once, counting or timing it as the price of inference."""
        if self.measured:
            start = time.perf_counter()
            out = predict()
            seconds = time.perf_counter() - start
            for device in self.devices:
                assert isinstance(device, MeasuredCosts)
                device.inference = Cost(seconds, device.inference_energy(predict), 0.0)
                device.inference_samples = samples
            return out
        with StepTracer(self._kept()) as tracer:
            out = predict()
        self._predicting = MemoryFootprint.of(tracer.trace).step
        for device in list(self.devices):
            assert isinstance(device, ModelledCosts)
            device.inference = step_cost(tracer.trace, device.profile)
            device.inference_samples = samples
            self._hold(device, MemoryFootprint.of(tracer.trace), "inference")
        self._require_somebody()
        return out

    def add_double_buffer(self, size: int) -> None:
        """Predictions go on while the method adapts, by a copy of ``size`` bytes of what is stored.

        The most of all calls counts, with what a prediction adds, from the next look at memory on.
        """
        self._twice_bytes = max(self._twice_bytes or 0, size)

    def close(self) -> None:
        """The window ends: leave no counting mode and no energy meter running, whatever happened
        inside a step.
        """
        for device in self.devices:
            if isinstance(device, MeasuredCosts):
                device.end_energy()
        if self._tracer is not None:
            self._tracer.__exit__(None, None, None)
            self._tracer = None
        self._open = None

    def finish(self) -> None:
        """The run ends: last look at memory."""
        self._account_growth()
        for device in self.devices:
            if isinstance(device, MeasuredCosts):
                device.read_memory()

    # -----------------------------------------------------------------------

    def _take_trace(self, key: Key, budget_s: float) -> None:
        assert self._tracer is not None
        self._tracer.__exit__(None, None, None)
        self._optimizers |= self._tracer.optimizers
        trace, self._tracer = self._tracer.trace, None
        self._traces[key] = trace
        held = MemoryFootprint.of(trace)
        # What the step has left behind, as an optimizer's state, is no growth of later steps.
        left = max(self._stored_bytes() - held.stored, 0)
        self._holdings[key] = replace(held, step=max(held.step - left, 0))
        if not left or key in self._counted_here:
            self._settled.add(key)
        self._counted_here.add(key)
        for device in list(self.devices):
            assert isinstance(device, ModelledCosts)
            cost = device.price(key, trace)
            if self._hold(device, held, f"a {key[0]} step"):
                self._check(device, key, cost.time_s, budget_s)

    def _kept(self) -> Any:
        """What lives between steps: what the method says, and optimizers in its local variables."""
        return [self._resident(), list(self._optimizers)]

    def _stored_bytes(self) -> int:
        """What lives in memory now, between steps."""
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes()
                 for t in live_tensors(self._kept())}  # fmt: skip
        return sum(sizes.values())

    def _account_growth(self) -> None:
        """What the method keeps may have grown since its steps were counted (replay memory)."""
        if self.measured or not self._holdings:
            return
        stored = self._stored_bytes() + (self._twice_bytes or 0)
        beside = 0.0 if self._twice_bytes is None else self._predicting
        grown = {
            replace(holding, stored=stored, step=holding.step + beside)
            for holding in self._holdings.values()
        }
        for device in list(self.devices):
            assert isinstance(device, ModelledCosts)
            needed = partial(MemoryFootprint.needed_bytes, device=device.profile)
            largest_first = sorted(grown, key=needed, reverse=True)
            all(self._hold(device, holding, "adaptation") for holding in largest_first)
        self._require_somebody()

    def _hold(self, device: DeviceCosts, holding: MemoryFootprint, what: str) -> bool:
        assert isinstance(device, ModelledCosts)
        total = device.hold(holding) + device.runtime_bytes
        if total <= device.memory_limit:
            return True
        self._drop(
            device,
            DeviceOutOfMemory(
                f"{what} needs {total / 1e6:.1f} MB ({device.runtime_bytes / 1e6:.1f} MB of them "
                f"runtime) on {device.name}, which leaves {device.memory_limit / 1e6:.1f} MB to "
                "applications; use a smaller batch or model"
            ),
        )
        return False

    def _check(self, device: DeviceCosts, key: Key, seconds: float, budget_s: float) -> None:
        if seconds > budget_s:
            self._drop(
                device,
                Unsupported(
                    f"one {key[0]} step takes {seconds:.3g} s on {device.name}, longer than the "
                    f"whole window of {budget_s:.3g} s; lengthen window_s or use a smaller batch"
                ),
            )

    def _drop(self, device: DeviceCosts, reason: BenchError) -> None:
        self.dropped[device.name] = reason
        self.devices = [b for b in self.devices if b is not device]

    def _require_somebody(self) -> None:
        if not self.devices:
            raise next(reversed(self.dropped.values()))
