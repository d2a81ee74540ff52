"""Which command runs which cell: commands on one store share the work instead of doing it twice.

A claim is a file ``STORE/claims/IDENTITY.json`` that exists while a command runs the cell. It says
who runs it and is touched again and again. It expires when its process is gone, where that can be
seen (the same machine), or when nobody has touched it for `EXPIRES_S`: then another command takes
it over. A claim decides about work alone; which record stands is up to the store.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import pydantic

from bench.errors import BenchError
from bench.io.atomic_write import STALE_S
from bench.records.cell import Cell
from bench.records.store import Store

TOUCH_S = 10.0
"""Seconds between two touches of a claim."""
EXPIRES_S = 120.0
"""Seconds without a touch after which a claim has lost its command, wherever that runs."""
CLOCK_S = 60.0
"""By how much two looks at when a process began may differ, if the clock was set between them."""


class Claim(pydantic.BaseModel, extra="forbid", frozen=True):
    """Who runs a cell.

    ``token``: of the command; ``machine``: its process ids are known there; ``began``: when its
    process ``pid`` began, in seconds since 1970; ``title`` of the cell.
    """

    token: str
    machine: str
    host: str
    pid: int
    began: float
    title: str

    @property
    def process_is_gone(self) -> bool:
        """Whether its process has ended; False where that cannot be seen."""
        return self.machine == _machine() and abs(_began(self.pid) - self.began) > CLOCK_S


class Claims:
    """The claims of one command on a store. Close it, or use it as a context manager."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = uuid.uuid4().hex
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[int, float]] = {}
        self._closed = threading.Event()
        self._toucher: threading.Thread | None = None

    def take(self, cells: Iterable[Cell]) -> list[Cell]:
        """Claim cells; those that no other command holds. Raises BenchError if impossible."""
        try:
            with self._store.locked():
                folder(self._store).mkdir(exist_ok=True)
                return [cell for cell in cells if self._take(cell)]
        except OSError as error:
            raise BenchError(
                f"claims in {folder(self._store)}: cannot be written: {error.strerror or error}; "
                "free space or choose another --store"
            ) from error

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
        return folder(self._store) / f"{cell.identity}.json"

    def _take(self, cell: Cell) -> bool:
        path = self._path(cell)
        claim = read_claim(path)
        mine = claim is not None and claim.token == self._token
        if not mine and os.path.lexists(path) and not self._expired(path, claim):
            return False
        if not mine:
            path.unlink(missing_ok=True)
            with path.open("x") as stream:
                stream.write(_claim(self._token, cell.title).model_dump_json())
        self._held.add(path)
        if self._toucher is None:
            self._toucher = threading.Thread(target=self._touch, daemon=True, name="claims")
            self._toucher.start()
        return True

    def _expired(self, path: Path, claim: Claim | None) -> bool:
        """By this machine's clock alone, since clocks of machines that share a folder differ."""
        if claim is not None and claim.process_is_gone:
            return True
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
        return claim is not None and claim.token == self._token

    def _release(self, paths: Iterable[Path]) -> None:
        held = self._held.intersection(paths)
        self._held -= held
        with suppress(OSError):  # what stays expires
            if held and folder(self._store).is_dir():
                with self._store.locked():
                    for path in filter(self._is_mine, held):
                        path.unlink()


def folder(store: Store) -> Path:
    """Where a store's claims stand."""
    return store.root / "claims"


def live_claims(store: Store) -> Iterator[Claim]:
    """Claims of commands that seem to run now."""
    for path in sorted(folder(store).glob("*.json")):
        with suppress(OSError):
            touched = path.stat().st_mtime
            claim = read_claim(path)
            if claim and not claim.process_is_gone and time.time() - touched < EXPIRES_S:
                yield claim


def remove_dead_claims(store: Store) -> None:
    """Remove claims whose command has ended without giving them back, as far as that is known."""
    if not folder(store).is_dir():
        return
    with suppress(OSError), store.locked():
        for path in folder(store).glob("*.json"):
            claim = read_claim(path)
            gone = claim is not None and claim.process_is_gone
            if gone or time.time() - path.lstat().st_mtime > STALE_S:
                path.unlink()


def read_claim(path: Path) -> Claim | None:
    """The claim in a file, or None."""
    try:
        if path.is_file() and path.stat().st_size < 2**16:
            return Claim.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        pass
    return None


def _claim(token: str, title: str) -> Claim:
    pid = os.getpid()
    return Claim(
        token=token,
        machine=_machine(),
        host=socket.gethostname(),
        pid=pid,
        began=_began(pid),
        title=title,
    )


def _began(pid: int) -> float:
    """When a process began, -1 if there is none or it has ended."""
    try:
        process = psutil.Process(pid)
        return -1.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return -1.0


@cache
def _machine() -> str:
    """Names this system with its table of processes: containers may share a host's name."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {uuid.getnode():x}"
