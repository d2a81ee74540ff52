"""An external power meter (at the plug, or between supply and board) that logs to a CSV file.

The file has a header with ``time_s`` (Unix seconds) and ``power_w``, then a line a sample in order
of time; other columns are ignored. It may grow while the work runs. The meter's clock and this
machine's must agree (NTP): a window is cut out of the log by time.
"""

from __future__ import annotations

import csv
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.device.meters.base import Clock, Energy, EnergyMeter
from bench.device.meters.errors import MeterError
from bench.device.meters.lock import DeviceLock
from bench.device.meters.power import check_power, trapezoid

COLUMNS = ("time_s", "power_w")

CEILING_W = 10_000.0
"""What no edge device or workstation draws: ten times more than a large one."""


class ExternalMeter(EnergyMeter):
    """The energy that an external meter's log shows for the window.

    Parameters
    ----------
    log : the CSV file; it must exist when the meter is made
    gap_s : neighbouring samples in a window may not lie further apart
    patience_s : how long the end of a window waits for the log to reach it

    Raises MeterError if the file is missing or its header lacks a column.
    """

    def __init__(
        self,
        log: Path,
        *,
        minimum_s: float = 1.0,
        minimum_samples: int = 8,
        gap_s: float = 1.5,
        patience_s: float = 5.0,
        clock: Clock = time.time,
        sleep: Callable[[float], None] = time.sleep,
        lock: DeviceLock | None = None,
    ) -> None:
        super().__init__("external meter", f"what it feeds: {log}", minimum_s=minimum_s, lock=lock)
        self._minimum_samples = minimum_samples
        self._gap_s = gap_s
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep
        self._began = 0.0
        self._log = _Log(log)

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
                f"external meter: {self._log.path} covers {span}, not the window from {began:.3f} "
                f"to {ended:.3f} (Unix seconds); log all the time and set both clocks alike"
            )
        first, last = bisect_right(times, began), bisect_left(times, ended)
        used = slice(first - 1, last + 1)  # the window's ends lie on the lines to its neighbours
        if ended - began >= self.minimum_s:  # a shorter window is refused for being short
            self._check(times[used], watts[used])
        ends = np.interp([began, ended], times, watts)
        return Energy(
            joules=trapezoid(
                [began, *times[first:last], ended],
                [float(ends[0]), *watts[first:last], float(ends[1])],
            ),
            seconds=ended - began,
            samples=len(times[used]),
            how=self.how,
            watts=tuple(watts[used]),
        )

    def _await(self, ended: float) -> None:
        """Read on until the log reaches the end of the window, or patience does."""
        self._log.read()
        while not self._log.reaches(ended) and self._clock() < ended + self._patience_s:
            self._sleep(0.2)
            self._log.read()

    def _check(self, times: list[float], watts: list[float]) -> None:
        name = f"external meter: {self._log.path}"
        if len(times) < self._minimum_samples:
            raise MeterError(
                f"{name} has {len(times)} samples for the window, at least "
                f"{self._minimum_samples} are needed; lengthen it or log faster"
            )
        gap = float(np.diff(times).max())
        if gap > self._gap_s:
            raise MeterError(
                f"{name} has no sample for {gap:.3g} s within the window, at most {self._gap_s:g} "
                "s are allowed; log without pauses"
            )
        for value in watts:
            check_power(value, name, CEILING_W)


class _Log:
    """The samples of a growing file; each line is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
            raise MeterError(
                f"external meter: {self.path}: {error.strerror or error}; start its logger before "
                "the run"
            ) from error
        whole = new[: new.rfind(b"\n") + 1]  # the last line may still be in the writing
        self._offset += len(whole)
        for row in csv.reader(whole.decode("utf-8-sig", "replace").splitlines()):
            self._line += 1
            if not self._columns:
                self._header(row)
            elif row:
                self._sample(row)

    def reaches(self, time_s: float) -> bool:
        """Whether there is a sample at this time or later."""
        return bool(self.times) and self.times[-1] >= time_s

    def forget(self, time_s: float) -> None:
        """Drop what lies before the last sample that is no later than this time."""
        before = max(0, bisect_right(self.times, time_s) - 1)
        del self.times[:before], self.watts[:before]

    def _header(self, row: list[str]) -> None:
        names = [name.strip() for name in row]
        for column in COLUMNS:
            if column not in names:
                raise MeterError(
                    f"external meter: {self.path} lacks the column {column} in its first line; it "
                    f"needs {' and '.join(COLUMNS)}"
                )
        self._columns = [names.index(column) for column in COLUMNS]

    def _sample(self, row: list[str]) -> None:
        time_s, watts = (
            self._number(row[i] if i < len(row) else "", column)
            for i, column in zip(self._columns, COLUMNS, strict=True)
        )
        if self.times and time_s <= self.times[-1]:
            raise MeterError(
                f"external meter: {self.path} line {self._line}: time {time_s!r} is not after "
                f"{self.times[-1]!r}; keep the log in order of time"
            )
        self.times.append(time_s)
        self.watts.append(watts)

    def _number(self, text: str, column: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise MeterError(
                f"external meter: {self.path} line {self._line}: {column} is {text!r}, not a "
                "number; correct or remove the line"
            )
        return value
