"""Modelled costs: each step is traced once and priced for every device of the run."""

from __future__ import annotations

import math
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from bench.costs.declared_work import DeclaredWork
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import Cost, MemoryFootprint, StepPrices
from bench.costs.repeated_work import RepeatedWork
from bench.costs.step_tracer import DECLARED, Log, StepTrace, StepTracer
from bench.costs.tracker import ChargedStep, CostTracker, DeviceCosts, Key, StepObserver
from bench.costs.unseen_work import UnseenWork
from bench.errors import BenchError, DeviceOutOfMemory
from bench.operators.live_memory import live_bytes


class ModelledCosts(DeviceCosts):
    """Charges what the device's profile says of a traced step."""

    kind = "modelled"
    resident_note = "; memory that the process takes"

    def __init__(self, device: ModelledDevice) -> None:
        super().__init__(device.name)
        self.profile = device
        self.how = f"profile {device.name} x counted step"
        self.profile_error = device.error
        self.runtime_bytes: float = device.runtime_memory.value
        self.energy_unavailable = self.inference_energy_unavailable = device.energy_unavailable
        self._costs: dict[Key, Cost] = {}
        self._prices = StepPrices(device)

    @property
    def memory_limit(self) -> float:
        """Bytes that an application may take on this device, its runtime included."""
        return self.profile.memory_for_applications.value

    def cost(self, trace: StepTrace) -> Cost:
        """What a counted step costs."""
        return self._prices.cost(trace)

    def price(self, key: Key, cost: Cost) -> None:
        """Set the price of steps of this key."""
        self._costs[key] = cost

    def expected_s(self, key: Key) -> float | None:
        return self._costs[key].time_s if key in self._costs else None

    def update_peak(self, footprint: MemoryFootprint) -> float:
        """Bring the peaks up to date; bytes that must fit the device, the runtime's included."""
        self.peak_bytes = max(self.peak_bytes, footprint.live_bytes)
        if (resident := footprint.resident_bytes(self.profile)) is not None:
            self.resident_bytes = max(self.resident_bytes or 0.0, resident)
        return footprint.needed_bytes(self.profile) + self.runtime_bytes

    def charge(self, key: Key) -> float:
        """Charge one step of a priced key; its seconds."""
        cost = self._costs[key]
        self.window.time_s += cost.time_s
        assert self.window.energy_j is not None
        self.window.energy_j += cost.energy_j
        self.window.steps += 1
        return cost.time_s


class TracePolicy:
    """The first two steps of the run and the first of each window are traced, of each key.

    The second of a window too, if the first left something in memory, as an optimizer's state.
    """

    def __init__(self) -> None:
        self._steps: Counter[Key] = Counter()
        self._traced_in_window: set[Key] = set()
        self._settled: set[Key] = set()

    def open_window(self) -> None:
        """A window opens."""
        self._traced_in_window.clear()
        self._settled.clear()

    def wants(self, key: Key) -> bool:
        """Whether the next step of this key is traced."""
        return key not in self._settled or self._steps[key] < 2

    def step_ended(self, key: Key) -> None:
        """A step ended, traced or not."""
        self._steps[key] += 1

    def step_traced(self, key: Key, grew: bool) -> None:
        """A step was traced; ``grew``: it left more in memory than it found."""
        if not grew or key in self._traced_in_window:
            self._settled.add(key)
        self._traced_in_window.add(key)


