"""Two energy measurements never overlap on one machine, in one process or in two."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bench.meters.base import DeviceLock, EnergyMeter, MeterError
from bench.meters.external import ExternalMeter
from bench.meters.ina import InaMeter
from bench.meters.nvml import NvmlMeter
from bench.meters.power import PowerMeter
from bench.meters.rapl import RaplMeter
from bench.meters.zeus_adapter import ZeusMeter

OTHER = """
import sys
from pathlib import Path
from bench.meters.base import DeviceLock
with DeviceLock(folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate("\n", timeout=60)


def test_another_process_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    told: list[str] = []
    lock = DeviceLock(folder=tmp_path, timeout_s=0.1, tell=told.append)
    with another_process(tmp_path), pytest.raises(MeterError) as caught:
        lock.acquire()
    assert told == [
        f"energy of this machine: another process is measuring it ({lock.path}); "
        "waiting for at most 0.1 s"
    ]
    assert str(caught.value) == (
        f"energy of this machine: another process has been measuring it for 0.1 s "
        f"({lock.path}); run again when it is done"
    )
    with lock:  # it has ended
        pass


def test_a_process_that_ends_lets_the_waiting_one_in(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert process.stdin is not None
        stdin = process.stdin

        def tell(message: str) -> None:
            stdin.write("\n")
            stdin.flush()

        with DeviceLock(folder=tmp_path, timeout_s=60, tell=tell):
            pass


def test_a_process_that_dies_gives_the_device_back(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait()
        with DeviceLock(folder=tmp_path, timeout_s=30):
            pass


def test_two_meters_exclude_each_other_at_once(tmp_path: Path, sampling: Any, clock: Any) -> None:
    first, second = (
        PowerMeter(
            name,
            "all",
            lambda: 5.0,
            ceiling_w=50,
            sampling=sampling,
            lock=DeviceLock(folder=tmp_path, timeout_s=0.1),
        )
        for name in ("one", "two")
    )
    first.begin()
    with pytest.raises(MeterError, match="this process measures it already with another meter"):
        second.begin()
    clock.sleep(2.0)
    assert first.end().joules == pytest.approx(10.0)
    second.begin()
    clock.sleep(2.0)
    assert second.end().joules == pytest.approx(10.0)


def test_its_holder_may_take_it_again(tmp_path: Path) -> None:
    lock, other = (DeviceLock(folder=tmp_path, timeout_s=0.1) for _ in range(2))
    with lock:
        with lock:
            pass
        with pytest.raises(MeterError):
            other.acquire()
    with other:
        pass


def test_it_lies_where_every_user_and_job_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the folder that tests have for themselves
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tempfile.gettempdir() == str(tmp_path)
    assert DeviceLock().path == Path("/tmp/edge-adaptation-bench-energy.lock")


def test_every_user_may_open_it(tmp_path: Path) -> None:
    lock = DeviceLock(folder=tmp_path)
    before = os.umask(0o077)
    try:
        with lock:
            assert stat.S_IMODE(lock.path.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_meters_of_every_kind_exclude_each_other(
    machine: Any, clock: Any, sampling: Any, tmp_path: Path
) -> None:
    machine.device_tree(("nvidia,p3768-0000+p3767-0003",), "NVIDIA Orin Nano Developer Kit")
    machine.ina3221("1-0040", ("VDD_IN", 5000, 1200))
    machine.rapl("intel-rapl:0", "package-0", 5)
    log = tmp_path / "log.csv"
    log.write_text("time_s,power_w\n" + "".join(f"{990 + t},5.0\n" for t in range(9)))
    nvml = Mock(NVMLError=OSError)
    nvml.nvmlDeviceGetCount.return_value = 2
    nvml.nvmlDeviceGetTotalEnergyConsumption.return_value = 5
    nvml.nvmlDeviceGetName.return_value = "model"
    nvml.nvmlDeviceGetUUID.side_effect = ["GPU-0", "GPU-1"]
    zeus = Mock(gpu_indices=[0], cpu_indices=[])
    meters: list[EnergyMeter] = [
        InaMeter(machine.root, sampling=sampling),
        RaplMeter(machine.root, clock=clock, ticker=clock.ticker),
        ExternalMeter(log, clock=clock, sleep=clock.sleep),
        NvmlMeter(0, nvml=nvml, clock=clock, ticker=clock.ticker),
        NvmlMeter(1, nvml=nvml, clock=clock, ticker=clock.ticker),
        ZeusMeter(monitor=zeus),
    ]
    assert {meter.alone().path for meter in meters} == {DeviceLock().path}
    for meter in meters:
        meter.begin()
        for other in meters:
            if other is not meter:
                with pytest.raises(MeterError, match="energy of this machine: this process"):
                    other.begin()
        meter.cancel()


def test_a_lock_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock = DeviceLock(folder=tmp_path / "file")
    with pytest.raises(MeterError, match=r"energy of this machine: lock file .* make it writable"):
        lock.acquire()
