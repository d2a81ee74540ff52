"""What commands on a store are to run, for those who look at the store while it is not all claimed.

A file ``STORE/commands/TOKEN.json`` exists while a command works on its cells. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pydantic

from bench.execute.claims import Claim, new_claim
from bench.io.atomic_write import write_atomically
from bench.records.cell import Cell
from bench.records.store import Store

FOLDER = "commands"


class Command(pydantic.BaseModel, extra="forbid", frozen=True):
    """A command: ``who`` it is, and the titles of its ``cells`` by their identities."""

    who: Claim
    cells: dict[str, str]


class Announcement:
    """The file of one command; without effect where it cannot be written."""

    def __init__(self, store: Store, token: str) -> None:
        self._path = store.root / FOLDER / f"{token}.json"
        self._who, self._cells = new_claim(token, "a command"), dict[str, str]()

    def add(self, cells: Iterable[Cell]) -> None:
        """Tell of further cells."""
        self._cells |= {cell.identity: cell.title for cell in cells}
        content = Command(who=self._who, cells=self._cells).model_dump_json().encode()
        with suppress(OSError):
            write_atomically(self._path, content)

    def close(self) -> None:
        """The command is over."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def remove_ended(store: Store) -> None:
    """Remove the files of commands that were killed on this machine."""
    for path in (store.root / FOLDER).glob("*.json"):
        with suppress(OSError, ValueError):
            if Command.model_validate_json(path.read_bytes()).who.process_is_gone:
                path.unlink()
