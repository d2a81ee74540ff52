"""The machine that is measured: its threads, what it is, and whether others are at work on it."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bench.errors import BenchError

BUSY = 0.25
"""Processors' worth of other work at which a measurement is refused."""
WATCH_S = 1.0
ALONE = 0.95
"""Share of its time in which a process that is alone has a processor."""


def pin(threads: int) -> None:
    """Compute with so many threads, on as many processors of their own where the system can."""
    import torch

    torch.set_num_threads(threads)
    with suppress(AttributeError, OSError):  # not on macOS; not where it is forbidden
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-threads:])


def require_threads(threads: int) -> None:
    """BenchError if the machine has not so many processors."""
    have = os.cpu_count() or 1
    if not 1 <= threads <= have:
        raise BenchError(f"--threads {threads}: this machine has 1 to {have}")


def accelerator(given: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` is cuda where torch finds one. BenchError if there is none."""
    if given not in ("auto", "cpu", "cuda"):
        raise BenchError(f"--accelerator {given!r}: use auto, cpu or cuda")
    if given == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if given == "cuda":
        raise BenchError(
            "--accelerator cuda: torch finds none here; use cpu, or run 'bench doctor'"
        )
    return "cpu"


def others_at_work() -> float:
    """How many processors are busy now, while this process waits."""
    import psutil

    return float(psutil.cpu_percent(interval=WATCH_S)) / 100 * (os.cpu_count() or 1)


def require_idle(busy: float, force: bool) -> str:
    """A warning to print, or empty; BenchError if others are at work and it is not forced."""
    if busy <= BUSY:
        return ""
    found = f"other work keeps {busy:.2f} processors of {os.cpu_count()} busy"
    if not force:
        raise BenchError(f"{found}: wait until the machine is idle, or give --force")
    return f"{found}: the numbers will not be those of an idle machine"


def facts(accelerator: str, threads: int) -> dict[str, Any]:
    """What a measurement depends on."""
    import torch

    from bench.environment import environment

    known = environment()
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": known["processor"],
        "cores": known["cores"],
        "threads": threads,
        "torch": known["packages"]["torch"],
        "system": known["platform"],
        "load": list(os.getloadavg()),
    }
    if accelerator != "cpu":
        found["accelerator"] = torch.cuda.get_device_name(0)
    return found


def sentence(known: dict[str, Any]) -> str:
    """The facts in words, for the source of the curves."""
    device = f"{known['accelerator']} beside " if "accelerator" in known else ""
    load = " ".join(f"{value:.2f}" for value in known["load"])
    return (
        f"Measured on {known['date']} on {device}{known['processor']}, {known['cores']} cores, "
        f"{known['threads']} threads used, torch {known['torch']}, {known['system']}; load "
        f"averages at the start {load}"
    )
