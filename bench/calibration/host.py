"""The measured machine: its threads, its description, and whether other processes use it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from bench.errors import BenchError

BUSY, BUSY_ACCELERATOR = 0.25, 5
"""A measurement is refused if other processes keep more processors, or more percent of the
accelerator's time, busy than this."""
ALONE = 0.95
"""CPU utilization of each thread below which other processes competed for the cores."""


def use_threads(threads: int) -> None:
    """Compute with this number of threads, scheduled by the system as in a run."""
    import torch

    torch.set_num_threads(threads)


def require_threads(threads: int, cure: str) -> None:
    """Raise BenchError with the ``cure`` if the process may use fewer processors."""
    have = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # under taskset fewer than exist; not on macOS
        have = len(os.sched_getaffinity(0))
    if not 1 <= threads <= have:
        raise BenchError(
            f"{threads} threads: this process may use {have} of the machine's processors; {cure}"
        )


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
        raise BenchError("accelerator cuda: torch finds none here; use cpu, or run 'bench doctor'")
    return "cpu"


def others_at_work() -> float:
    """How many processors are busy now, while this process waits."""
    import psutil

    return float(psutil.cpu_percent(interval=1.0)) / 100 * (os.cpu_count() or 1)


def require_idle(busy: float, force: bool) -> str:
    """A warning or an empty string; BenchError if others keep the machine busy, unless forced."""
    if busy <= BUSY:
        return ""
    return _require_forced(f"{busy:.2f} processors of {os.cpu_count()} busy", force)


def require_idle_accelerator(force: bool) -> str:
    """As `require_idle`, for an accelerator not in use yet; a warning if its load is unknown."""
    import torch

    try:
        busy = int(torch.cuda.utilization(0))
    except Exception as error:  # pynvml is missing or old, or the driver refuses: each in its way
        why = str(error).splitlines()[0] if str(error) else repr(error)
        return f"whether others use the accelerator is not known ({why}): see nvidia-smi"
    if busy <= BUSY_ACCELERATOR:
        return ""
    return _require_forced(f"the accelerator busy {busy} % of the time", force)


def _require_forced(what: str, force: bool) -> str:
    found = f"other work keeps {what}"
    if not force:
        raise BenchError(f"{found}: wait until the machine is idle, or give --force")
    return f"{found}: the numbers will not be those of an idle machine"


def contention_warning(what: str, busy: float, threads: int) -> str:
    """A warning, or nothing, that other processes competed for the cores.

    ``busy``: the share of the wall time in which each of ``threads`` had a processor.
    """
    if busy >= ALONE:
        return ""
    if threads == 1:
        return f"{what} had a processor only {busy:.0%} of the time: others were at work"
    return (
        f"{what} had a processor for each of {threads} threads only {busy:.0%} of the time: others "
        "were at work, or threads had nothing to do"
    )


def facts(accelerator: str, threads: int) -> dict[str, Any]:
    """What a measurement depends on, as JSON."""
    import torch

    from bench.records.environment import environment

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
    """The facts as a sentence, for the source of the curves."""
    device = f"{known['accelerator']} beside " if "accelerator" in known else ""
    load = " ".join(f"{value:.2f}" for value in known["load"])
    return (
        f"Measured on {known['date']} on {device}{known['processor']}, {known['cores']} cores, "
        f"{known['threads']} threads used, torch {known['torch']}, {known['system']}; load "
        f"averages at the start {load}"
    )
