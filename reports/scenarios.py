"""Methods across scenarios: a scenario is a stream on a network, whatever the device."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from bench.io.digest import digest

from .aggregate import SOURCE_ONLY, Row
from .comparison import Comparison, settings_of_cell
from .metrics import COSTS, primary
from .paired import Paired, compare_pairs, geometric_mean, ratio
from .resampling import interquartile_mean, percentile_interval, profile, stratified
from .statistics import SHARE, Estimate, Run, estimate, paired_difference, units

MARGIN = 0.01
"""Of scores: two methods whose difference in a scenario is at most this are tied there."""


@dataclass(frozen=True)
class Entry:
    """One method in one scenario: scores and costs by run, mean over the devices (of costs the
    geometric one, so that ratios to another method are means of ratios). ``display``: what a
    report file calls it.
    """

    scores: Mapping[Run, float]
    costs: Mapping[str, Mapping[Run, float]]
    supervised: bool
    display: str = ""

    @property
    def score(self) -> Estimate:
        """Mean score with its interval over draws or seeds."""
        return estimate(self.scores, SHARE)


@dataclass(frozen=True)
class Scenario:
    """One stream on one network, with the methods that have results there."""

    title: str
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Duel:
    """One method against another over scenarios; a scenario counts once.

    ``wins``, ``ties``, ``losses``: scenarios where the first is better or worse by more than the
    margin, and the others.
    """

    paired: Paired
    wins: int
    ties: int
    losses: int

    @property
    def counts(self) -> str:
        """As 5/1/0."""
        return f"{self.wins}/{self.ties}/{self.losses}"


@dataclass(frozen=True)
class Across:
    """Scenarios whose scores are the same measure, under the name of that measure."""

    measure: str
    scenarios: tuple[Scenario, ...]

    @cached_property
    def methods(self) -> list[str]:
        """Those with results in every scenario: source-only, the others from the best mean score
        down, then the supervised references.
        """
        everywhere = set.intersection(*(set(s.entries) for s in self.scenarios))
        return sorted(everywhere, key=self._rank)

    @cached_property
    def all_methods(self) -> list[str]:
        """Those with results in every scenario, then those with some."""
        others = {name for s in self.scenarios for name in s.entries} - set(self.methods)
        return [*self.methods, *sorted(others, key=self._rank)]

    def supervised(self, method: str) -> bool:
        """Whether a method is a supervised reference."""
        return any(method in s.entries and s.entries[method].supervised for s in self.scenarios)

    def called(self, method: str) -> str:
        """What a report file calls a method, else its name."""
        found = (s.entries[method].display for s in self.scenarios if method in s.entries)
        return next(filter(None, found), method)

    def mean(self, method: str) -> float:
        """Mean score over the scenarios that the method has."""
        return fmean(s.entries[method].score.mean for s in self.scenarios if method in s.entries)

    def duel(self, a: str, b: str, margin: float = MARGIN) -> Duel | None:
        """Method against method over the scenarios with runs of both; None without any."""
        found = []
        for scenario in self.scenarios:
            if a in scenario.entries and b in scenario.entries:
                pair = scenario.entries[a].scores, scenario.entries[b].scores
                difference = paired_difference(*pair)
                if difference is not None:
                    found.append(difference.mean)
        if not found:
            return None
        # A difference of exactly the margin is a tie, whatever rounding made of it.
        wins, losses = (sum(s * d > margin + 1e-12 for d in found) for s in (1, -1))
        return Duel(compare_pairs(found), wins, len(found) - wins - losses, losses)

    def cost_ratio(self, cost: str, a: str, b: str) -> Estimate | None:
        """Geometric mean over the scenarios of a cost of ``a`` as a ratio to that of ``b``."""
        found = []
        for scenario in self.scenarios:
            if a in scenario.entries and b in scenario.entries:
                known = ratio(scenario.entries[a].costs[cost], scenario.entries[b].costs[cost])
                if known is not None:
                    found.append(known.mean)
        return geometric_mean(found)

    def strata(self, method: str) -> list[list[float]]:
        """By scenario the method's repeats: means of draws, or of seeds."""
        return [list(units(s.entries[method].scores).values()) for s in self.scenarios]

    def interquartile(self, method: str) -> tuple[float, tuple[float, float]]:
        """Interquartile mean over the repeats of all scenarios, and its bootstrap interval."""
        strata = self.strata(method)
        point = interquartile_mean(np.concatenate([np.asarray(s) for s in strata]))
        return float(point), percentile_interval(interquartile_mean(stratified(strata)))

    def profile(self, method: str, levels: Sequence[float]) -> list[float]:
        """For each level the share of runs at most that far below the scenario's best method."""
        gaps = [[b - v for v in s] for b, s in zip(self.best, self.strata(method), strict=True)]
        return [float(share) for share in profile(gaps, levels)]

    @cached_property
    def best(self) -> list[float]:
        """By scenario the best mean score of a method that sees no target labels."""
        rivals = [m for m in self.methods if not self.supervised(m)] or self.methods
        return [max(s.entries[m].score.mean for m in rivals) for s in self.scenarios]

    def _rank(self, method: str) -> tuple[bool, bool, float, str]:
        itself = method == SOURCE_ONLY
        return self.supervised(method), not itself, -self.mean(method), method


