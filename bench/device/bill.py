"""The bill of a run: what each device is charged, counted once and priced for all of them.

A run trains once for several devices as long as they would make the same decisions. The
`Meter` asks every device whether the next step still fits its window; devices that answer
otherwise than the rest are *deferred* to a run of their own, and devices whose memory
or window does not suffice leave with their reason. What remains at the end was trained
exactly as it would have been for each device alone.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.device.cost import Cost, step_cost
from bench.device.meters.base import EnergyMeter
from bench.device.meters.errors import MeterError, Unavailable
from bench.device.meters.find import find_meter
from bench.device.profile import DeviceProfile, MeasuredDevice, ModelledDevice
from bench.device.trace import StepTrace, StepTracer, live_tensors
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported

Key = tuple[str, Hashable]
"""A step's kind and the shape of its batch."""


@dataclass
class Charge:
    """A running total on one device: seconds, joules (None if unknown) and steps."""

    time_s: float = 0.0
    energy_j: float | None = 0.0
    steps: int = 0


class Bill(ABC):
    """What one device is charged for adaptation, inference and memory in one run.

    ``window`` is the total since the current window opened; ``inference`` is the cost of
    predicting one batch of ``inference_samples``; ``peak_bytes`` counts above the runtime.
    """

    kind: str
    how: str
    energy_unavailable = ""

    def __init__(self, name: str) -> None:
        self.device = name
        self.window = Charge()
        self.inference: Cost | None = None
        self.inference_samples = 0
        self.peak_bytes = 0.0

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


class ModelledBill(Bill):
    """Charges profile x counts."""

    kind = "modelled"

    def __init__(self, device: ModelledDevice) -> None:
        super().__init__(device.name)
        self.profile = device
        self.how = f"profile {device.name} x counted step"
        self._costs: dict[Key, Cost] = {}

    def price(self, key: Key, trace: StepTrace) -> Cost:
        """Set the price of steps of this key."""
        cost = self._costs[key] = step_cost(trace, self.profile)
        return cost

    def expected_s(self, key: Key) -> float | None:
        cost = self._costs.get(key)
        return None if cost is None else cost.time_s

    def charge(self, key: Key) -> None:
        """Charge one step of a priced key."""
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


class MeasuredBill(Bill):
    """Charges wall time and resident memory of this process, and the energy of this machine.

    Energy is all that the meter's scope used from the opening of a window to its end, whatever
    else the machine did meanwhile. Where there is no meter, or it refuses one window of the run
    (a window may be too short for its sensor), the run's energy is unavailable, with the reason.
    """

    kind = "measured"

    def __init__(self, device: MeasuredDevice, energy: EnergyMeter | Unavailable) -> None:
        super().__init__(device.name)
        self.how = "wall clock; peak resident memory above the start of the run"
        self.window.energy_j = None
        self._last: dict[Key, float] = {}
        self._baseline = _resident_now()
        self._energy: EnergyMeter | None = None
        self._energy_open = False
        if isinstance(energy, Unavailable):
            self.energy_unavailable = energy.reason
        else:
            self._energy = energy
            self.how += f"; energy of whole windows by {energy.how}"

    def expected_s(self, key: Key) -> float | None:
        return self._last.get(key)

    def charge(self, key: Key, seconds: float) -> None:
        """Charge one step that took ``seconds``."""
        self._last[key] = seconds
        self.window.time_s += seconds
        self.window.steps += 1

    def start(self) -> None:
        """Forget what was held offline: the peak counts from now, the baseline stays."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def begin_energy(self) -> None:
        """A window opens."""
        if self._energy is not None:
            try:
                self._energy.begin()
                self._energy_open = True
            except MeterError as error:
                self._lose_energy(error)

    def end_energy(self) -> None:
        """The window ends; nothing where none is open."""
        if self._energy is not None and self._energy_open:
            self._energy_open = False
            try:
                self.window.energy_j = self._energy.end().joules
            except MeterError as error:
                self._lose_energy(error)

    def inference_energy(self, predict: Callable[[], Any]) -> float:
        """Joules of predicting one batch, by repeating it; not a number if there is no meter."""
        if self._energy is None:
            return float("nan")
        from bench.device.meters.protocol import measure

        shortest = max(self._energy.minimum_s, 1.0)
        try:
            found = measure(
                predict, self._energy, idle_s=shortest, repeats=3, minimum_s=shortest, settle_s=0.0
            )
        except MeterError as error:
            self._lose_energy(error)
            return float("nan")
        return found.gross_j.mean

    def _lose_energy(self, error: MeterError) -> None:
        self._energy, self.energy_unavailable = None, str(error)

    def read_memory(self) -> None:
        """Update the peak from the kernel's high-water mark."""
        self.peak_bytes = max(self.peak_bytes, float(_peak_resident() - self._baseline))


