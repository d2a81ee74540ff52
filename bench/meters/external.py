"""An external power meter (at the plug, or between supply and board) that logs to a CSV file.

The file has a header with ``time_s`` (Unix seconds) and ``power_w``, then a line a sample in order
of time; other columns are ignored. It grows while the work runs, and has some lines before: how
often it is written says how long a window has to be. The meter's clock and this machine's must
agree (NTP): a window is cut out of the log by time.
"""

from __future__ import annotations

import csv
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.meters.base import Clock, DeviceLock, Energy, EnergyMeter, MeterError, finite
from bench.meters.power import check_power, within

COLUMNS = ("time_s", "power_w")
CEILING_W = 1000.0
"""What no edge device draws; a log in milliwatts of one that draws more than 1 W lies above."""
RECENT = 101
"""The log's rate is that of its last so many samples."""
MINIMUM_SAMPLES = 8
"""In a window."""
PATIENCE_S = 5.0
"""How long the end of a window waits for the log to reach it."""


class ExternalMeter(EnergyMeter):
    """The energy that an external meter's log shows for the window.

    Parameters
    ----------
    log : the CSV file; its logger has been running for some samples when the meter is made
    minimum_s : a shorter window is refused, as is one too short for ``MINIMUM_SAMPLES`` of the log
    gap_s : neighbouring samples in a window may not lie further apart, in seconds
    ceiling_w : no sample may exceed it, in watts

    Raises MeterError if the file, a column, or samples to tell its rate are missing, or if that
    rate or the latest power cannot be used.
    """

    def __init__(
        self,
        log: Path,
        *,
        minimum_s: float = 1.0,
        gap_s: float = 1.5,
        ceiling_w: float = CEILING_W,
        clock: Clock = time.time,
        sleep: Callable[[float], None] = time.sleep,
        lock: DeviceLock | None = None,
    ) -> None:
        self._log = _Log(log)
        self._ceiling_w = ceiling_w
        every_s = self._every_s(gap_s)
        self._power(self._log.watts[-1])
        # One more than asked for: a logger is not always on time. In whole tenths, to be read.
        needed_s = math.ceil(10 * (MINIMUM_SAMPLES + 1) * every_s - 1e-3) / 10
        minimum_s = max(minimum_s, needed_s)
        super().__init__("external meter", f"what it feeds: {log}", minimum_s=minimum_s, lock=lock)
        self._gap_s = gap_s
        self._clock, self._sleep = clock, sleep
        self._began = 0.0

    @property
    def how(self) -> str:
        return f"{super().how}, trapezoidal rule over its log"

    def _start(self) -> None:
        self._log.read()
        self._began = self._clock()
        self._log.forget(self._began)

    def _finish(self) -> Energy:
        began, ended = self._began, self._clock()
        self._await(ended)
        times, watts = self._log.times, self._log.watts
        if not times or times[0] > began or times[-1] < ended:
            span = f"{times[0]:.3f} to {times[-1]:.3f}" if times else "nothing"
            raise MeterError(
                f"{self._log.name} covers {span}, not the window from {began:.3f} to {ended:.3f} "
                "(Unix seconds); log all the time and set both clocks alike"
            )
        first, last = bisect_left(times, began), bisect_right(times, ended)
        times, watts = times[first:last], watts[first:last]
        if ended - began >= self.minimum_s:  # a shorter window is refused for being short
            self._check(began, ended, times, watts)
        joules = within(began, ended, times, watts) if times else math.nan
        return Energy(joules, ended - began, len(times), self.how, tuple(watts))

    def _every_s(self, gap_s: float) -> float:
        """Seconds from one sample of the log to the next; MeterError if that cannot be used."""
        gaps = np.diff(self._log.times[-RECENT:])
        if len(gaps) < 2:
            raise MeterError(
                f"{self._log.name} has {len(self._log.times)} samples, too few to tell how often "
                "it is written; start its logger at least 3 samples before the run"
            )
        every_s = float(np.median(gaps))
        if every_s > gap_s:
            raise MeterError(
                f"{self._log.name} has a sample every {every_s:.3g} s, at most {gap_s:g} s are "
                "allowed; log faster"
            )
        return every_s

    def _await(self, ended: float) -> None:
        """Read on until the log reaches the end of the window, or patience does."""
        self._log.read()
        while (
            not self._log.times or self._log.times[-1] < ended
        ) and self._clock() < ended + PATIENCE_S:
            self._sleep(0.2)
            self._log.read()

    def _check(self, began: float, ended: float, times: list[float], watts: list[float]) -> None:
        if len(times) < MINIMUM_SAMPLES:
            raise MeterError(
                f"{self._log.name} has {len(times)} samples for the window, at least "
                f"{MINIMUM_SAMPLES} are needed; lengthen it or log faster"
            )
        gap = float(np.diff([began, *times, ended]).max())
        if gap > self._gap_s:
            raise MeterError(
                f"{self._log.name} has no sample for {gap:.3g} s within the window, at most "
                f"{self._gap_s:g} s are allowed; log without pauses"
            )
        for value in watts:
            self._power(value)

    def _power(self, watts: float) -> None:
        if watts > self._ceiling_w:
            raise MeterError(
                f"{self._log.name}: power_w is {watts:g} W, above the ceiling of "
                f"{self._ceiling_w:g} W; log watts, not milliwatts, or give a higher ceiling_w if "
                "it draws as much"
            )
        check_power(watts, self._log.name, self._ceiling_w)


class _Log:
    """The samples of a growing file; each line is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"external meter: {path}"
        self.times: list[float] = []
        self.watts: list[float] = []
        self._columns: list[int] = []
        self._offset = self._line = 0
        self.read()
        if not self._columns:
            self._header([])

    def read(self) -> None:
        """Take up the lines that were completed since the last time."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError as error:
            why = f"{self.name}: {error.strerror or error}; start its logger before the run"
            raise MeterError(why) from error
        whole = new[: new.rfind(b"\n") + 1]  # the last line may still be in the writing
        self._offset += len(whole)
        for row in csv.reader(whole.decode("utf-8-sig", "replace").splitlines()):
            self._line += 1
            if not self._columns:
                self._header(row)
            elif row:
                self._sample(row)

    def forget(self, time_s: float) -> None:
        """Drop what lies before the last sample that is no later than this time."""
        before = max(0, bisect_right(self.times, time_s) - 1)
        del self.times[:before], self.watts[:before]

    def _header(self, row: list[str]) -> None:
        names = [name.strip() for name in row]
        for column in (column for column in COLUMNS if column not in names):
            why = f"lacks the column {column} in its first line; it needs {' and '.join(COLUMNS)}"
            raise MeterError(f"{self.name} {why}")
        self._columns = [names.index(column) for column in COLUMNS]

    def _sample(self, row: list[str]) -> None:
        time_s, watts = (
            self._number(row[i] if i < len(row) else "", column)
            for i, column in zip(self._columns, COLUMNS, strict=True)
        )
        if self.times and time_s <= self.times[-1]:
            raise MeterError(
                f"{self.name} line {self._line}: time {time_s!r} is not after "
                f"{self.times[-1]!r}; keep the log in order of time"
            )
        self.times.append(time_s)
        self.watts.append(watts)

    def _number(self, text: str, column: str) -> float:
        value = finite(text)
        if value is None:
            raise MeterError(
                f"{self.name} line {self._line}: {column} is {text!r}, not a number; correct or "
                "remove the line"
            )
        return value
