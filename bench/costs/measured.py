"""Measured costs: the clock, the memory and the energy meter of the machine that runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.accelerator.choice import Kind
from bench.accelerator.facts import gpu_in_use, why_not_alone
from bench.accelerator.gpus import process_bytes
from bench.costs.device_profile import MeasuredDevice
from bench.costs.pricing import Cost
from bench.costs.tracker import (
    ChargedStep,
    CostTracker,
    DeviceCosts,
    Key,
    StepObserver,
    WindowCosts,
)
from bench.errors import BenchError
from bench.meters import process_memory
from bench.meters.base import EnergyMeter, MeterError, Unavailable


class MeasuredCosts(DeviceCosts):
    """Charges wall time and resident memory of this process, and the energy of this machine.

    Energy is all that the meter's scope used during a window, whatever else the machine did; a
    window without steps took none. Without a meter, or if it refuses a window (which may be too
    short for its sensor), energy is unavailable, with the reason.

    Where the run computes on a GPU, time is taken when the GPU has done its work, and memory is the
    GPU's: what torch has allocated, what it has reserved for that (``resident_bytes``), CUDA's
    context (``runtime_bytes``) and all that the driver counts for the process.
    """

    kind = "measured"
    runtime_unavailable = "inside the process's baseline"

    def __init__(
        self, device: MeasuredDevice, energy: EnergyMeter | Unavailable, accelerator: Kind = "cpu"
    ) -> None:
        super().__init__(device.name)
        self.accelerator = accelerator
        self.how = "wall clock; peak resident memory above the start of the run, with its data"
        if accelerator != "cpu":
            self.how = "wall clock, until the GPU is done; peak memory that torch has allocated"
            self.resident_note = "; reserved by torch's allocator"
            self.gpu = gpu_in_use()
        self.window.energy_j = None
        self._last: dict[Key, float] = {}
        self._baseline = 0
        try:
            self._baseline = process_memory.held_bytes(accelerator)
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
        """Charge one step; one that was ``cut_short`` does not say how long others take."""
        if not cut_short:
            self._last[key] = seconds
        self.window.time_s += seconds
        self.window.steps += 1

    def start(self) -> None:
        """Forget what was held offline: the peak counts from now, the baseline stays."""
        if self.accelerator != "cpu":
            process_memory.settle(self.accelerator)  # torch's cache would count as reserved
        try:
            process_memory.reset_peak(self.accelerator)
        except BenchError as error:
            self.memory_unavailable = str(error)

    def open_window(self) -> None:
        self.window = WindowCosts(energy_j=None)
        if self._energy is not None and not self.energy_unavailable:
            try:
                self._energy.begin()
                self._energy_open = True
            except MeterError as error:
                self.energy_unavailable = str(error)

    def close_window(self) -> None:
        """Read the window's energy; nothing where no window is open."""
        if self._energy is not None and self._energy_open:
            self._energy_open = False
            if self.window.steps == 0:
                self._energy.cancel()
                self.window.energy_j = 0.0
                return
            if self.accelerator != "cpu" and (shared := why_not_alone(self.gpu, ours=1)):
                self._energy.cancel()
                self.energy_unavailable = shared
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
            peak = process_memory.peak_bytes(self.accelerator) - self._baseline
            self.peak_bytes = max(self.peak_bytes, peak)
            self.resident_bytes = self.peak_bytes
        if self.accelerator != "cpu":
            held, self.resident_bytes = process_memory.reserved_bytes()
            self.process_bytes = whole = process_bytes(self.gpu.uuid) if self.gpu else None
            self.runtime_unavailable = "the driver does not say what the process takes"
            if whole is not None:
                self.runtime_bytes, self.runtime_unavailable = max(whole - held, 0), ""


class MeasuredTracker(CostTracker):
    """Times each step of a run that is for this machine alone: tracing would slow the steps."""

    def __init__(
        self,
        device: MeasuredDevice,
        energy: EnergyMeter | Unavailable,
        observers: Sequence[StepObserver] = (),
        accelerator: Kind = "cpu",
    ) -> None:
        self._device = MeasuredCosts(device, energy, accelerator)
        super().__init__([self._device], observers)

    def start(self) -> None:
        self._device.start()

    def mark_unavailable(self, energy: str = "", memory: str = "") -> None:
        self._device.energy_unavailable = self._device.energy_unavailable or energy
        self._device.memory_unavailable = self._device.memory_unavailable or memory

    def inference(self, samples: int, predict: Callable[[], Any]) -> Any:
        def whole() -> Any:
            out = predict()
            self._wait()
            return out

        self._wait()
        start = time.perf_counter()
        out = whole()
        seconds = time.perf_counter() - start
        self._device.inference = Cost(seconds, self._device.inference_energy(whole), 0.0)
        self._device.inference_samples = samples
        return out

    def close(self) -> None:
        self._device.close_window()
        super().close()

    def finish(self) -> None:
        self._device.read_memory()

    def _begin(self, key: Key, recount: bool) -> None:
        self._wait()

    def _wait(self) -> None:
        if self._device.accelerator != "cpu":
            process_memory.synchronize()

    def _charge(self, key: Key, wall_s: float, budget_s: float, cut_short: bool) -> ChargedStep:
        self._device.charge(key, wall_s, cut_short)
        self._require_window(self._device, key[0], wall_s, budget_s)
        return ChargedStep(key[0], {self._device.name: wall_s})
