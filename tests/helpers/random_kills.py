"""Kill at random what works on a store, again and again: nothing may be lost of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

PATIENCE_S = 120.0
RARE = 0.2
"""Weight of what takes long to come back: the command and a scheduler."""


def below(pid: int, *words: str) -> list[psutil.Process]:
    """Processes that a process has started, with one of these words in their command lines."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if any(word in line for word in words):
                    found.append(process)
    return found


def kill_at_random(
    workplace,
    command: tuple[str, ...],
    kills: int,
    victims: Callable[[int], dict[str, list[int]]],
    cells: int,
    longest_s: float = 2.0,
) -> Counter[str]:
    """Give a command until all its cells are recorded, with so many kills on the way.

    ``victims``: by kind the processes to choose from, given that of the command, which is one too;
    it is asked again and again, and may start again what was killed. A kill comes while a ``run``
    is at work, or where none begins for `PATIENCE_S`.
    Asserted: a record that is ok is never changed or removed, and that all are ok in the end.
    Returns the kills by kind. ``BENCH_KILL_SEED``: of the draws, which is printed.
    """
    seed = int(os.environ.get("BENCH_KILL_SEED", "0"))
    print(f"\nseed {seed}", flush=True)
    draw, killed = random.Random(seed), Counter()
    folder = workplace.folder / "store" / "records"
    done: dict[str, bytes] = {}
    deadline = time.monotonic() + 3600
    while True:
        process = workplace.start("run", *command, cold=True)
        last, before = time.monotonic(), killed.total()
        while process.poll() is None:
            assert time.monotonic() < deadline, killed
            time.sleep(0.1)
            found = victims(process.pid) | {"command": [process.pid]}
            working = found.get("run") or time.monotonic() - last > PATIENCE_S
            if killed.total() >= kills or not working:
                continue
            time.sleep(draw.uniform(0.0, longest_s))
            kinds = sorted(name for name, pids in found.items() if pids)
            weights = [RARE if name in ("command", "scheduler") else 1.0 for name in kinds]
            (kind,) = draw.choices(kinds, weights)
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(found[kind]), signal.SIGKILL)
                killed[kind] += 1
                print(f"kill {killed.total()}: {kind}; {len(ok_records(folder))} done", flush=True)
            last = time.monotonic()
        said = process.communicate()[1]
        # A command may give up after a kill alone; one whose runs were interrupted ends with 1.
        assert process.returncode in (0, 1) or killed.total() > before, said
        for name, content in ok_records(folder).items():
            assert done.setdefault(name, content) == content, "a result was replaced"
        assert done.keys() <= ok_records(folder).keys(), "a result was lost"
        if process.returncode == 0:
            break
    records = workplace.records()
    assert len(records) == cells
    assert {record.status for record in records.values()} == {"ok"}
    return killed


def ok_records(folder) -> dict[str, bytes]:
    """The files of records that are ok."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    return {name: content for name, content in found.items() if b'"status": "ok"' in content}
