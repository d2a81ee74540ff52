"""Which command runs which cell: commands on one store share the work instead of doing it twice.

A claim is a file ``STORE/claims/IDENTITY.json`` that exists while a command runs the cell. It says
who runs it and is touched again and again. It expires when its process is gone, where that can be
seen (the same machine), or when nobody has touched it for `EXPIRES_S`: then another command takes
it over. The claim of a cell that stands in a batch system's queue has a ticket there: as long as
the queue knows the ticket the claim holds, whatever became of the command that submitted it, and
where the queue cannot be asked its touches count. A claim decides about work alone; which record
stands is up to the store.

Clocks of machines differ: how long a claim is untouched is what the looking machine's own clock
says since it saw the time of the last touch change.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
import pydantic

from bench import registry
from bench.errors import BenchError
from bench.io.atomic_write import STALE_S, write_atomically
from bench.records.cell import Cell
from bench.records.store import Store

TOUCH_S = 10.0
"""Seconds between two touches of a claim."""
EXPIRES_S = 120.0
"""Seconds without a touch after which a claim has lost its command, wherever that runs."""
CLOCK_S = 1.0 if sys.platform == "linux" else 60.0
"""By how much two looks at when a process began may differ, if the clock was set between them.

Linux counts that time from the machine's start, and no clock matters.
"""


class Claim(pydantic.BaseModel, extra="forbid", frozen=True):
    """Who runs a cell.

    ``token``: of the command; ``machine``: its process ids are known there; ``began``: when its
    process ``pid`` began, in seconds since the machine's start (on Linux) or since 1970; ``title``
    of the cell. ``state``: ``queued`` until the task of a queue begins with the cell; ``ticket``:
    what that task is called, as ``EXECUTOR:NAME``. ``since``: when the state began, in seconds
    since 1970 by that machine's clock; 0 in claims from before it was told.
    """

    token: str
    machine: str
    host: str
    pid: int
    began: float
    title: str
    state: Literal["queued", "running"] = "running"
    ticket: str = ""
    since: float = 0.0

    @property
    def process_is_gone(self) -> bool:
        """Whether its process has ended; False where that cannot be seen."""
        return self.machine == _machine() and abs(_began(self.pid) - self.began) > CLOCK_S

    @property
    def is_lost(self) -> bool | None:
        """Whether nobody will run the cell under it; None if its touches must tell.

        A process that has ended says it, then the queue. A ticket that a queue does not know may
        be one that is being submitted, by a process that touches the claim.
        """
        if self.state == "running" and self.process_is_gone:
            return True
        known = queue_knows(self.ticket) if self.ticket else None
        if known or (known is False and self.state == "running"):
            return not known
        gone = self.process_is_gone and (known is False or not self.ticket)
        return True if gone else None


def queue_knows(ticket: str) -> bool | None:
    """Whether a task still waits or runs in its queue; None if that cannot be asked here."""
    name, _, rest = ticket.partition(":")
    if name not in registry.entries("executor"):
        return None
    known: bool | None = registry.load("executor", name).knows(rest)
    return known


class Claims:
    """The claims of one command on a ``store``. Close it, or use it as a context manager.

    ``token``: of the command whose claims they are; a task of a queue has that of the command
    which submitted it, and its own ``ticket``, and takes over what was handed over to it alone.
    """

    def __init__(self, store: Store, token: str = "", ticket: str = "") -> None:
        self.store = store
        self.token = token or uuid.uuid4().hex
        self._ticket = ticket
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[int, float]] = {}
        self._closed = threading.Event()
        self._toucher: threading.Thread | None = None

    def take(self, cells: Iterable[Cell]) -> list[Cell]:
        """Claim cells; those that no other command holds. Raises BenchError if impossible."""
        try:
            with self.store.locked():
                folder(self.store).mkdir(exist_ok=True)
                return [cell for cell in cells if self._take(cell)]
        except OSError as error:
            raise self._unwritable(error) from error

    def hand_over(self, work: Iterable[tuple[str, Sequence[Cell]]]) -> None:
        """Leave cells to tasks that a queue is about to be given, by ticket.

        They stay held: this command touches them, and may `release` them. Raises BenchError if
        impossible.
        """
        try:
            with self.store.locked():
                for ticket, cells in work:
                    for cell in filter(lambda c: self._is_mine(self._path(c)), cells):
                        self._write(cell, "queued", ticket)
        except OSError as error:
            raise self._unwritable(error) from error

    def release(self, cells: Iterable[Cell]) -> None:
        """Give cells back, whoever runs them next; nothing if they are not held."""
        self._release([self._path(cell) for cell in cells])

    def close(self) -> None:
        """Give all back."""
        self._closed.set()
        if self._toucher is not None:
            self._toucher.join()
        self._release(list(self._held))

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, cell: Cell) -> Path:
        return folder(self.store) / f"{cell.identity}.json"

    def _unwritable(self, error: OSError) -> BenchError:
        return BenchError(
            f"claims in {folder(self.store)}: cannot be written: {error.strerror or error}; "
            "free space or choose another --store"
        )

    def _take(self, cell: Cell) -> bool:
        path = self._path(cell)
        claim = read_claim(path)
        mine = claim is not None and claim.token == self.token
        if self._ticket and (not mine or claim is None or claim.ticket != self._ticket):
            return False  # given to others since: a late task begins nothing
        if not mine and os.path.lexists(path) and not self._expired(path, claim):
            return False
        if not mine:
            path.unlink(missing_ok=True)
            with path.open("x") as stream:
                stream.write(new_claim(self.token, cell.title).model_dump_json())
        elif self._ticket and claim is not None and claim.state == "queued":
            self._write(cell, "running", self._ticket)
        self._held.add(path)
        if self._toucher is None:
            self._toucher = threading.Thread(target=self._touch, daemon=True, name="claims")
            self._toucher.start()
        return True

    def _write(self, cell: Cell, state: Literal["queued", "running"], ticket: str) -> None:
        claim = new_claim(self.token, cell.title)
        claim = claim.model_copy(update={"state": state, "ticket": ticket})
        write_atomically(self._path(cell), claim.model_dump_json().encode())

    def _expired(self, path: Path, claim: Claim | None) -> bool:
        """By this machine's clock alone, since clocks of machines that share a folder differ."""
        lost = None if claim is None else claim.is_lost
        if lost is not None:
            return lost
        touched = path.lstat().st_mtime_ns
        before, since = self._seen.get(path, (None, 0.0))
        if before != touched:
            self._seen[path] = touched, time.monotonic()
            return False
        return time.monotonic() - since > EXPIRES_S

    def _touch(self) -> None:
        while not self._closed.wait(TOUCH_S):
            for path in list(self._held):
                if self._is_mine(path):
                    with suppress(OSError):
                        os.utime(path)

    def _is_mine(self, path: Path) -> bool:
        claim = read_claim(path)
        return claim is not None and claim.token == self.token

    def _release(self, paths: Iterable[Path]) -> None:
        held = self._held.intersection(paths)
        self._held -= held
        with suppress(OSError):  # what stays expires
            if held and folder(self.store).is_dir():
                with self.store.locked():
                    for path in filter(self._is_mine, held):
                        path.unlink()


