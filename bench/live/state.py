"""What a store holds and what runs on it, at one look, without writing into it."""

from __future__ import annotations

import math
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.execute.claims import EXPIRES_S, Claim, seen_claims
from bench.io.duration import duration
from bench.io.one_line import one_line
from bench.live.at_work import Queues, ask_queues, cells_left, commands, how_far
from bench.records.index import FILE
from bench.records.store import Store
from bench.records.summary import RecordSummary
from bench.study.selection import existing_store

_OWN = re.compile(r"( · draw \d+)?( · seed -?\d+)?$")
"""Of a title what tells cells apart that take equally long."""
ASK_EVERY_S = 15.0
"""How often a view asks queues, which many users share."""


@dataclass(frozen=True)
class Running:
    """A cell that a command has claimed.

    ``identity``: of the cell; ``state``: queued, running or lost; ``for_s``: seconds since it is in
    it, None if unknown; ``expected_s``: the median time of such runs that are ok, None without any;
    ``untouched_s``: seconds since the command gave a sign of life; ``queue``: what the queue that
    its task is in says of that, empty without one.
    """

    identity: str
    claim: Claim
    state: str
    for_s: float | None
    expected_s: float | None
    untouched_s: float
    queue: str = ""

    @property
    def title(self) -> str:
        """Of the cell, on one line."""
        return one_line(self.claim.title)

    @property
    def where(self) -> str:
        """Which process or task of a queue runs it, and what is to be said of that."""
        claim = self.claim
        told = claim.ticket or f"process {claim.pid} on {claim.host}"
        if claim.ticket and claim.state == "running":
            told += f", process {claim.pid} on {claim.host}"
        if self.queue:
            told += f", the queue says {self.queue}"
        if self.state == "lost":
            told += "; the same command runs it again"
        elif abs(self.untouched_s) > EXPIRES_S:
            told += f"; no sign of life for {duration(self.untouched_s)} by this machine's clock"
        return one_line(told)

    @property
    def time(self) -> str:
        """How long it is in its state, and how long such runs took; empty if neither is known."""
        told = [] if self.for_s is None else [f"for {duration(self.for_s)}"]
        if self.expected_s is not None and self.state == "running":
            told.append(f"others took {duration(self.expected_s)}")
        return "; ".join(told)


@dataclass(frozen=True)
class State:
    """A store at one look: its records and claims; ``ignored``: how many files are no records;
    ``silent``: the executors whose queues do not answer; ``commands``: those at work, and ``left``:
    the titles of cells that they have no record of yet, by identity.
    """

    records: tuple[RecordSummary, ...]
    claims: tuple[Running, ...]
    ignored: str
    silent: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> tuple[Running, ...]:
        """What runs or waits in a queue."""
        return tuple(each for each in self.claims if each.state != "lost")

    @property
    def troubles(self) -> list[RecordSummary]:
        """The records that are not ok, as they were started."""
        return sorted((r for r in self.records if r.status != "ok"), key=lambda r: r.started)

    @property
    def unasked(self) -> list[str]:
        """A line for each queue that does not answer."""
        return [f"the queue of executor {name!r} does not answer" for name in self.silent]

    def counts(self) -> str:
        """How many records there are of each status, in words."""
        found = Counter(record.status for record in self.records)
        told = ", ".join(f"{number} {status}" for status, number in sorted(found.items()))
        n = len(self.records)
        return f"{n} record{'s' * (n != 1)}{f': {told}' if told else ''}"

    def by_suite(self) -> list[str]:
        """A line for each suite and status."""
        counts: Counter[tuple[str, str]] = Counter()
        draws: dict[tuple[str, str], set[int]] = defaultdict(set)
        alike = Counter((r.template.suite, r.status, r.source_draw) for r in self.records)
        for (suite, status, draw), number in alike.items():
            counts[suite, status] += number
            draws[suite, status].add(draw)
        lines = []
        for (suite, status), number in sorted(counts.items()):
            drawn = len(draws[suite, status])
            on = f" on {drawn} source draws" if drawn > 1 else ""
            lines.append(f"{one_line(suite)}: {number} {status}{on}")
        return lines


