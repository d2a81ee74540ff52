"""What a reader wants first: by device the best method that competes, by how much, how sure that
is, and the best within a budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.errors import BenchError

from .aggregate import Row, clean, shorten
from .chance import no_conclusion
from .comparison import Comparison
from .further_blocks import p_value
from .metrics import COSTS, primary
from .paired import ENOUGH_PAIRS, Paired, paired
from .statistics import ENOUGH_FOR_INTERVAL, distinguishable, over_draws, paired_difference
from .table_model import (
    DASH,
    UP,
    Block,
    Sheet,
    cost,
    cost_kinds,
    name_of,
    percent,
    signed_points,
)

NAME_LIMIT = 48
"""Characters of a method's name in the answer; the tables have all of it."""
NAMED = 6
"""Methods that a note names before it counts the rest."""
NAMED_IN_CELL = 2
"""The same in a table."""

WITHIN = (
    "Within a budget: every run of the method is. Memory does not include the runtime itself; "
    "adaptation energy is of the whole stream."
)
UNITS = {"energy": "J", "memory": "MB"}
"""Costs that may have a budget, and its unit."""


@dataclass(frozen=True)
class Answer:
    """Of one comparison the best row that competes, the next, how the best differs from it, and
    the rows that the paired interval does not tell from the best.
    """

    comparison: Comparison
    best: Row
    runner_up: Row | None
    margin: Paired | None
    tied: tuple[Row, ...]


