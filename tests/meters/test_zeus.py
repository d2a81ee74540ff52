"""The adapter of Zeus, with a fake monitor; Zeus itself need not be there."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bench.meters.base import DeviceLock, MeterError
from bench.meters.zeus_adapter import ZeusMeter


class FakeMonitor:
    def __init__(self, gpu: dict[int, float], cpu: Any, dram: Any, seconds: float = 2.0) -> None:
        self.gpu_indices = list(gpu)
        self.cpu_indices = list(cpu or {})
        self._result = SimpleNamespace(
            time=seconds, gpu_energy=gpu, cpu_energy=cpu, dram_energy=dram, soc_energy={"cpu": 1e9}
        )
        self.calls: list[Any] = []

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        self.calls.append(("begin", key, sync_execution))

    def end_window(self, key: str, sync_execution: bool = True, cancel: bool = False) -> Any:
        self.calls.append(("end", key, sync_execution, cancel))
        return self._result


def test_gpus_processors_and_memory_are_added_and_boards_left_out(lock: Any) -> None:
    monitor = FakeMonitor({0: 100.0, 2: 20.0}, {0: 3.0}, {0: 0.5})
    meter = ZeusMeter(monitor=monitor, lock=lock)
    meter.begin()
    energy = meter.end()
    assert (energy.joules, energy.seconds) == (123.5, 2.0)
    assert energy.how == "Zeus (GPU 0 + GPU 2 + processor package 0 with memory)"
    assert monitor.calls == [("begin", "bench", False), ("end", "bench", False, False)]


def test_a_gpu_alone(lock: Any) -> None:
    meter = ZeusMeter(monitor=FakeMonitor({0: 100.0}, None, None), lock=lock)
    meter.begin()
    energy = meter.end()
    assert (energy.joules, energy.how) == (100.0, "Zeus (GPU 0)")


def test_a_cancelled_window_is_cancelled_there_too(lock: Any) -> None:
    monitor = FakeMonitor({0: 100.0}, None, None)
    meter = ZeusMeter(monitor=monitor, lock=lock)
    meter.begin()
    meter.cancel()
    assert monitor.calls[-1] == ("end", "bench", False, True)


def test_nothing_to_read() -> None:
    with pytest.raises(MeterError, match="zeus finds neither a GPU nor a processor"):
        ZeusMeter(monitor=FakeMonitor({}, None, None))


def test_zero_is_no_energy(lock: Any) -> None:
    meter = ZeusMeter(monitor=FakeMonitor({0: 0.0}, None, None), lock=lock)
    meter.begin()
    with pytest.raises(MeterError, match="zeus gives 0 J for 2 s of GPU 0"):
        meter.end()


def test_a_failure_below_becomes_a_reason(lock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = FakeMonitor({0: 1.0}, None, None)
    meter = ZeusMeter(monitor=monitor, lock=lock)
    monkeypatch.setattr(monitor, "begin_window", lambda *a, **k: 1 / 0)
    with pytest.raises(MeterError, match="zeus: begin_window fails: division by zero"):
        meter.begin()
    with DeviceLock(folder=lock.path.parent):  # it was given back
        pass


def test_zeus_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus.monitor", None)
    monkeypatch.setitem(sys.modules, "zeus", None)
    with pytest.raises(MeterError, match=r"package zeus cannot be imported .* without ray"):
        ZeusMeter()
