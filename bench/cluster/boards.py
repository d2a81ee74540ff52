"""The boards that a user has named: how each is reached."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from bench.costs.device_profile import load_device
from bench.errors import BenchError, did_you_mean
from bench.io.atomic_write import write_atomically

if TYPE_CHECKING:
    from bench.study.plan import Plan

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TARGET = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@:%\[\]-]*")
"""As ssh takes it: no option, and nothing that a shell reads."""
FOLDER = ".bench-board"


class Board(pydantic.BaseModel, extra="forbid", frozen=True):
    """A board that is reached by OpenSSH.

    Attributes
    ----------
    name : for ``--on``
    target : ``user@host``, or a host of ssh's configuration file
    python : the command of Python there, with this project's dependencies
    folder : where code, cached weights and the lock lie there; relative to the home folder
    ssh_config : a configuration file for ssh instead of the user's own
    """

    name: str
    target: str
    python: str = "python3"
    folder: str = FOLDER
    ssh_config: str | None = None


class _File(pydantic.BaseModel, extra="forbid"):
    boards: list[Board] = []


def boards_file() -> Path:
    """``$BENCH_BOARDS``, else ``boards.json`` in the user's configuration folder."""
    if named := os.environ.get("BENCH_BOARDS"):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "edge-adaptation-bench" / "boards.json"


def boards() -> list[Board]:
    """All, by name. BenchError if their file is not valid."""
    path = boards_file()
    try:
        found = _File.model_validate_json(path.read_bytes()).boards
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        told = f"boards in {path}: cannot be read ({why}); correct or remove it"
        raise BenchError(told) from error
    return sorted(found, key=lambda board: board.name)


def find_board(name: str) -> Board:
    """The board of this name; BenchError with those that there are."""
    known = {board.name: board for board in boards()}
    if name in known:
        return known[name]
    if not known:
        raise BenchError(f"board {name!r}: none is known; 'bench board add {name} USER@HOST'")
    raise BenchError(f"unknown board {name!r}: {did_you_mean(name, known)}")


def add_board(board: Board) -> None:
    """Keep a board; BenchError if its name is taken or a part of it is no such thing."""
    if not NAME.fullmatch(board.name):
        raise BenchError(f"board {board.name!r}: use small letters, numbers and dashes, as my-tx2")
    if not TARGET.fullmatch(board.target):
        raise BenchError(f"board {board.name}: {board.target!r} is no host; write user@host")
    if any(known.name == board.name for known in boards()):
        raise BenchError(f"board {board.name} exists: 'bench board remove {board.name}' first")
    _write([*boards(), board])


def remove_board(name: str) -> Board:
    """Forget a board; nothing on it changes."""
    board = find_board(name)
    _write([known for known in boards() if known != board])
    return board


def _write(kept: list[Board]) -> None:
    path = boards_file()
    try:
        content = _File(boards=kept).model_dump_json(indent=1, exclude_none=True)
        write_atomically(path, f"{content}\n".encode())
    except OSError as error:
        raise BenchError(f"boards in {path}: cannot be written: {error.strerror}") from error


def require_same_board(plan: Plan, board: str) -> None:
    """Raise BenchError if measured costs in the store come from another board than this one's.

    ``board``: its name, empty for this machine.
    """
    for record in plan.done.values():
        other = record.environment.get("board", "")
        if other != board and load_device(record.cell.device).cost == "measured":
            raise BenchError(
                f"the store has costs that were measured on {other or 'this machine'}, which "
                f"share no table with those of {board or 'this machine'}: name another --store"
            )
