"""Watch the runs on a store until nothing is left: bars on a terminal, else a line an event."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from bench.io.duration import duration
from bench.io.one_line import one_line
from bench.live.state import Running, State, StoreView
from bench.records.summary import RecordSummary

if TYPE_CHECKING:
    from bench.study.plan import Estimate, Plan

EVERY_S = 2.0
"""Seconds between two looks."""
SAY_EVERY_S = 60.0
"""In a log, how often it is said how far the runs have come, if nothing else is."""
SHOWN = 8
"""Running cells that a terminal shows; the others are counted."""


class Watch:
    """Watches a store, or the cells of a plan on it.

    Without a plan it is over when no command runs anything on the store or is at work on it, with
    one when all cells have a record that is not ``interrupted``.
    """

    def __init__(
        self, view: StoreView, plan: Plan | None = None, out: TextIO | None = None
    ) -> None:
        self._view = view
        self._plan = plan
        self._out = out or sys.stdout
        self._cells = None if plan is None else {cell.identity: cell for cell in plan.cells}
        self._estimated: tuple[set[str], Estimate] | None = None
        self._known: dict[str, tuple[str, str]] = {}
        self._lost: set[str] = set()
        self._shown = _Bars(self._out) if self._out.isatty() else _Lines(self._out)
        self.said = ""

    def run(self, every_s: float = EVERY_S) -> bool:
        """Watch to the end; whether all runs ended in a result."""
        with closing(self):
            state = self._look()
            self._known = _by_identity(state.records)
            self._shown.begin(self._progress(state))
            for record in state.troubles:
                self._shown.tell(_outcome(record))
            idle = 0
            while True:
                self._tell(state)
                idle = 0 if state.alive else idle + 1
                if not self._left(state) and idle > 1:  # between two cells nothing may run
                    self._shown.close()
                    self._shown.tell(f"nothing is left; {self.said}")
                    return not any(self._is_failure(record) for record in state.records)
                time.sleep(every_s)
                state = self._look()

    def close(self) -> None:
        """Remove the bars from the terminal."""
        self._shown.close()

    def _look(self) -> State:
        """The store now; with a plan its cells alone."""
        state = self._view.look()
        if self._cells is None:
            return state
        return replace(
            state,
            records=tuple(r for r in state.records if r.identity in self._cells),
            claims=tuple(c for c in state.claims if c.identity in self._cells),
        )

    def _left(self, state: State) -> int | None:
        """How many cells of the plan have no record yet; without one, of the commands at work, and
        None where there are none.
        """
        if self._cells is None:
            return len(state.left) if state.commands else None
        return len(self._cells) - sum(record.status != "interrupted" for record in state.records)

    def _is_failure(self, record: RecordSummary) -> bool:
        """Whether a run failed, as against a result such as out of memory on the device."""
        if record.status in ("ok", "unsupported"):
            return False
        whole = self._view.store.get(record.identity)
        return whole is not None and whole.is_failure

    def _tell(self, state: State) -> None:
        """Say what is new since the last look, and how far it has come."""
        now = _by_identity(state.records)
        new = [r for r in state.records if self._known.get(r.identity) != now[r.identity]]
        self._known = now
        self.said = self._progress(state)
        for record in sorted(new, key=lambda r: r.started):
            self._shown.tell(_outcome(record))
        lost = {each.title: each for each in state.claims if each.state == "lost"}
        for title in lost.keys() - self._lost:
            self._shown.tell(f"lost: {title} ({lost[title].where})")
        self._lost = set(lost)
        left = self._left(state)
        if self._cells is None:
            done = len(state.records)
            names = {r.identity for r in state.records} | {c.identity for c in state.alive}
            total = len(names | state.left.keys())
        else:
            total = len(self._cells)
            done = total - (left or 0)
        self._shown.show(self.said, done, total, state.alive, bool(new))

    def _progress(self, state: State) -> str:
        """How far it has come, in one line."""
        counts = {"running": 0, "queued": 0}
        for each in state.alive:
            counts[each.state] += 1
        told = [state.counts(), *(f"{n} {name}" for name, n in counts.items() if n)]
        left = self._left(state)
        if left is not None:
            told.append(f"{left} left{self._time_left(state)}")
        if left and not state.alive:
            told.append("waiting: no command runs them yet")
        if state.ignored:
            told.append(state.ignored)
        told += state.unasked
        return "; ".join(told)

    def _time_left(self, state: State) -> str:
        """How long the cells that are left take, by earlier runs; empty if none is known."""
        if self._plan is None or self._cells is None:
            return ""
        ended = {r.identity for r in state.records if r.status != "interrupted"}
        if self._estimated is None or self._estimated[0] != ended:
            missing = [cell for key, cell in self._cells.items() if key not in ended]
            made = replace(self._plan, missing=missing).estimate(state.records, dict)
            self._estimated = ended, made
        estimate = self._estimated[1]
        running = [each for each in state.alive if each.state == "running"]
        if estimate.unknown == estimate.trainings:
            return ""
        begun = sum(min(e.for_s or 0.0, e.expected_s or 0.0) for e in running)
        seconds = max(estimate.total_s - begun, 0.0) / max(len(running), 1)
        but = f" ({estimate.unknown} without an earlier run not counted)" * bool(estimate.unknown)
        return f", about {duration(seconds)}{but}"


def _by_identity(records: Iterable[RecordSummary]) -> dict[str, tuple[str, str]]:
    return {record.identity: (record.status, record.started) for record in records}


def _outcome(record: RecordSummary) -> str:
    if record.status == "ok":
        return f"{record.cell.title}: ok in {duration(record.wall_s)}"
    return one_line(f"{record.cell.title}: {record.status}: {record.reason} ({record.log})")


class _Lines:
    """For a log: a line an event, and now and then how far it has come."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._said = 0.0
        self._running: set[str] = set()

    def begin(self, text: str) -> None:
        self.tell(text)

    def tell(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def show(
        self, text: str, done: int, total: int, running: Sequence[Running], news: bool
    ) -> None:
        titles = {each.title: each for each in running}
        for title in [each for each in titles if each not in self._running]:
            self.tell(f"{titles[title].state}: {title} ({titles[title].where})")
        self._running = set(titles)
        if news or time.monotonic() - self._said > SAY_EVERY_S:
            if self._said:
                self.tell(text)
            self._said = time.monotonic()

    def close(self) -> None:
        """Nothing is left on the terminal."""


class _Bars:
    """For a terminal: a bar of the cells, and below it a line for each that runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar: Any = None
        self._lines: list[Any] = []

    def begin(self, text: str) -> None:
        self.tell(text)

    def tell(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=self._out)

    def show(
        self, text: str, done: int, total: int, running: Sequence[Running], news: bool
    ) -> None:
        from tqdm import tqdm

        if self._bar is None:
            layout = "{desc} |{bar}| {n_fmt}/{total_fmt}"
            self._bar = tqdm(
                total=total, file=self._out, bar_format=layout, dynamic_ncols=True, leave=False
            )
        self._bar.total = total
        self._bar.n = done
        self._bar.set_description_str(text)
        told = list(_told(running))
        while len(self._lines) < len(told):
            self._lines.append(
                tqdm(
                    file=self._out, bar_format="{desc}", position=len(self._lines) + 1,
                    dynamic_ncols=True, leave=False,
                )
            )  # fmt: skip
        for i, line in enumerate(self._lines):
            line.set_description_str(told[i] if i < len(told) else "")

    def close(self) -> None:
        for bar in [*reversed(self._lines), self._bar]:
            if bar is not None:
                bar.close()
        self._bar, self._lines = None, []


def _told(running: Sequence[Running]) -> Iterator[str]:
    for each in running[:SHOWN]:
        time_ = f" ({each.time})" if each.time else ""
        yield f"  {each.state}: {each.title}{time_}"
    if len(running) > SHOWN:
        yield f"  and {len(running) - SHOWN} more"