def look(store: Store, queues: Queues | None = None) -> State:
    """What is in a store now; ``queues``: what they have just said, if they were asked."""
    records = tuple(store.summaries())
    expected = _expected(records)
    queues = queues or ask_queues(store)
    claims = tuple(
        Running(
            identity,
            claim,
            state,
            # Clocks of machines differ, but not by much more than nothing.
            max(time.time() - claim.since, 0.0) if claim.since else None,
            expected.get(_OWN.sub("", claim.title)),
            untouched_s,
            queues.told.get(claim.ticket, ""),
        )
        for identity, claim, state, untouched_s in seen_claims(store)
    )
    ordered = tuple(sorted(claims, key=lambda c: c.title))
    lines, open_ = list[str](), dict[str, str]()
    if found := list(commands(store)):
        known = {record.identity: record for record in records}
        for command in found:
            left = cells_left(command, known)
            lines.append(how_far(command, len(left)))
            open_ |= left
    return State(records, ordered, store.count_ignored(), queues.silent, tuple(lines), open_)


def _expected(records: Iterable[RecordSummary]) -> dict[str, float]:
    """The median seconds of runs that are ok, by title without seed and draw."""
    times: dict[str, list[float]] = defaultdict(list)
    titles: dict[str, str] = {}
    for record in records:
        if record.status == "ok":
            key = record.template.key
            if key not in titles:
                titles[key] = _OWN.sub("", record.template.cell.title)
            times[titles[key]].append(record.wall_s)
    return {title: statistics.median(seconds) for title, seconds in times.items()}


def told(store: Store) -> Iterator[str]:
    """What is in a store now, for a terminal, a line each."""
    state = look(store)
    yield f"{len(state.records)} records in {store.records}"
    if state.ignored:
        yield f"  {state.ignored} (each is named below)"
    yield from (f"  {line}" for line in state.by_suite())
    yield from (f"at work: {line}" for line in state.commands)
    yield from state.unasked
    yield from (f"{each.state}: {each.title} ({each.where})" for each in state.claims)
    for record in state.troubles:
        yield f"{record.status}: {record.cell.title}: {record.reason}"
        yield f"  log: {one_line(str(store.root / record.log))}"


class StoreView:
    """A store that is looked at again and again and never written: its index lies elsewhere.

    Looks tell whether a claim has lost its command where one look cannot: nobody touched it for
    `EXPIRES_S` by this machine's clock. ``index``: the file, removed by `close`. Raises BenchError
    if the folder has no records.
    """

    def __init__(self, root: Path) -> None:
        root = existing_store(root).root
        self._folder = tempfile.TemporaryDirectory(prefix="bench-view-")
        self.index = Path(self._folder.name, "index.jsonl")
        with suppress(OSError):  # what is known already need not be read again
            shutil.copyfile(root / FILE, self.index)
        self.store = Store(root, self.index)
        self._touched: dict[str, tuple[float, float]] = {}
        self._queues, self._asked = Queues({}, ()), -math.inf

    def look(self) -> State:
        """What is in the store now."""
        if time.monotonic() - self._asked > ASK_EVERY_S:
            self._queues, self._asked = ask_queues(self.store), time.monotonic()
        found = look(self.store, self._queues)
        return replace(found, claims=self._seen(found.claims))

    def close(self) -> None:
        """Remove the index."""
        self._folder.cleanup()

    def _seen(self, claims: Sequence[Running]) -> tuple[Running, ...]:
        now, seen, made = time.monotonic(), {}, []
        for each in claims:
            touch = time.time() - each.untouched_s
            before, since = self._touched.get(each.identity, (touch, now))
            if abs(touch - before) > 1:  # seconds: the two clocks are not read at once
                before, since = touch, now
            seen[each.identity] = before, since
            if each.state != "lost" and not each.claim.ticket and now - since > EXPIRES_S:
                each = replace(each, state="lost")
            made.append(each)
        self._touched = seen
        return tuple(made)