def folder(store: Store) -> Path:
    """Where a store's claims stand."""
    return store.root / "claims"


def seen_claims(store: Store) -> Iterator[tuple[str, Claim, str, float]]:
    """All claims by their cells' identities: with each ``queued``, ``running`` or ``lost``, and
    seconds since its last touch.

    The seconds are by this machine's clock, and another one's may have set the time of the touch:
    one look cannot tell that a claim has expired, so that only what is known is ``lost``.
    """
    for path in sorted(folder(store).glob("*.json")):
        with suppress(OSError):
            touched = path.stat().st_mtime
            if claim := read_claim(path):
                state = "lost" if claim.is_lost else claim.state
                yield path.stem, claim, state, time.time() - touched


def remove_dead_claims(store: Store) -> None:
    """Remove claims whose command has ended without giving them back, as far as that is known."""
    if not folder(store).is_dir():
        return
    with suppress(OSError), store.locked():
        for path in folder(store).glob("*.json"):
            claim = read_claim(path)
            lost = None if claim is None else claim.is_lost
            old = time.time() - path.lstat().st_mtime > STALE_S  # clocks differ by less
            if lost or (lost is None and old):
                path.unlink()


def read_claim(path: Path) -> Claim | None:
    """The claim in a file, or None."""
    try:
        if path.is_file() and path.stat().st_size < 2**16:
            return Claim.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        pass
    return None


def process_name() -> str:
    """Names this process among those of all machines, for `process_lives`."""
    machine = hashlib.sha256(_machine().encode()).hexdigest()[:8]
    return f"{machine}-{os.getpid()}-{_began(os.getpid())}"


def process_lives(name: str) -> bool | None:
    """Whether a process of that `process_name` is there; None if it is another machine's."""
    machine, pid, began = [*name.split("-"), "", ""][:3]
    if machine != process_name().partition("-")[0] or not pid.isdecimal():
        return None
    return abs(_began(int(pid)) - float(began or "inf")) <= CLOCK_S


def new_claim(token: str, title: str) -> Claim:
    """Of this process, from now on."""
    pid = os.getpid()
    return Claim(
        token=token,
        machine=_machine(),
        host=socket.gethostname(),
        pid=pid,
        began=_began(pid),
        title=title,
        since=time.time(),
    )


def _began(pid: int) -> float:
    """When a process began, minus infinity if there is none or it has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return -math.inf
        with suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            ticks = int(stat.rpartition(")")[2].split()[19])  # proc(5): starttime, field 22
            return ticks / os.sysconf("SC_CLK_TCK")
        return process.create_time()
    except psutil.Error:
        return -math.inf


@cache
def _machine() -> str:
    """Names this system with its table of processes: containers may share a host's name."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {uuid.getnode():x}"
