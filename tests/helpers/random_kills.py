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

    ``victims``: by kind the processes to choose from, given that of the command, which is one too.
    Asserted: a record that is ok is never changed or removed, and that all are ok in the end.
    Returns the kills by kind.
    """
    draw, killed = random.Random(0), Counter()
    folder = workplace.folder / "store" / "records"
    done: dict[str, bytes] = {}
    deadline = time.monotonic() + 3600
    while True:
        process = workplace.start("run", *command)
        while process.poll() is None:
            assert time.monotonic() < deadline, killed
            process_ends_in(process, draw.uniform(0.2, longest_s))
            if killed.total() >= kills:
                continue
            found = victims(process.pid) | {"command": [process.pid]}
            kind = draw.choice(sorted(name for name, pids in found.items() if pids))
            # One that has just begun would never come to its work.
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(found[kind]), signal.SIGKILL)
                killed[kind] += 1
        said = process.communicate()[1]
        assert process.returncode in (0, 1, 2, -signal.SIGKILL), said
        for name, content in ok_records(folder).items():
            assert done.setdefault(name, content) == content, "a result was replaced"
        assert done.keys() <= ok_records(folder).keys(), "a result was lost"
        if process.returncode == 0:
            break
    records = workplace.records()
    assert len(records) == cells
    assert {record.status for record in records.values()} == {"ok"}
    return killed


def process_ends_in(process, seconds: float) -> None:
    """Wait so long, or to the end of the process."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)


def ok_records(folder) -> dict[str, bytes]:
    """The files of records that are ok."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    return {name: content for name, content in found.items() if b'"status": "ok"' in content}