def across(comparisons: Iterable[Comparison]) -> list[Across]:
    """By measure the scenarios of comparisons, where there are at least two with two methods.

    Comparisons that differ in the device, or in where they were computed, are one scenario: they
    share their data and training, and would count it twice. Oracle settings are left out.
    """
    groups: dict[str, dict[str, list[Comparison]]] = defaultdict(lambda: defaultdict(list))
    for comparison in comparisons:
        if comparison.drawn:
            key = digest(settings_of_cell(comparison.cell))
            groups[primary(comparison.cell.protocol).name][key].append(comparison)
    made = []
    for measure, found in groups.items():
        titles = _titles({key: each[0] for key, each in found.items()})
        scenarios = tuple(
            sorted(
                (Scenario(titles[key], _entries(each)) for key, each in found.items()),
                key=lambda scenario: scenario.title,
            )
        )
        several = Across(measure, scenarios)
        if len(scenarios) > 1 and len(several.methods) > 1:
            made.append(several)
    return made


def _entries(comparisons: Sequence[Comparison]) -> dict[str, Entry]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for comparison in comparisons:
        for row in comparison.drawn:
            if not row.is_oracle:
                rows[row.label].append(row)
    return {
        label: Entry(
            _mean_by_run([row.scores for row in each]),
            {
                cost: {
                    run: math.exp(log)
                    for run, log in _mean_by_run([_logs(row.amounts(cost)) for row in each]).items()
                }
                for cost in COSTS
            },
            each[0].supervised,
            each[0].display,
        )
        for label, each in rows.items()
        if _mean_by_run([row.scores for row in each])
    }


def _logs(amounts: Mapping[Run, float]) -> dict[Run, float]:
    return {run: math.log(value) for run, value in amounts.items() if value > 0}


def _mean_by_run(several: Sequence[Mapping[Run, float]]) -> dict[Run, float]:
    """The mean over devices for each run that all of them have."""
    common = set.intersection(*(set(each) for each in several))
    return {run: fmean(each[run] for each in several) for run in sorted(common)}


def _titles(found: Mapping[str, Comparison]) -> dict[str, str]:
    """What tells scenarios apart, in words: of stream, model and protocol the parts that differ."""
    parts = {
        key: (c.cell.stream.name, c.cell.model_title, str(c.cell.protocol.get("name", "")))
        for key, c in found.items()
    }
    differing = [i for i in range(3) if len({p[i] for p in parts.values()}) > 1]
    titles = {key: " · ".join(p[i] for i in differing) for key, p in parts.items()}
    counts = Counter(titles.values())
    told = {key: found[key].variant or key[:6] for key in found}
    return {
        key: title if counts[title] == 1 else f"{title} ({told[key]})".strip()
        for key, title in titles.items()
    }
