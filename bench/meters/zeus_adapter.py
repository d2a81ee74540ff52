"""Zeus (ml.energy) as a meter, for those who measure with it already; optional.

Its dependency ``amdsmi`` breaks ``import ray`` in the same environment. ``zeus-ml`` is an old name
of the package ``zeus``. Zeus's readings of Jetson boards are left out: it looks for the old driver
alone, takes every rail with "cpu" in its name for the CPU (VDD_CPU_GPU_CV too) and one with "_in"
for the total, and AGX boards have none; use `bench.meters.ina`.
"""

from __future__ import annotations

import importlib
from typing import Any

from bench.meters.base import DeviceLock, Energy, EnergyMeter, MeterError


class ZeusMeter(EnergyMeter):
    """Energy of the GPUs, processor packages and memory that Zeus can read, added.

    The caller waits for the GPU before a window begins and ends; Zeus does not. ``monitor``:
    a ZeusMonitor, for tests. Raises MeterError if Zeus is missing or finds nothing to read.
    """

    def __init__(
        self, *, monitor: Any = None, minimum_s: float = 1.0, lock: DeviceLock | None = None
    ) -> None:
        self._monitor = monitor or _monitor()
        parts = [f"GPU {i}" for i in self._monitor.gpu_indices]
        parts += [f"processor package {i}" for i in self._monitor.cpu_indices]
        if not parts:
            raise MeterError(
                "zeus finds neither a GPU nor a processor that it may read; run as root, or use "
                "another meter"
            )
        scope = " + ".join(parts) + (" with memory" if self._monitor.cpu_indices else "")
        super().__init__("Zeus", scope, minimum_s=minimum_s, lock=lock)

    def _start(self) -> None:
        self._call("begin_window")

    def _finish(self) -> Energy:
        result = self._call("end_window")
        domains = [result.gpu_energy, result.cpu_energy or {}, result.dram_energy or {}]
        joules = [float(j) for domain in domains for j in domain.values()]
        if result.time >= self.minimum_s and not sum(joules) > 0:
            raise MeterError(
                f"zeus gives {sum(joules):g} J for {result.time:.3g} s of {self.scope}; its "
                "counters do not move"
            )
        return Energy(sum(joules), float(result.time), 2, self.how)

    def _drop(self) -> None:
        self._call("end_window", cancel=True)

    def _call(self, name: str, **options: Any) -> Any:
        try:
            return getattr(self._monitor, name)("bench", sync_execution=False, **options)
        except Exception as error:  # Zeus and the libraries below it raise many kinds
            raise MeterError(f"zeus: {name} fails: {error}; use another meter") from error


def _monitor() -> Any:
    try:
        module = importlib.import_module("zeus.monitor")
    except ImportError as error:
        raise MeterError(
            f"package zeus cannot be imported ({error}); pip install zeus in an environment "
            "without ray"
        ) from error
    try:
        return module.ZeusMonitor()
    except Exception as error:
        raise MeterError(f"zeus cannot start: {error}; use another meter") from error
