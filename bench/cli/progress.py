"""How the commands show a campaign: a bar on a terminal, else one plain line per event."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from bench.cli.options import duration
from bench.execute.campaign import CampaignListener
from bench.records.record import Record
from bench.study.job import Job


class SourceProgress(CampaignListener):
    """Shows the training of source models."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._live = sys.stderr.isatty()

    def source_begins(self, title: str) -> None:
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=None, desc=title, unit="epoch", leave=False)
        else:
            typer.echo(f"{title} (once; then cached)", err=True)

    def source_epoch(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def source_ends(self, title: str, path: Path) -> None:
        self.close()
        typer.echo(f"{title}: done, cached in {path}", err=True)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Progress(SourceProgress):
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
            typer.echo(f"nothing to run: all {self.done} cells are done", err=True)
            return
        typer.echo(f"{self._total} cells to run, {self.done} done before", err=True)
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="cell", smoothing=0.1, dynamic_ncols=True)

    def record_ended(self, record: Record) -> None:
        self.settled += 1
        self.interrupted += record.status == "interrupted"
        text = f"{record.cell.title}: {_outcome(record)}"
        if self._bar is not None:
            if record.status != "ok":
                self._bar.write(text, file=sys.stderr)
            self._bar.set_postfix_str(f"{record.cell.method.name} {record.status}")
            self._bar.update()
        else:
            typer.echo(f"[{self.settled}/{self._total}] {text}", err=True)

    def others_run(self, cells: int) -> None:
        what = "1 cell is" if cells == 1 else f"{cells} cells are"
        text = f"{what} being run by another command on this store; waiting (Ctrl-C stops waiting)"
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            typer.echo(text, err=True)


@contextmanager
def stoppable(progress: SourceProgress, said: Callable[[], str]) -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM end the command with exit code 130 and what ``said`` gives."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        progress.close()
        typer.echo(f"bench: stopped; {said()}", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        progress.close()


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
    return f"ok in {duration(record.wall_s)}, {shown}"