class Meter:
    """Counts steps once and charges them to every device of the run.

    Parameters
    ----------
    devices : profiles; a measured one stands alone, since counting slows the steps it measures
    resident : returns what the method keeps in memory (walked for tensors)
    energy : meter of a measured device; default: the one that this machine has, if any
    """

    def __init__(
        self,
        devices: list[DeviceProfile],
        resident: Callable[[], Any],
        energy: EnergyMeter | Unavailable | None = None,
    ) -> None:
        self.bills: list[Bill] = []
        for device in devices:
            if isinstance(device, MeasuredDevice):
                self.bills.append(MeasuredBill(device, energy or find_meter()))
            else:
                self.bills.append(ModelledBill(device))
        self.measured = any(isinstance(b, MeasuredBill) for b in self.bills)
        if self.measured and len(self.bills) > 1:
            raise BenchError("a measured device cannot share a run with others")
        self.deferred: list[str] = []
        self.left: dict[str, BenchError] = {}
        self.counts: Counter[str] = Counter()
        self.flops = self.bytes = self.launches = 0.0
        self.tracing_s = 0.0
        self.source_bytes = 0
        self._resident = resident
        self._traces: dict[Key, StepTrace] = {}
        self._seen: Counter[Key] = Counter()
        self._growth: dict[Key, int] = {}
        self._counted_here: set[Key] = set()
        self._tracer: StepTracer | None = None
        self._open: Key | None = None
        self._started = 0.0

    def start(self) -> None:
        """Deployment begins: offline work is not on the bill."""
        for bill in self.bills:
            if isinstance(bill, MeasuredBill):
                bill.start()

    def open_window(self) -> None:
        """Start every device's window at zero and bring memory peaks up to date."""
        self._account_growth()
        self._counted_here.clear()
        for bill in self.bills:
            bill.window = Charge(0.0, None if bill.kind == "measured" else 0.0, 0)
            if isinstance(bill, MeasuredBill):
                bill.begin_energy()

    def admit(self, key: Key, budget_s: float) -> bool:
        """Whether one more step of ``key`` fits the window; devices that differ are deferred."""
        fits = []
        for bill in self.bills:
            expected = bill.expected_s(key)
            spent = bill.window.time_s
            if expected is None:
                fits.append(spent < budget_s)
            else:  # the tolerance is for sums of rounded costs: 600 steps of 0.1 s fit 60 s
                fits.append(spent + expected <= budget_s * (1 + 1e-9))
        if any(fits) and not all(fits):
            self.deferred += [b.device for b, fit in zip(self.bills, fits, strict=True) if not fit]
            self.bills = [b for b, fit in zip(self.bills, fits, strict=True) if fit]
        return any(fits)

    @property
    def is_open(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._open is not None

    def begin(self, key: Key, recount: bool = False) -> None:
        """A step begins. It is counted if it is one of the first two of its key in the run (the
        second holds optimiser state) or the first in its window (a method's work may grow).
        """
        if self._open is not None:
            raise BenchError(f"step {key[0]!r} begins inside step {self._open[0]!r}: do not nest")
        self._open = key
        new_here = key not in self._counted_here
        if not self.measured and (recount or new_here or self._seen[key] < 2):
            self._counted_here.add(key)
            self._tracer = StepTracer(self._resident())
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
            for bill in self.bills:
                assert isinstance(bill, MeasuredBill)
                bill.charge(key, seconds)
                self._check(bill, key, seconds, budget_s)
        else:
            if self._tracer is not None:
                self.tracing_s += seconds
                self._take_trace(key, budget_s)
            trace = self._traces[key]
            self.flops += trace.flops
            self.bytes += trace.bytes
            self.launches += trace.launches
            for bill in self.bills:
                assert isinstance(bill, ModelledBill)
                bill.charge(key)
        self._require_somebody()

    def inference(self, samples: int, predict: Callable[[], Any]) -> Any:
        """Run ``predict`` once, counting or timing it as the price of inference."""
        if self.measured:
            start = time.perf_counter()
            out = predict()
            seconds = time.perf_counter() - start
            for bill in self.bills:
                assert isinstance(bill, MeasuredBill)
                bill.inference = Cost(seconds, bill.inference_energy(predict), 0.0)
                bill.inference_samples = samples
            return out
        with StepTracer(self._resident()) as tracer:
            out = predict()
        for bill in list(self.bills):
            assert isinstance(bill, ModelledBill)
            bill.inference = step_cost(tracer.trace, bill.profile)
            bill.inference_samples = samples
            self._hold(bill, bill.inference.peak_bytes, "inference")
        self._require_somebody()
        return out

    def close(self) -> None:
        """The window ends: leave no counting mode and no energy meter running, whatever happened
        inside a step.
        """
        for bill in self.bills:
            if isinstance(bill, MeasuredBill):
                bill.end_energy()
        if self._tracer is not None:
            self._tracer.__exit__(None, None, None)
            self._tracer = None
        self._open = None

    def finish(self) -> None:
        """The run ends: last look at memory."""
        self._account_growth()
        for bill in self.bills:
            if isinstance(bill, MeasuredBill):
                bill.read_memory()

    # -----------------------------------------------------------------------

    def _take_trace(self, key: Key, budget_s: float) -> None:
        assert self._tracer is not None
        self._tracer.__exit__(None, None, None)
        trace, self._tracer = self._tracer.trace, None
        self._traces[key] = trace
        self._growth[key] = trace.peak_bytes - trace.resident_bytes
        for bill in list(self.bills):
            assert isinstance(bill, ModelledBill)
            cost = bill.price(key, trace)
            if self._hold(bill, cost.peak_bytes, f"a {key[0]} step"):
                self._check(bill, key, cost.time_s, budget_s)

    def _account_growth(self) -> None:
        """What the method keeps may have grown since its steps were counted (replay memory)."""
        if self.measured or not self._growth:
            return
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes()
                 for t in live_tensors(self._resident())}  # fmt: skip
        peak = sum(sizes.values()) + max(self._growth.values())
        for bill in list(self.bills):
            self._hold(bill, peak, "adaptation")
        self._require_somebody()

    def _hold(self, bill: Bill, peak_bytes: float, what: str) -> bool:
        bill.peak_bytes = max(bill.peak_bytes, peak_bytes)
        total = peak_bytes + bill.runtime_bytes
        if total <= bill.memory_limit:
            return True
        self._leave(
            bill,
            DeviceOutOfMemory(
                f"{what} needs {total / 1e6:.1f} MB ({bill.runtime_bytes / 1e6:.1f} MB of them "
                f"runtime) on {bill.device}, which leaves {bill.memory_limit / 1e6:.1f} MB to "
                "applications; use a smaller batch or model"
            ),
        )
        return False

    def _check(self, bill: Bill, key: Key, seconds: float, budget_s: float) -> None:
        if seconds > budget_s:
            self._leave(
                bill,
                Unsupported(
                    f"one {key[0]} step takes {seconds:.3g} s on {bill.device}, longer than the "
                    f"whole window of {budget_s:.3g} s; lengthen window_s or use a smaller batch"
                ),
            )

    def _leave(self, bill: Bill, reason: BenchError) -> None:
        self.left[bill.device] = reason
        self.bills = [b for b in self.bills if b is not bill]

    def _require_somebody(self) -> None:
        if not self.bills:
            raise next(reversed(self.left.values()))


def _resident_now() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak_resident()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_resident() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
