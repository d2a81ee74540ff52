"""How the commands show a campaign: a bar on a terminal, else one plain line per event."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer

from bench.execute.campaign import CampaignListener
from bench.execute.preparation import Preparation
from bench.io.duration import duration
from bench.io.one_line import one_line
from bench.records.record import Record
from bench.study.job import Job

SAY_EVERY_S = 15.0
"""In a log, how often it is said how far a preparation has come."""


class _Shown:
    """A preparation that is made: its bar on a terminal, and the time that it takes."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.began = self.said = time.monotonic()
        self._first: int | None = None

    def left(self, done: int, total: int) -> str:
        """How much time is left, in words; empty while that is not known."""
        if not total:
            return ""
        if self._first is None:  # what was done before, by a command that was stopped
            self._first, self._known = done, time.monotonic()
        made = done - self._first
        if not made:
            return ""
        seconds = (time.monotonic() - self._known) / made * (total - done)
        return f", about {duration(seconds)} left"


class PreparationProgress(CampaignListener):
    """Shows what runs share while it is made: source models, variants, offline stages."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._live = sys.stderr.isatty()
        self._shown: dict[str, _Shown] = {}

    def preparation_begins(self, preparation: Preparation) -> None:
        if preparation.kind == "source":  # others may be cached
            self._show(preparation)

    def preparation_advances(self, preparation: Preparation, done: int, total: int) -> None:
        shown = self._show(preparation)
        left = shown.left(done, total)
        if shown.bar is not None:
            if total:
                shown.bar.total = total
            shown.bar.update(done - shown.bar.n)
        elif left and time.monotonic() - shown.said > SAY_EVERY_S:
            shown.said = time.monotonic()
            say(f"{preparation.title}: {done}/{total}{left}")

    def preparation_does_not_apply(self, preparation: Preparation, reason: str) -> None:
        self._hide(preparation)
        say(f"{preparation.title}: does not apply: {reason}")

    def preparation_ends(self, preparation: Preparation, error: str) -> None:
        shown = self._hide(preparation)
        if error:
            say(f"{preparation.title}: failed, as the runs that need it will: {error}")
        elif shown is not None:
            say(f"{preparation.title}: done in {duration(time.monotonic() - shown.began)}")

    def run_left(self, files: Sequence[str]) -> None:
        say(f"bench: warning: left in shared memory, and unused: {', '.join(files)}; remove it")

    def close(self) -> None:
        """Remove the bars from the terminal."""
        bars = [self._bar, *(shown.bar for shown in self._shown.values())]
        for bar in bars:
            if bar is not None:
                bar.close()
        self._bar = None
        self._shown.clear()

    def _hide(self, preparation: Preparation) -> _Shown | None:
        """Remove its bar; what was shown of it."""
        shown = self._shown.pop(preparation.name, None)
        if shown is not None and shown.bar is not None:
            shown.bar.close()
        return shown

    def _show(self, preparation: Preparation) -> _Shown:
        """What is shown of it; from the first time on, it is."""
        if preparation.name not in self._shown:
            bar = None
            if self._live:
                from tqdm import tqdm

                bar = tqdm(total=None, desc=preparation.title, leave=False)
            else:
                say(f"{preparation.title} (once; then cached)")
            self._shown[preparation.name] = _Shown(bar)
        return self._shown[preparation.name]


class Progress(PreparationProgress):
    """Shows the runs too; ``done`` cells have a record from before.

    ``settled`` and ``interrupted``: records of this campaign, and those of stopped runs.
    """

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done
        self.settled = self.interrupted = self._total = 0

    def runs_begin(self, jobs: Sequence[Job]) -> None:
        self._total = sum(len(job.cells) for job in jobs)
        if not self._total:
            say(f"nothing to run: all {self.done} cells are done")
            return
        say(f"{self._total} cells to run, {self.done} done before")
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="cell", smoothing=0.1, dynamic_ncols=True)

    def record_ended(self, record: Record) -> None:
        self.settled += 1
        self.interrupted += record.status == "interrupted"
        text = one_line(f"{record.cell.title}: {_outcome(record)}")
        if self._bar is not None:
            if record.status != "ok":
                self._bar.write(text, file=sys.stderr)
            self._bar.set_postfix_str(f"{record.cell.method.name} {record.status}")
            self._bar.update()
        else:
            say(f"[{self.settled}/{self._total}] {text}")

    def others_run(self, cells: int) -> None:
        what = "1 cell is" if cells == 1 else f"{cells} cells are"
        text = f"{what} being run by another command on this store; waiting (Ctrl-C stops waiting)"
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            typer.echo(text, err=True)


class _Closing(Protocol):
    def close(self) -> None: ...


@contextmanager
def stoppable(progress: _Closing, said: Callable[[], str]) -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM end the command with exit code 130 and what ``said`` gives."""

    def stop(*_: object) -> None:
        for number in before:  # what runs is recorded now: another Ctrl-C would lose that
            signal.signal(number, signal.SIG_IGN)
        say("bench: stopping…")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        progress.close()
        say(f"bench: stopped; {said()}")
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        progress.close()


def say(text: str) -> None:
    """A line on standard error; where that cannot be written to, no run is lost for it."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def _outcome(record: Record) -> str:
    if record.results is None:
        return f"{record.status}: {record.reason}"
    results = record.results
    if results.seen_at_end is not None:
        shown = f"accuracy over all seen {results.seen_at_end:.1%}"
    elif results.online is not None:
        shown = f"online accuracy {results.online:.1%}"
    else:
        shown = f"accuracy {results.mean('before'):.1%} -> {results.mean('after'):.1%}"
    return f"ok in {duration(record.wall_s)}, {results.metric.named_in(shown)}"
