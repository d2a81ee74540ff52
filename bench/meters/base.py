"""What all energy meters share: windows that give joules or a reason, one at a time.

One process measures this machine at a time, of all users (`DeviceLock`).
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from bench.errors import BenchError

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER = Path("/tmp") if os.name == "posix" else Path(tempfile.gettempdir())
"""Where the lock lies. Not where TMPDIR points: each user and each job may have its own, and their
locks would not exclude each other."""

Clock = Callable[[], float]
"""Seconds, from any origin."""

Ticker = Callable[[Callable[[], None], Iterator[float]], Callable[[], None]]
"""Calls a function at rising times (seconds from now); returns a function that stops this."""


class MeterError(BenchError):
    """A meter or one of its windows has no result; the message is the reason to record."""


class ReadFailed(MeterError):
    """A sensor could not be read this time; the next reading may succeed."""


@dataclass(frozen=True)
class Unavailable:
    """No meter measures this machine: the ``reason``, and that of each meter ``tried``."""

    reason: str
    tried: Mapping[str, str]


def in_thread(tick: Callable[[], None], times_s: Iterator[float]) -> Callable[[], None]:
    """The default ticker: a daemon thread. Missed times are skipped."""
    stopped = threading.Event()
    began = time.monotonic()

    def run() -> None:
        for due in times_s:
            wait = began + due - time.monotonic()
            if wait < 0:
                continue
            if stopped.wait(wait):
                return
            tick()

    thread = threading.Thread(target=run, name="energy meter", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()

    return stop


def read_text(path: Path) -> str:
    """The stripped text of a kernel file; ReadFailed if it cannot be read."""
    try:
        return (
            path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
        )  # a device tree closes with NUL
    except PermissionError as error:
        raise ReadFailed(
            f"{path} may not be read by this user; run as root or grant read permission to it"
        ) from error
    except OSError as error:
        raise ReadFailed(f"{path} cannot be read: {error.strerror or error}") from error


def read_number(path: Path) -> float:
    """The number in a kernel file, in the file's own unit; MeterError if it is none."""
    text = read_text(path)
    value = finite(text)
    if value is None:
        raise MeterError(
            f"{path} holds {text[:40]!r}, not a number; the sensor or its driver fails"
        )
    return value