class Ranked:
    """The rows of a comparison that compete, from the best down; pairs are compared once."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison, self.rows = comparison, ranking(comparison)
        self._scores = [row.scores for row in self.rows]
        self._tied: dict[int, list[int]] = {}
        self._margins: dict[tuple[int, int], Paired | None] = {}

    def answer(self, budgets: Mapping[str, float] = MappingProxyType({})) -> Answer | None:
        """The answer among the rows within budgets, in the units of `UNITS`; None without any."""
        kept = [i for i, row in enumerate(self.rows) if _fits(row, budgets)]
        if not kept:
            return None
        best, *others = kept
        if best not in self._tied:
            self._tied[best] = [
                i for i in range(best + 1, len(self.rows)) if self._is_tied(best, i)
            ]
        tied = tuple(self.rows[i] for i in self._tied[best] if i in others)
        if not others:
            return Answer(self.comparison, self.rows[best], None, None, tied)
        pair = best, others[0]
        if pair not in self._margins:
            self._margins[pair] = paired(*(self._scores[i] for i in pair))
        margin = self._margins[pair]
        return Answer(self.comparison, self.rows[best], self.rows[others[0]], margin, tied)

    def steps(self, name: str) -> list[tuple[float, Answer]]:
        """Amounts of a cost, from the least up, from which on the answer is another, and that."""
        limits = sorted({_most(row, name) for row in self.rows} - {math.inf})
        found = [(limit, self.answer({name: limit})) for limit in limits]
        known = [(limit, answer) for limit, answer in found if answer is not None]
        return [
            (limit, answer)
            for i, (limit, answer) in enumerate(known)
            if not i or _who(answer) != _who(known[i - 1][1])
        ]

    def _is_tied(self, i: int, j: int) -> bool:
        difference = paired_difference(self._scores[i], self._scores[j])
        return distinguishable(difference) is False


def _who(answer: Answer) -> list[str]:
    """The rows that an answer names."""
    second = [] if answer.runner_up is None else [answer.runner_up]
    return [row.label for row in (answer.best, *second, *answer.tied)]


def answer_of(comparison: Comparison) -> Answer | None:
    """The answer; None where no row that competes has results."""
    return Ranked(comparison).answer()


def ranking(comparison: Comparison) -> list[Row]:
    """The rows that compete, source-only included, from the best mean score down."""
    rows = [row for row in comparison.drawn if row.competes]
    return sorted(rows, key=lambda row: -_score(row))


def checked_budgets(max_energy: float | None, max_memory: float | None) -> dict[str, float]:
    """The budgets that are given, in J and MB; BenchError for what is no amount."""
    given = {"energy": max_energy, "memory": max_memory}
    for name, value in given.items():
        if value is not None and not 0 <= value < math.inf:
            raise BenchError(
                f"--max-{name} {value:g}: give {UNITS[name]} from 0 up, as --max-{name} 3"
            )
    return {name: value for name, value in given.items() if value is not None}


def answer_sheet(
    comparisons: Iterable[Comparison], budgets: Mapping[str, float] | None = None
) -> Sheet | None:
    """The answers as tables; None where no method that competes has results.

    ``budgets``: limits by cost, in the unit of `UNITS`.
    """
    found = [a for c in comparisons if (a := answer_of(c)) is not None]
    if not found:
        return None
    blocks = [_best(found)]
    notes = [*_meaning(found), *_tied(found), *_other_runs(found)]
    if budgets:
        blocks.append(_within(found, budgets))
        notes += _budget_notes(found, budgets)
    return Sheet("Answer", "answer", tuple(blocks), tuple(clean(text) for text in notes))


def how_sure(margin: Paired | None, tied: Sequence[Row] = ()) -> str:
    """What the pairs allow to say of the best: ``margin`` to the runner-up, the rows ``tied``."""
    if margin is None:
        return "no run in common"
    n = margin.difference.n
    if n < ENOUGH_FOR_INTERVAL:
        return f"n too small ({n} pair{'s' * (n > 1)})"
    told = "distinguishable from all others"
    if tied:
        told = f"not distinguishable from {named(tied, NAMED_IN_CELL)}"
    if margin.p is not None:
        return f"{told}; p {p_value(margin.p)}"
    few = f"{n} pairs, too few" if n < ENOUGH_PAIRS else f"too few of {n} pairs differ"
    return f"{told}; {few} for a test"


def sure_cells(answer: Answer) -> tuple[str, str, str]:
    """The best, the runner-up and how sure that is, as cells of a table."""
    if answer.runner_up is None:
        return brief(answer.best), DASH, "no other method"
    told = how_sure(answer.margin, answer.tied)
    if no_conclusion(answer.comparison):
        told = "no conclusion: the source model is at chance"
    return brief(answer.best), brief(answer.runner_up), told


def _best(found: Sequence[Answer]) -> Block:
    several = {a.comparison.metric.title for a in found}
    score = found[0].comparison.metric.title if len(several) == 1 else "score"
    labelled = any(map(_sees_labels, found))
    heads = ("where", "best" if labelled else "best without labels", "runner-up", "how sure",
             f"{score} {UP} (%)", "margin (points)", "pairs")  # fmt: skip
    rows = []
    for a in found:
        pairs = DASH if a.margin is None else str(a.margin.difference.n)
        rows.append((
            clean(a.comparison.place),
            *sure_cells(a),
            percent(a.best.accuracy["score"]),
            signed_points(None if a.margin is None else a.margin.difference),
            pairs,
        ))  # fmt: skip
    title = "Best method" if labelled else "Best method without labels of the target"
    return Block(title, heads, tuple(rows), (), texts=4)


def _sees_labels(answer: Answer) -> bool:
    """Whether methods that compete are given the labels of the target domains, as all are where
    new classes arrive.
    """
    rows = ranking(answer.comparison)
    return any("target_labels" in row.runs[0].method.needs for row in rows)


def _within(found: Sequence[Answer], budgets: Mapping[str, float]) -> Block:
    """The best of the rows whose every run stays within the budgets."""
    heads = ["where", *within_heads(budgets), "to the best of all (points)"]
    rows = []
    for a in found:
        place = clean(a.comparison.place)
        within = Ranked(a.comparison).answer(budgets)
        if within is None:
            rows.append((place, least(a.comparison, budgets), *[DASH] * (len(heads) - 2)))
            continue
        loss = None if within.best is a.best else paired(within.best.scores, a.best.scores)
        rows.append((
            place,
            *within_cells(within, budgets),
            signed_points(None if loss is None else loss.difference),
        ))  # fmt: skip
    kinds = {cost_kinds(a.comparison)[0] for a in found}
    known = f" (costs {kinds.pop()})" if len(kinds) == 1 and "" not in kinds else ""
    title = f"Best within {told_budgets(budgets)}{known}"
    return Block(title, tuple(heads), tuple(rows), (), texts=4)


def within_heads(names: Iterable[str]) -> list[str]:
    """The heads of `within_cells`."""
    costs = (f"{COSTS[name].head} ({UNITS[name]})" for name in names)
    return ["best within", "runner-up within", "how sure", "score (%)", "margin (points)", *costs]


def within_cells(answer: Answer, names: Iterable[str]) -> list[str]:
    """The best within a budget, the runner-up, how sure that is, score, margin and these costs."""
    margin = None if answer.margin is None else answer.margin.difference
    costs = (cost(answer.best.costs[name], COSTS[name].factor) for name in names)
    score = percent(answer.best.accuracy["score"])
    return [*sure_cells(answer), score, signed_points(margin), *costs]


def told_budgets(budgets: Mapping[str, float]) -> str:
    """As ``adaptation energy up to 3 J, peak memory up to 60 MB``."""
    return ", ".join(f"{COSTS[n].head} up to {v:g} {UNITS[n]}" for n, v in budgets.items())


def _fits(row: Row, budgets: Mapping[str, float]) -> bool:
    """Whether the costs of all runs are known and within the limits."""
    return all(_most(row, name) <= limit for name, limit in budgets.items())


def _most(row: Row, name: str) -> float:
    """A cost of the row's dearest run, in the unit of `UNITS`; infinite where one is unknown."""
    amounts = row.amounts(name)
    if len(amounts) < len(row.results):
        return math.inf
    return max(amounts.values()) * COSTS[name].factor


