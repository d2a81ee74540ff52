"""A clock set by hand, locks of one's own, and machines made of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.meters import base as lock_module
from bench.meters.base import DeviceLock
from bench.meters.power import Sampling


class FakeClock:
    """Seconds that pass in ``sleep`` alone; tickers fire on the way, each at its time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: dict[object, list[Any]] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due:
            task = min(self._due.values(), key=lambda t: t[0])
            if task[0] > until:
                break
            self.now = task[0]
            tick, began, times_s = task[1:]
            task[0] = began + next(times_s)
            tick()
        self.now = until

    def ticker(self, tick: Callable[[], None], times_s: Iterator[float]) -> Callable[[], None]:
        key = object()
        self._due[key] = [self.now + next(times_s), tick, self.now, times_s]
        return lambda: self._due.pop(key, None)

    @property
    def running(self) -> int:
        """Tickers that nobody stopped."""
        return len(self._due)


@pytest.fixture(autouse=True)
def _no_shared_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither wait for the machine's own measurements nor disturb them."""
    monkeypatch.setattr(lock_module, "FOLDER", tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sampling(clock: FakeClock) -> Sampling:
    """Eight samples a second, one in each eighth."""
    return Sampling(rate_hz=8.0, clock=clock, ticker=clock.ticker)


@pytest.fixture
def lock(tmp_path: Path) -> DeviceLock:
    return DeviceLock(folder=tmp_path, timeout_s=0.1)


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")
    return path


class Machine:
    """A root folder with the kernel's small files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def device_tree(self, compatible: tuple[str, ...] = (), model: str = "") -> None:
        folder = self.root / "proc/device-tree"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compatible").write_bytes(b"".join(c.encode() + b"\0" for c in compatible))
        (folder / "model").write_bytes(model.encode() + b"\0")

    def ina3221(self, address: str, *channels: tuple[str, int, int]) -> Path:
        """A sensor as L4T 34 and later show it; channels are (label, mV, mA)."""
        device = self.root / f"sys/devices/platform/i2c/{address}"
        link = self.root / f"sys/bus/i2c/drivers/ina3221/{address}"
        device.mkdir(parents=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(device)
        chip = link / f"hwmon/hwmon{address[-1]}"
        for n, (label, millivolts, milliamperes) in enumerate(channels, 1):
            write(chip / f"in{n}_label", label)
            write(chip / f"in{n}_input", millivolts)
            write(chip / f"curr{n}_input", milliamperes)
        write(chip / "in7_label", "sum of shunt voltages")
        write(chip / "in7_input", 760)
        write(chip / "curr4_input", 360)
        return chip

    def ina3221x(self, address: str, *channels: tuple[str, int]) -> Path:
        """A sensor as L4T 32 shows it; channels are (name, mW)."""
        chip = self.root / f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device{address[-1]}"
        for n, (name, milliwatts) in enumerate(channels):
            write(chip / f"rail_name_{n}", name)
            write(chip / f"in_power{n}_input", milliwatts)
        return chip

    def ina238(self, address: str, label: str, microwatts: int) -> Path:
        chip = self.root / f"sys/bus/i2c/drivers/ina238/{address}/hwmon/hwmon0"
        write(chip / "label", label)
        write(chip / "power1_input", microwatts)
        return chip

    def rapl(self, zone: str, name: str, microjoules: int, wraps_at: int = 262_143_328_850) -> Path:
        folder = self.root / "sys/class/powercap" / zone
        write(folder / "name", name)
        write(folder / "energy_uj", microjoules)
        write(folder / "max_energy_range_uj", wraps_at)
        return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let reading a file fail (tests may run as root, whom no permission stops)."""
    real = Path.read_bytes
    errors: dict[Path, OSError] = {}

    def read(path: Path) -> bytes:
        if path in errors:
            raise errors[path]
        return real(path)

    def add(path: Path, error: OSError) -> None:
        monkeypatch.setattr(Path, "read_bytes", read)
        errors[path] = error

    return add
