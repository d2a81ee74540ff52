"""The interface of energy meters: a window begins, ends, and gives joules or a reason."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from bench.meters.errors import MeterError
from bench.meters.lock import DeviceLock

Clock = Callable[[], float]
"""Seconds, from any origin."""

Ticker = Callable[[Callable[[], None], Iterator[float]], Callable[[], None]]
"""Calls a function at rising times (seconds from now on, without end); what it returns ends that.
"""


def in_thread(tick: Callable[[], None], times_s: Iterator[float]) -> Callable[[], None]:
    """The default ticker: a daemon thread. Times that pass meanwhile are left out, not made up."""
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


@dataclass(frozen=True)
class Energy:
    """What one window used.

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


class EnergyMeter(ABC):
    """Measures one window at a time; nobody else measures this machine meanwhile.

    Making a meter reads its sensor once: one that cannot be used raises MeterError there. It
    belongs to one thread of one process.

    Attributes
    ----------
    name : the sensor, as records name it
    scope : what its joules cover, and by which rails or domains
    minimum_s : a shorter window is refused
    """

    def __init__(self, name: str, scope: str, *, minimum_s: float, lock: DeviceLock | None) -> None:
        self.name = name
        self.scope = scope
        self.minimum_s = minimum_s
        self._lock = lock or DeviceLock()
        self._open = False

    @property
    def how(self) -> str:
        """With what and over what the joules are measured, for records."""
        return f"{self.name} ({self.scope})"

    def alone(self) -> DeviceLock:
        """A context in which no other process measures this machine, for windows in a row."""
        return self._lock

    def begin(self) -> None:
        """A window begins: waits for the machine and takes a first reading.

        Raises MeterError if the machine stays taken or the sensor gives nothing usable.
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
        """The window ends: its energy. Raises MeterError with the reason if there is no number."""
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
        """Drop an open window, if there is one; nothing is raised."""
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
        """The window is over: sum up."""

    def _drop(self) -> None:
        """Stop what runs in the background."""