def least(comparison: Comparison, names: Iterable[str]) -> str:
    """That nothing is within budgets of these costs, and what the least is."""
    told = []
    for name in names:
        known = [
            (most, brief(row))
            for row in ranking(comparison)
            if (most := _most(row, name)) < math.inf
        ]
        if known:
            value, who = min(known)
            told.append(f"least {name} {value:.3g} {UNITS[name]} ({who})")
    return f"none; {', '.join(told)}" if told else "none; no such cost is known"


def _meaning(found: Sequence[Answer]) -> list[str]:
    scores = list(dict.fromkeys(primary(a.comparison.cell.protocol).head for a in found))
    over = {over_draws(a.best.scores) for a in found}
    named = {True: "draws of the source model", False: "seeds"}
    repeats = " or ".join(named[each] for each in sorted(over))
    seen = {_sees_labels(a) for a in found}
    who = "see no labels of the target domains"
    if seen == {True}:
        who = "compete, with the labels of the target domains"
    elif True in seen:
        who = "compete: those without labels of the target domains, or all where these are given"
    return [
        f"Best: highest score ({' or '.join(scores)}) of the methods that {who}, no adaptation "
        "(source-only) and controls among them; oracle settings left out.",
        f"Margin: paired difference to the runner-up over {repeats}, with its 95 % interval; "
        f"below {ENOUGH_FOR_INTERVAL} pairs n is too small for one that says anything. p: of "
        "Wilcoxon's signed-rank test against the runner-up, for which fewer than 6 pairs that "
        "differ are too few.",
        "How sure: distinguishable where the 95 % interval of the paired difference excludes 0, "
        "each pair of methods by itself, not corrected for their number.",
    ]


def _tied(found: Sequence[Answer]) -> list[str]:
    """Which others are not distinguishable from the best."""
    lines: dict[str, list[str]] = {}
    for a in found:
        if a.tied:
            text = f"not distinguishable from {brief(a.best)} by these runs: {named(a.tied)}"
            lines.setdefault(text, []).append(a.comparison.place)
    return [f"{'; '.join(titles)}: {text}." for text, titles in lines.items()]


def _other_runs(found: Sequence[Answer]) -> list[str]:
    """Where the best and the runner-up were not run alike."""
    lines = []
    for a in found:
        other = a.runner_up
        if other is not None and a.best.results.keys() != other.results.keys():
            common = len(a.best.results.keys() & other.results.keys())
            lines.append(
                f"{a.comparison.place}: {brief(a.best)} has {len(a.best.results)} runs and "
                f"{brief(other)} {len(other.results)}; the margin is over the {common} that both "
                "have."
            )
    return lines


def _budget_notes(found: Sequence[Answer], budgets: Mapping[str, float]) -> list[str]:
    notes = [WITHIN]
    for name in budgets:
        unknown = {
            row.label: row
            for a in found
            for row in ranking(a.comparison)
            if len(row.amounts(name)) < len(row.results)
        }
        if unknown:
            rows = list(unknown.values())
            notes.append(f"Not looked at, {COSTS[name].head} unavailable: {named(rows)}.")
    return notes


def named(rows: Sequence[Row], most: int = NAMED) -> str:
    """Names of rows, so many that a line can be read."""
    told = ", ".join(brief(row) for row in rows[:most])
    return told if len(rows) <= most else f"{told} and {len(rows) - most} more"


def brief(row: Row) -> str:
    """A row's name, cut where it is very long."""
    return shorten(name_of(row, caveats=True), NAME_LIMIT)


def _score(row: Row) -> float:
    known = row.accuracy["score"]
    return -math.inf if known is None else known.mean
