"""The pages of ``bench serve``, made anew as records come."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import jinja2

from bench.errors import BenchError
from bench.execute.api import write_report
from bench.io.duration import duration
from bench.io.one_line import error_text, one_line
from bench.live.state import State, StoreView
from bench.records.log_tail import log_tail
from bench.records.record import FAILURES
from bench.records.store import Store
from bench.records.summary import RecordSummary

EVERY_S = 2.0
"""Seconds between two looks at the store."""
PAUSE = 1.0
"""So many times as long as making a report took, no other is made."""
SHOWN, TAILS, TAIL_LINES = 30, 5, 12
"""Runs without results that are listed; failed ones with the end of their log; its lines."""
LOG_LINES = 1000
"""Lines of a log's page."""


class Pages:
    """Looks at a store in the background and keeps its pages. `start` it, and `close` it."""

    def __init__(self, view: StoreView) -> None:
        self._view = view
        # For threads of its own: a store notes what it cannot read.
        self._of_report, self._of_logs = (Store(view.store.root, view.index) for _ in range(2))
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._state = State((), (), "")
        self._closed = threading.Event()
        self._problem = self._told = ""
        self._report = _plain("No report yet: it is being made.")
        self._made_of: object = None
        self._status = _plain("The store has not been looked at yet.")

    def start(self) -> None:
        """Begin to look at the store."""
        for work in (self._keep_status, self._keep_report):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    def close(self) -> None:
        """End looking."""
        self._closed.set()

    @property
    def frame(self) -> bytes:
        """The page that holds the others."""
        title = f"bench: {one_line(str(self._view.store.root))}"
        return self._environment.get_template("frame.html").render(title=title).encode()

    @property
    def status(self) -> bytes:
        """What runs, and what did not end well."""
        return self._status

    @property
    def report(self) -> bytes:
        """The report of the records, as it was made last."""
        return self._report

    def log(self, identity: str) -> str | None:
        """The end of the log of a record; None if there is no such record."""
        for record in self._state.records:
            if record.identity == identity:
                return "\n".join(log_tail(self._of_logs, record.log, LOG_LINES)) + "\n"
        return None

    def _keep_status(self) -> None:
        while True:
            try:
                self._state = self._view.look()
                self._status = self._made_status(self._state)
            except Exception as error:  # a page that stands still must say why
                self._status = _plain(f"The store cannot be looked at: {error_text(error)}")
            if self._closed.wait(EVERY_S):
                return

    def _made_status(self, state: State) -> bytes:
        troubles = state.troubles[::-1]  # newest first
        failed = [r.identity for r in troubles if r.status in FAILURES or r.status == "oom"]
        tailed = set(failed[:TAILS])
        shown: list[tuple[RecordSummary, list[str]]] = [
            (r, log_tail(self._of_logs, r.log, TAIL_LINES) if r.identity in tailed else [])
            for r in sorted(troubles, key=lambda r: r.identity not in tailed)[:SHOWN]
        ]
        page = self._environment.get_template("status.html").render(
            store=one_line(str(self._view.store.root)),
            counts=state.counts(),
            ignored=state.ignored,
            at=time.strftime("%H:%M:%S", time.gmtime()),
            report=self._told,
            problem=self._problem,
            claims=state.claims,
            troubles=shown,
            more=max(len(troubles) - len(shown), 0),
        )
        return page.encode()

    def _keep_report(self) -> None:
        while True:
            began = time.monotonic()
            records = {(r.identity, r.status, r.started) for r in self._state.records}
            if records and records != self._made_of:
                self._make_report()
                self._made_of = records
            took = time.monotonic() - began
            if self._closed.wait(max(EVERY_S, PAUSE * took)):
                return

    def _make_report(self) -> None:
        began, at = time.monotonic(), time.strftime("%H:%M:%S", time.gmtime())
        with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
            try:
                write_report(self._of_report, Path(folder), warn=lambda text: None)
                self._report = Path(folder, "report.html").read_bytes()
                self._problem = ""
            except BenchError as error:  # no results yet
                self._report = _plain(one_line(str(error)))
            except Exception as error:
                self._problem = f"The report cannot be made: {error_text(error)}"
        self._told = f"report of {at}, made in {duration(time.monotonic() - began)}"


def _plain(text: str) -> bytes:
    """A page of a sentence."""
    template = jinja2.Environment(autoescape=True).from_string(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>bench</title><p>{{ text }}</p>'
    )
    return template.render(text=text).encode()
