"""Which settings a search ends with: the paper's default, unless another beats it beyond noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from bench.records.record import Record

RULE = (
    "the best of the trials that ran on every validation run, if its mean paired difference to the "
    "defaults is larger than the standard error of that difference; else the defaults"
)


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their scores: one for each validation run that they had."""

    settings: dict[str, Any]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean score over the runs."""
        return fmean(self.scores)


@dataclass(frozen=True)
class Chosen:
    """What a search ends with.

    ``best``: the best trial; ``taken``: the one whose settings are used, the defaults or ``best``.
    ``gain`` and ``standard_error``: of the paired differences of ``best`` to the defaults, None
    where the defaults failed; ``default``: the defaults' trial, None where it failed.
    """

    taken: Trial
    best: Trial
    default: Trial | None
    gain: float | None = None
    standard_error: float | None = None


def score_of(record: Record) -> float:
    """The score of a validation run in [0, 1], not a number if it has no results.

    That by which methods are compared (`Results.score`). Where nothing resets the method and the
    score is of the time right after adaptation, it is averaged with what is kept of it at the end
    of the stream, so that settings under which a method collapses later are not chosen.
    """
    results = record.results
    if results is None:
        return math.nan
    if results.seen_at_end is None and record.cell.protocol.get("reset") == "never":
        return (results.score + results.mean("final")) / 2
    return results.score


def choose(trials: Sequence[Trial], runs: int) -> Chosen | None:
    """Of the trials in their order, the defaults first, by `RULE`; None if none ran on all runs.

    ``runs``: how many validation runs there are, 2 or more. Of equal trials the first is the best.
    """
    whole = [trial for trial in trials if len(trial.scores) == runs]
    if not whole:
        return None
    best = max(whole, key=lambda trial: trial.mean)
    default = whole[0] if not whole[0].settings else None
    if default is None or best is default:
        return Chosen(best, best, default)
    pairs = [b - d for b, d in zip(best.scores, default.scores, strict=True)]
    gain, error = fmean(pairs), stdev(pairs) / math.sqrt(runs)
    return Chosen(best if gain > error else default, best, default, gain, error)
