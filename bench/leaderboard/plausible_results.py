"""Whether a record's numbers can be: its sums, shares of whole samples, and the device's limits."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from functools import cache

from bench.costs.device_profile import ModelledDevice, device_names, load_device, profile_digest
from bench.records.record import Record, Results

CLOSE = 1e-6
"""Relative: sums of rounded numbers."""
AHEAD = datetime.timedelta(days=1)
"""So far in the future a run may have started by a clock that goes wrong."""


def implausible(record: Record) -> Iterator[str]:
    """A line for each number that cannot be."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        started = datetime.datetime.fromisoformat(record.started)
    except ValueError:
        yield f"started {record.started!r:.40} is no time"
    else:
        if started.tzinfo is None or started > now + AHEAD:
            yield f"started {record.started} is not a time in the past with its zone"
    if record.results is None:
        return
    if record.wall_s <= 0:
        yield f"the run took {record.wall_s:g} s"
    yield from _scores(record.results)
    yield from _sums(record.results)
    yield from _limits(record, record.results)


def known_device(record: Record) -> ModelledDevice | None:
    """The profile of this version of a modelled device, if it has the record's numbers."""
    device = _device(record.cell.device)
    known = device is not None and profile_digest(device) == record.cell.device_digest
    return device if known else None


def _scores(results: Results) -> Iterator[str]:
    """An accuracy over n samples is a multiple of 1 / n."""
    if results.metric.name != "accuracy" or not results.metric.of_samples:
        return
    for domain in results.domains:
        for when in ("before", "after", "final"):
            value = getattr(domain, when) * domain.test_samples
            if abs(value - round(value)) > 1e-4:
                share = getattr(domain, when)
                yield (
                    f"domain {domain.name!r:.60}: accuracy {share:.6g} ({when}) is no share of "
                    f"{domain.test_samples} test samples"
                )
                return


def _sums(results: Results) -> Iterator[str]:
    costs = results.costs
    known = {"time_s": costs.adaptation_time.value, "energy_j": costs.adaptation_energy.value}
    for name, total in known.items():
        parts = [getattr(domain, name) for domain in results.domains]
        if total is None or None in parts:
            continue
        if not math.isclose(sum(parts), total, rel_tol=CLOSE, abs_tol=1e-9):
            yield f"{name} of the domains adds up to {sum(parts):.6g}, its total is {total:.6g}"
    if sum(costs.steps.values()) != sum(domain.steps for domain in results.domains):
        yield "steps of the domains do not add up to those of all kinds"
    negative = [name for name, each in costs if (getattr(each, "value", None) or 0) < 0]
    yield from (f"{name} is negative" for name in negative)


def _limits(record: Record, results: Results) -> Iterator[str]:
    """No device works above its peak, or on more power than it may take."""
    costs = results.costs
    seconds, joules = costs.adaptation_time.value, costs.adaptation_energy.value
    if costs.adaptation_time.kind == "measured" and (seconds or 0) > record.wall_s * (1 + CLOSE):
        yield f"adaptation was measured to take {seconds:g} s of a run of {record.wall_s:g} s"
    device = known_device(record)
    if device is None or costs.adaptation_time.kind != "modelled" or not seconds:
        return
    peak = max(quantity.value for quantity in device.flops.values())
    if (costs.flops or 0) > peak * seconds * (1 + CLOSE):
        yield (
            f"{(costs.flops or 0) / seconds:.3g} FLOP/s are more than {device.name}'s peak of "
            f"{peak:.3g}"
        )
    if joules is not None and joules < device.power_idle.value * seconds * (1 - CLOSE):
        yield (
            f"{joules / seconds:.3g} W are less than {device.name} takes idle, "
            f"{device.power_idle.value:g} W"
        )
    needed = costs.needed_memory.value
    room = device.memory_for_applications.value - device.runtime_memory.value
    if needed is not None and needed > room * (1 + CLOSE):
        yield f"{needed / 1e6:.0f} MB do not fit {device.name}, which leaves {room / 1e6:.0f} MB"


@cache
def _device(name: str) -> ModelledDevice | None:
    """A profile by its name alone: a record's path is of another machine."""
    if name not in device_names():
        return None
    device = load_device(name)
    return device if isinstance(device, ModelledDevice) else None
