"""Boards with power sensors of their own: a table, and which of them this machine is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.io.safe_yaml import read_yaml
from bench.meters.errors import MeterError, ReadFailed
from bench.meters.sysfs import read_text


@dataclass(frozen=True)
class Board:
    """A board's power rails.

    Attributes
    ----------
    parts : module numbers in the device tree's ``compatible``
    models : what the device tree's ``model`` may contain instead
    total : rails that overlap nowhere; their sum is the board's power
    covers : what that sum is the power of
    rails : every rail of the module's own sensors, with what it feeds
    budget_w : watts of the highest power mode; readings above 10 times this are nonsense
    """

    name: str
    parts: tuple[str, ...]
    models: tuple[str, ...]
    total: tuple[str, ...]
    covers: str
    rails: Mapping[str, str]
    budget_w: float


FILE = Path(__file__).with_name("boards.yaml")


@cache
def boards() -> tuple[Board, ...]:
    """The boards of the table, ``boards.yaml``, where each has its sources."""
    return tuple(
        Board(
            name=name,
            parts=tuple(row["parts"]),
            models=tuple(row["models"]),
            total=tuple(row["total"]),
            covers=row["covers"],
            rails=row["rails"],
            budget_w=row["budget_w"],
        )
        for name, row in read_yaml(FILE, "boards").items()
    )


def recognise(root: Path = Path("/")) -> Board:
    """The board whose device tree lies under ``root``.

    Raises MeterError if it is none of those in the table.
    """
    compatible, model = _property(root, "compatible"), _property(root, "model")
    if not compatible and not model:
        raise MeterError(
            f"{root / 'proc/device-tree'} names no board; this machine has no device tree, so it "
            "is no Jetson"
        )
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