class ModelledTracker(CostTracker):
    """Charges steps by traces (see `TracePolicy`); ``resident`` gives what the method keeps."""

    devices: Sequence[ModelledCosts]
    flops: float
    bytes: float
    launches: float

    def __init__(
        self,
        devices: Sequence[ModelledDevice],
        resident: Callable[[], Any],
        observers: Sequence[StepObserver] = (),
    ) -> None:
        super().__init__([ModelledCosts(device) for device in devices], observers)
        self.flops = self.bytes = self.launches = 0.0
        self._resident = resident
        self._policy = TracePolicy()
        self._traces: dict[Key, StepTrace] = {}
        self._footprints: dict[Key, MemoryFootprint] = {}
        self._double_buffer_bytes: int | None = None
        self._prediction_bytes = 0.0
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._tracer: StepTracer | None = None
        self._repeated: RepeatedWork | None = None
        self._unseen = UnseenWork()
        self._declared: dict[Key, DeclaredWork] = defaultdict(DeclaredWork)
        self._sizes: list[int] = []
        self._before: Log | None = None

    def open_window(self) -> None:
        self._account_growth()
        self._policy.open_window()
        self._unseen.open_window()
        super().open_window()

    def inference(self, samples: int, predict: Callable[[], Any]) -> Any:
        with StepTracer(self._kept_between_steps()) as tracer:
            self._unseen.begin()
            out = predict()
        self._require_operators("a prediction", tracer.trace)
        self._unseen.end("prediction", tracer.trace, traced=True)
        self.uncounted |= tracer.trace.uncounted
        footprint = MemoryFootprint.of(tracer.trace)
        self._prediction_bytes = footprint.step
        for observer in self._observers:
            observer.on_inference(tracer.trace)
        self._notify_memory(footprint)
        for device in list(self.devices):
            cost = self._cost(device, tracer.trace, "an inference")
            if cost is None:
                continue
            device.inference, device.inference_samples = cost, samples
            self._require_memory(device, footprint, "inference")
        self._require_devices()
        return out

    def declare(self, size: int) -> None:
        if self._open is None:
            raise BenchError(
                "a size is declared outside a step: declare it inside, before its work"
            )
        self._sizes.append(size)
        if self._tracer is not None:
            self._tracer.mark(DECLARED)
            return
        known = self._declared[self._open]
        if self._recounts and not known.goes_on(tuple(self._sizes)):
            # Not what was counted before: the rest of the step is counted.
            self._before = known.log_until(tuple(self._sizes))
            above = self._before[-1][1][2]
            self._tracer = StepTracer(self._kept_between_steps(), max(above, 1))
            self._tracer.__enter__()

    def repeated(self, key: Hashable) -> AbstractContextManager[None]:
        return nullcontext() if self._repeated is None else self._repeated.once(key)

    def add_double_buffer(self, size: int) -> None:
        self._double_buffer_bytes = max(self._double_buffer_bytes or 0, size)

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.__exit__(None, None, None)
            self._tracer = None
        super().close()

    def finish(self) -> None:
        self._account_growth()
        self.uncounted |= self._unseen.marks()

    # -----------------------------------------------------------------------

    def _begin(self, key: Key, recount: bool) -> None:
        self._recounts, self._sizes, self._before, self._repeated = recount, [], None, None
        wanted = self._policy.wants(key)
        if wanted or (recount and not self._declared[key].is_known(self._optimizer_state())):
            self._tracer = StepTracer(self._kept_between_steps())
            self._repeated = RepeatedWork(self._tracer)
            self._tracer.__enter__()
        self._unseen.begin()

    def _charge(self, key: Key, wall_s: float, budget_s: float, cut_short: bool) -> ChargedStep:
        kind, tracer, self._tracer = key[0], self._tracer, None
        if tracer is not None:
            tracer.__exit__(None, None, None)
        trace = self._trace_of(key, tracer, cut_short)
        counted = tracer is not None and self._before is None
        self._unseen.end(kind, trace, tracer is not None)
        if tracer is not None:
            self.tracing_s += tracer.trace.counting_s
            if self._over_batch and not cut_short:
                self._require_operators(f"a step of kind {kind!r}", trace)
        if cut_short and (counted or self._sizes):
            key = (f"{kind} (cut short)", object())
        self._policy.step_ended(key)
        if counted or (self._sizes and trace is not self._traces.get(key)):
            self._take_trace(key, trace, tracer, budget_s)
        self.uncounted |= trace.uncounted
        self.flops += trace.flops
        self.bytes += trace.bytes
        self.launches += trace.launches
        seconds = {device.name: device.charge(key) for device in self.devices}
        return ChargedStep(kind, seconds, trace if counted or self._sizes else None)

    def _trace_of(self, key: Key, tracer: StepTracer | None, cut_short: bool) -> StepTrace:
        """The trace of the step that ended: counted, in part, or known by what it declared."""
        sizes = tuple(self._sizes)
        known = self._declared[key] if self._recounts else None
        if tracer is not None and self._before is None:
            if known is not None and sizes and not cut_short:
                known.learn(sizes, tracer.log, tracer.trace, self._optimizer_state())
            return tracer.trace
        if known is None:
            return self._traces[key]
        if tracer is not None and self._before is not None:
            log = self._before + tracer.log
            known.miss(sizes)
            return known.trace(log, tracer.trace)
        found = known.step(sizes)
        if found is None and cut_short:
            return self._traces[key]
        if found is None:
            raise BenchError(
                f"a {key[0]} step declared {len(sizes)} sizes, and others of its kind more: in "
                "every step of a kind declare the same sizes in the same order, up to the first 0"
            )
        return found

    def _optimizer_state(self) -> Any:
        """What the calls of an optimizer depend on: for how many parameters it has state."""
        return sorted(len(optimizer.state) for optimizer in self._optimizers)

    def _take_trace(
        self, key: Key, trace: StepTrace, tracer: StepTracer | None, budget_s: float
    ) -> None:
        """Let the trace of the step that ended set the price of its key."""
        if tracer is not None:
            self._optimizers |= tracer.optimizers
        self._traces[key] = trace
        footprint = MemoryFootprint.of(trace)
        # What the step left in memory, as an optimizer's state, is no growth of later steps.
        growth = 0.0 if tracer is None else max(self._stored_bytes() - footprint.stored, 0)
        self._footprints[key] = replace(footprint, step=max(footprint.step - growth, 0))
        self._policy.step_traced(key, growth > 0)
        self._notify_memory(footprint)
        for device in list(self.devices):
            cost = self._cost(device, trace, f"a {key[0]} step")
            if cost is None:
                continue
            device.price(key, cost)
            if self._require_memory(device, footprint, f"a {key[0]} step"):
                self._require_window(device, key[0], cost.time_s, budget_s)

    def _cost(self, device: ModelledCosts, trace: StepTrace, what: str) -> Cost | None:
        """The price of a trace; a device whose numbers give none is dropped: the others go on."""
        try:
            cost = device.cost(trace)
            if not (math.isfinite(cost.time_s) and math.isfinite(cost.energy_j)):
                raise ArithmeticError(f"it takes {cost.time_s:g} s and {cost.energy_j:g} J")
        except (ArithmeticError, ValueError, LookupError) as error:
            reason = f"{what} has no price on {device.name}: {error}; check the device's profile"
            self._drop(device, BenchError(reason))
            return None
        return cost

    def _require_operators(self, what: str, trace: StepTrace) -> None:
        """BenchError where nothing was counted: what was done there has no price."""
        if not trace.operations:
            raise BenchError(
                f"{what} runs no operator of torch in the method's thread, so that its cost is "
                "not known: compute with torch inside the step, or take none"
            )

    def _kept_between_steps(self) -> Any:
        """What the method says that it keeps, and optimizers in its local variables."""
        return [self._resident(), list(self._optimizers)]

    def _stored_bytes(self) -> int:
        """Bytes in memory now, between steps."""
        return live_bytes(self._kept_between_steps())

    def _account_growth(self) -> None:
        """What the method keeps may have grown since its steps were traced (replay memory)."""
        if not self._footprints:
            return
        stored = self._stored_bytes() + (self._double_buffer_bytes or 0)
        predicting = 0.0 if self._double_buffer_bytes is None else self._prediction_bytes
        grown = {
            replace(footprint, stored=stored, step=footprint.step + predicting)
            for footprint in self._footprints.values()
        }
        for footprint in grown:
            self._notify_memory(footprint)
        for device in list(self.devices):
            needed = partial(MemoryFootprint.needed_bytes, device=device.profile)
            largest_first = sorted(grown, key=needed, reverse=True)
            all(self._require_memory(device, each, "adaptation") for each in largest_first)
        self._require_devices()

    def _notify_memory(self, footprint: MemoryFootprint) -> None:
        for observer in self._observers:
            observer.on_memory(footprint)

    def _require_memory(self, device: ModelledCosts, footprint: MemoryFootprint, what: str) -> bool:
        """Whether so much fits a device; it is dropped if not."""
        total = device.update_peak(footprint)
        if total <= device.memory_limit:
            return True
        reason = (
            f"{what} needs {total / 1e6:.1f} MB ({device.runtime_bytes / 1e6:.1f} MB of them "
            f"runtime) on {device.name}, which leaves {device.memory_limit / 1e6:.1f} MB to "
            "applications; use a smaller batch or model"
        )
        self._drop(device, DeviceOutOfMemory(reason))
        return False
