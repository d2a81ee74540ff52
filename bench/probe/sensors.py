"""Power sensors of boards, read through sysfs."""

import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

SAMPLE_EVERY_S = 0.1


def named_rails(root: Path) -> Iterator[Tuple[Path, Tuple[Path, ...], float]]:
    """Of INA3221 and INA238 under ``root``: the file of a rail's name, and those whose product
    times the last number is its watts. `bench.meters.ina` says which kernel has which.
    """
    drivers = root / "sys/bus/i2c/drivers"
    for label in sorted(drivers.glob("ina3221/*/hwmon/hwmon*/in[123]_label")):
        n = label.name[2]
        yield label, (label.with_name(f"in{n}_input"), label.with_name(f"curr{n}_input")), 1e-6
    for label in sorted(drivers.glob("ina3221x/*/iio:device*/rail_name_[012]")):
        yield label, (label.with_name(f"in_power{label.name[-1]}_input"),), 1e-3
    for label in sorted(drivers.glob("ina238/*/hwmon/hwmon*/label")):
        yield label, (label.with_name("power1_input"),), 1e-6


class PowerSensor(NamedTuple):
    """Rails whose sum is the power of what ``covers`` says."""

    covers: str
    rails: Tuple[Tuple[str, Tuple[Path, ...], float], ...]

    def watts(self) -> float:
        """Now. OSError or ValueError if a rail cannot be read."""
        total = 0.0
        for _, files, scale in self.rails:
            value = scale
            for file in files:
                value *= float(file.read_text())
            total += value
        return total

    def mean_watts(self, work: Callable[[], Any], seconds: float) -> float:
        """While ``work`` is repeated for so long, which another thread samples."""
        samples = []  # type: List[float]
        failed = []  # type: List[Exception]
        ended = threading.Event()

        def sample() -> None:
            try:
                while not ended.wait(SAMPLE_EVERY_S):
                    samples.append(self.watts())
            except (OSError, ValueError) as error:
                failed.append(error)

        thread = threading.Thread(target=sample)
        thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work()
        ended.set()
        thread.join()
        if failed or not samples:
            raise OSError(f"power cannot be read: {failed[0] if failed else 'no sample'}")
        return sum(samples) / len(samples)


def find_sensor(
    boards: Dict[str, Dict[str, Any]], wanted: List[str], root: Path
) -> Tuple[Optional[PowerSensor], str]:
    """The board's sensor, or None and why there is none.

    ``boards``: the rail tables by board; ``wanted``: rails that the user names instead, which may
    be other sensors of hwmon too.
    """
    rails = {}  # type: Dict[str, Tuple[Tuple[Path, ...], float]]
    for label, files, scale in named_rails(root):
        rails[_text(label)] = files, scale
    for power in sorted((root / "sys/class/hwmon").glob("hwmon*/power*_input")):
        name = f"{_text(power.with_name('name'))}.{power.name.split('_')[0]}"
        rails.setdefault(name, ((power,), 1e-6))
    known = ", ".join(rails) or "none"
    board = "" if wanted else _board(boards, root)
    if not wanted and not board:
        return None, f"the board is not in the rail tables; rails found: {known}; name --rails"
    names = wanted or boards[board]["total"]
    missing = [name for name in names if name not in rails]
    if missing:
        return None, f"no rail is called {', '.join(missing)}; rails found: {known}"
    covers = "rails that the user named" if wanted else f"{board}, {boards[board]['covers']}"
    return PowerSensor(covers, tuple((name,) + rails[name] for name in names)), ""


def _board(boards: Dict[str, Dict[str, Any]], root: Path) -> str:
    compatible = _text(root / "proc/device-tree/compatible")
    model = _text(root / "proc/device-tree/model")
    for name, board in boards.items():
        if any(part in compatible for part in board["parts"]):
            return name
    for name, board in boards.items():
        if any(text in model for text in board["models"]):
            return name
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip().strip("\0")
    except OSError:
        return ""
