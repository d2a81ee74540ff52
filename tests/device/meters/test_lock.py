"""Two energy measurements never overlap on one device, in one process or in two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.device.meters.errors import MeterError
from bench.device.meters.lock import DeviceLock
from bench.device.meters.power import PowerMeter

OTHER = """
import sys
from pathlib import Path
from bench.device.meters.lock import DeviceLock
with DeviceLock(sys.argv[1], folder=Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(device: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the device until a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, device, str(folder)],
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
    lock = DeviceLock("board", folder=tmp_path, timeout_s=0.1, tell=told.append)
    with another_process("board", tmp_path):
        with pytest.raises(MeterError) as caught:
            lock.acquire()
        with DeviceLock("another board", folder=tmp_path):
            pass
    assert told == [
        f"energy of board: another process is measuring it ({lock.path}); waiting for at most 0.1 s"
    ]
    assert str(caught.value) == (
        f"energy of board: another process has been measuring it for 0.1 s ({lock.path}); run "
        "again when it is done"
    )
    with lock:  # it has ended
        pass


def test_a_process_that_ends_lets_the_waiting_one_in(tmp_path: Path) -> None:
    with another_process("board", tmp_path) as process:
        assert process.stdin is not None
        stdin = process.stdin

        def tell(message: str) -> None:
            stdin.write("\n")
            stdin.flush()

        with DeviceLock("board", folder=tmp_path, timeout_s=60, tell=tell):
            pass


def test_a_process_that_dies_gives_the_device_back(tmp_path: Path) -> None:
    with another_process("board", tmp_path) as process:
        process.kill()
        process.wait()
        with DeviceLock("board", folder=tmp_path, timeout_s=30):
            pass


def test_two_meters_of_one_device_exclude_each_other_at_once(
    tmp_path: Path, sampling: Any, clock: Any
) -> None:
    first, second = (
        PowerMeter(
            name,
            "all",
            lambda: 5.0,
            ceiling_w=50,
            sampling=sampling,
            lock=DeviceLock("board", folder=tmp_path, timeout_s=0.1),
        )
        for name in ("one", "two")
    )
    first.begin()
    with pytest.raises(MeterError, match="this process measures it already with another meter"):
        second.begin()
    clock.sleep(2.0)
    assert first.end().joules == 10.0
    second.begin()
    clock.sleep(2.0)
    assert second.end().joules == 10.0


def test_its_holder_may_take_it_again(tmp_path: Path) -> None:
    lock, other = (DeviceLock("board", folder=tmp_path, timeout_s=0.1) for _ in range(2))
    with lock:
        with lock:
            pass
        with pytest.raises(MeterError):
            other.acquire()
    with other:
        pass


def test_the_device_names_the_file(tmp_path: Path) -> None:
    lock = DeviceLock("GPU/0 ../x", folder=tmp_path)
    assert lock.path == tmp_path / "edge-adaptation-bench-GPU-0-..-x.lock"


def test_a_lock_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock = DeviceLock("board", folder=tmp_path / "file")
    with pytest.raises(MeterError, match=r"energy of board: lock file .* make it writable"):
        lock.acquire()
