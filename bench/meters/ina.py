"""NVIDIA's Jetson modules and their power sensors, INA3221 and INA238, read through sysfs.

The kernel presents them in three ways (I2C addresses and hwmon numbers differ from board to board,
so rails are found by name):

- INA3221 since L4T 34: ``/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/`` with ``in{N}_label``,
  ``in{N}_input`` (mV) and ``curr{N}_input`` (mA), N from 1 to 3; beyond lie sums of shunts.
  Linux, Documentation/hwmon/ina3221.rst.
- INA3221 up to L4T 32: ``/sys/bus/i2c/drivers/ina3221x/*/iio:device*/`` with ``rail_name_{N}`` and
  ``in_power{N}_input`` (mW), N from 0 to 2. L4T 32 development guide.
- INA238: ``/sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*/`` with ``label`` and ``power1_input`` (uW).
  Linux, Documentation/hwmon/ina238.rst; hwmon's common attribute ``label``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydantic

from bench.io.safe_yaml import read_yaml
from bench.meters.base import DeviceLock, MeterError, ReadFailed, read_number, read_text
from bench.meters.power import PowerMeter, Sampling
from bench.probe.sensors import named_rails

OFFSET_W = 1.0
"""How far below 0 one rail of several may read. An INA3221 is off by at most 80 uV (TI SBOS576),
which is 0.8 W over AGX Orin's 2 mOhm at 20 V; a rail that is switched off shows it."""


@pydantic.dataclasses.dataclass(frozen=True)
class Board:
    """A board's power rails, as ``boards.yaml`` describes them.

    Readings above 10 times ``budget_w``, the watts of the highest power mode, are refused.
    """

    name: str
    parts: tuple[str, ...]
    models: tuple[str, ...]
    total: tuple[str, ...]
    covers: str
    rails: Mapping[str, str]
    budget_w: float


@cache
def boards() -> tuple[Board, ...]:
    """The boards of the table, ``boards.yaml``, where each has its sources."""
    table = read_yaml(Path(__file__).with_name("boards.yaml"), "boards")
    return tuple(Board(name=name, **row) for name, row in table.items())


def recognise(root: Path = Path("/")) -> Board:
    """The board whose device tree lies under ``root``; MeterError if the table lacks it."""
    compatible, model = _property(root, "compatible"), _property(root, "model")
    if not compatible and not model:
        why = "names no board; this machine has no device tree, so it is no Jetson"
        raise MeterError(f"{root / 'proc/device-tree'} {why}")
    for board in boards():
        if any(part in compatible for part in board.parts):
            return board
    for board in boards():  # other makers' carrier boards may have renamed the module
        if any(text in model for text in board.models):
            return board
    known = ", ".join(board.name for board in boards())
    raise MeterError(
        f"board {model!r} ({compatible.replace(chr(0), ' ')}) has no rail table; known: {known}; "
        "add it to bench/meters/boards.yaml with a source"
    )


def _property(root: Path, name: str) -> str:
    try:
        return read_text(root / "proc/device-tree" / name)
    except ReadFailed:
        return ""


@dataclass(frozen=True)
class Rail:
    """A rail's sensor: watts are the product of its files, times ``scale``."""

    name: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float:
        """Power now. Raises ReadFailed or MeterError if it makes no sense."""
        value = self.scale
        for file in self.files:
            value *= read_number(file)
        if value < -OFFSET_W:
            raise MeterError(
                f"rail {self.name} reads {value:g} W ({self.files[-1]}); a rail takes no power "
                "back, so the sensor is wired the other way round or fails"
            )
        return value


def find_rails(root: Path = Path("/")) -> tuple[list[Rail], list[ReadFailed]]:
    """Every rail under ``root`` whose name can be read, and why the names of others cannot."""
    rails, failed = [], []
    for label, files, scale in named_rails(root):
        try:
            rails.append(Rail(read_text(label), files, scale))
        except ReadFailed as error:
            failed.append(error)
    return rails, failed


class InaMeter(PowerMeter):
    """A Jetson board's power: the sum of the rails that make its total.

    Parameters
    ----------
    root : where ``proc`` and ``sys`` lie
    board : its rail table; by default the one that the device tree names

    Raises MeterError if the board is unknown, or a rail is missing, unreadable or nonsensical.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        board: Board | None = None,
        sampling: Sampling | None = None,
        lock: DeviceLock | None = None,
    ) -> None:
        self.board = board or recognise(root)
        self.rails = _total(self.board, root)
        super().__init__(
            f"{self.board.name}'s power sensor",
            f"{self.board.covers}: {' + '.join(self.board.total)}",
            lambda: sum(rail.watts() for rail in self.rails),
            ceiling_w=10 * self.board.budget_w,
            sampling=sampling,
            lock=lock,
        )


def _total(board: Board, root: Path) -> list[Rail]:
    """The rails that make the board's total; each exactly once, or it would not be the total."""
    found, failed = find_rails(root)
    names = sorted(rail.name for rail in found)
    for name in board.total:
        if name not in names and failed:
            raise failed[0]
        if not names:
            raise MeterError(
                f"{board.name}: no INA3221 or INA238 with named rails under "
                f"{root / 'sys/bus/i2c/drivers'}; load its driver (it comes with L4T's kernel)"
            )
        if names.count(name) != 1:
            raise MeterError(
                f"{board.name}: {names.count(name)} rails are called {name}, of which its total "
                f"needs one; found {', '.join(names)}, expected {', '.join(board.rails)}; correct "
                "the rail table or the kernel's device tree"
            )
    return [rail for name in board.total for rail in found if rail.name == name]