def finite(text: str) -> float | None:
    """The text as a finite number, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Energy:
    """The energy of one window.

    ``joules`` over ``seconds``, from ``samples`` readings; ``how`` says with which meter and what
    it covers; ``watts`` are the readings of a power sensor, in order (none for a counter).
    """

    joules: float
    seconds: float
    samples: int
    how: str
    watts: tuple[float, ...] = ()

    @property
    def power_w(self) -> float:
        """Mean power over the window, in watts."""
        return self.joules / self.seconds


_held: dict[tuple[int, Path], DeviceLock] = {}
"""Who holds which lock in which process (a fork copies this): one would wait for oneself."""

_tell = partial(print, flush=True)


class DeviceLock:
    """A lock on this machine, held by one meter of one process; its holder may take it again.

    There is one for every meter and every user: a board's sensor or a meter at the plug sees what
    each processor and GPU does. A forked process gets its own at its first ``acquire``.

    ``timeout_s``: how long to wait for another process; ``folder`` of the lock file, for tests;
    ``tell`` receives one line when it has to wait.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 600.0,
        folder: Path | None = None,
        tell: Callable[[str], None] = _tell,
    ) -> None:
        self.path = (folder or FOLDER) / "edge-adaptation-bench-energy.lock"
        self.timeout_s = timeout_s
        self._tell = tell
        self._file: BaseFileLock | None = None
        self._depth = 0

    def acquire(self) -> None:
        """Wait until no other process measures this machine.

        Raises MeterError after ``timeout_s``, if this process measures it already with another
        meter, or if the lock file cannot be used.
        """
        if _held.get((os.getpid(), self.path), self) is not self:
            raise MeterError(
                "energy of this machine: this process measures it already with another meter; end "
                "that window first"
            )
        if self._depth == 0:
            self._file = self._wait()
            _held[os.getpid(), self.path] = self
        self._depth += 1

    def release(self) -> None:
        """Release it, as often as it was acquired."""
        self._depth -= 1
        if self._depth == 0:
            _held.pop((os.getpid(), self.path), None)
            assert self._file is not None
            self._file.release()
            self._file = None

    def _wait(self) -> BaseFileLock:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path, mode=0o666, thread_local=False)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._tell(
                    f"energy of this machine: another process is measuring it ({self.path}); "
                    f"waiting for at most {self.timeout_s:g} s"
                )
                lock.acquire(timeout=self.timeout_s)
        except Timeout as error:
            raise MeterError(
                f"energy of this machine: another process has been measuring it for "
                f"{self.timeout_s:g} s ({self.path}); run again when it is done"
            ) from error
        except OSError as error:
            raise MeterError(
                f"energy of this machine: lock file {self.path}: {error.strerror or error}; "
                "make it writable, or remove it when nobody is measuring"
            ) from error
        return lock

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class EnergyMeter(ABC):
    """Measures one window at a time and locks the machine meanwhile.

    Making a meter reads its sensor once and raises MeterError if it cannot be used. A meter belongs
    to one thread of one process. ``name`` of the sensor, for records; ``scope``: what its joules
    cover, and by which rails or domains; a window shorter than ``minimum_s`` is refused.
    """

    def __init__(self, name: str, scope: str, *, minimum_s: float, lock: DeviceLock | None) -> None:
        self.name, self.scope, self.minimum_s = name, scope, minimum_s
        self._lock = lock or DeviceLock()
        self._open = False

    @property
    def how(self) -> str:
        """The meter and what its joules cover, for records."""
        return f"{self.name} ({self.scope})"

    def alone(self) -> DeviceLock:
        """A context that locks the machine for several windows in a row."""
        return self._lock

    def begin(self) -> None:
        """Open a window: wait for the lock and take a first reading.

        Raises MeterError if the machine stays locked or the reading is unusable.
        """
        if self._open:
            raise MeterError(f"{self.name}: a window is open already; end it before the next")
        self._lock.acquire()
        try:
            self._start()
        except BaseException:
            self._lock.release()
            raise
        self._open = True

    def end(self) -> Energy:
        """Close the window; its energy. Raises MeterError with the reason if it is unknown."""
        if not self._open:
            raise MeterError(f"{self.name}: no window is open; begin one first")
        self._open = False
        try:
            energy = self._finish()
        finally:
            self._lock.release()
        if energy.seconds < self.minimum_s:
            raise MeterError(
                f"{self.name}: a window of {energy.seconds:.3g} s is too short, at least "
                f"{self.minimum_s:g} s are needed; repeat the work within the window"
            )
        return energy

    def cancel(self) -> None:
        """Discard an open window, if there is one; raises nothing."""
        if self._open:
            self._open = False
            try:
                with suppress(MeterError):
                    self._drop()
            finally:
                self._lock.release()

    @abstractmethod
    def _start(self) -> None:
        """Take a first reading; from then on the window counts."""

    @abstractmethod
    def _finish(self) -> Energy:
        """Compute the energy of the window."""

    def _drop(self) -> None:
        """Stop background reading."""


class Options(TypedDict, total=False):
    """What every meter with background reading may be given (see `EnergyMeter`)."""

    minimum_s: float
    clock: Clock
    ticker: Ticker
    lock: DeviceLock | None


class BackgroundMeter(EnergyMeter):
    """Reads its sensor again and again within the window, in the background.

    A reading that fails is left out; one that makes no sense refuses the window.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        *,
        minimum_s: float = 1.0,
        clock: Clock = time.monotonic,
        ticker: Ticker = in_thread,
        lock: DeviceLock | None = None,
    ) -> None:
        super().__init__(name, scope, minimum_s=minimum_s, lock=lock)
        self._clock, self._ticker = clock, ticker
        self._failed: ReadFailed | None = None
        self._refused: MeterError | None = None
        self._stop: Callable[[], None] = lambda: None

    def _start_reading(self, times_s: Iterator[float]) -> None:
        """Read at these times (seconds from now)."""
        self._failed = self._refused = None
        self._stop = self._ticker(self._tick, times_s)

    def _stop_reading(self) -> None:
        """Raises the MeterError of a reading that made no sense."""
        self._stop()
        if self._refused is not None:
            raise self._refused

    def _drop(self) -> None:
        self._stop()

    def _tick(self) -> None:
        if self._refused is None:
            try:
                self._sample()
            except ReadFailed as error:
                self._failed = error
            except MeterError as error:
                self._refused = error

    @abstractmethod
    def _sample(self) -> None:
        """Take one reading."""
