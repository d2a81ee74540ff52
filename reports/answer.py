"""What a reader wants first: by device the best method without labels, by how much, how sure that
is, and the best within a budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import BenchError

from .aggregate import Row, clean, shorten
from .chance import no_conclusion
from .comparison import Comparison
from .further_blocks import p_value
from .metrics import COSTS, primary
from .paired import Paired, paired
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


def answer_of(comparison: Comparison) -> Answer | None:
    """The answer; None where no row that competes has results."""
    ranked = ranking(comparison)
    if not ranked:
        return None
    best, *others = ranked
    tied = [
        row
        for row in others
        if distinguishable(paired_difference(best.scores, row.scores)) is False
    ]
    runner_up = others[0] if others else None
    margin = None if runner_up is None else paired(best.scores, runner_up.scores)
    return Answer(comparison, best, runner_up, margin, tuple(tied))


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


def how_sure(margin: Paired | None) -> str:
    """What the pairs allow to say of a margin."""
    if margin is None:
        return "no run in common"
    n = margin.difference.n
    if n < ENOUGH_FOR_INTERVAL:
        return f"n too small ({n} pair{'s' * (n > 1)})"
    told = "excludes" if distinguishable(margin.difference) else "includes"
    p = f"p {p_value(margin.p)}" if margin.p is not None else f"p: {p_value(None)}"
    return f"interval {told} 0; {p}"


def _best(found: Sequence[Answer]) -> Block:
    several = {a.comparison.metric.title for a in found}
    score = found[0].comparison.metric.title if len(several) == 1 else "score"
    heads = ("where", "best without labels", "runner-up", "how sure", f"{score} {UP} (%)",
             "margin (points)", "pairs")  # fmt: skip
    rows = []
    for a in found:
        pairs = DASH if a.margin is None else str(a.margin.difference.n)
        rows.append((
            clean(a.comparison.place),
            brief(a.best),
            DASH if a.runner_up is None else brief(a.runner_up),
            _sureness(a),
            percent(a.best.accuracy["score"]),
            signed_points(None if a.margin is None else a.margin.difference),
            pairs,
        ))  # fmt: skip
    return Block("Best method without labels of the target", heads, tuple(rows), (), texts=4)


def _sureness(answer: Answer) -> str:
    if no_conclusion(answer.comparison):
        return "no conclusion: the source model is at chance"
    return "no other method" if answer.runner_up is None else how_sure(answer.margin)


def _within(found: Sequence[Answer], budgets: Mapping[str, float]) -> Block:
    """The best of the rows whose every run stays within the budgets."""
    heads = ["where", "best within", "score (%)", "to the best of all (points)"]
    for name in UNITS:
        heads.append(f"{COSTS[name].head} ({UNITS[name]})")
    rows = []
    for a in found:
        kept = [row for row in ranking(a.comparison) if _fits(row, budgets)]
        if not kept:
            rows.append((clean(a.comparison.place), _least(a, budgets), *[DASH] * (len(heads) - 2)))
            continue
        best = kept[0]
        loss = None if best is a.best else paired(best.scores, a.best.scores)
        rows.append((
            clean(a.comparison.place),
            brief(best),
            percent(best.accuracy["score"]),
            signed_points(None if loss is None else loss.difference),
            *(cost(best.costs[name], COSTS[name].factor) for name in UNITS),
        ))  # fmt: skip
    kinds = {cost_kinds(a.comparison)[0] for a in found}
    known = f" (costs {kinds.pop()})" if len(kinds) == 1 and "" not in kinds else ""
    title = f"Best within {told_budgets(budgets)}{known}"
    return Block(title, tuple(heads), tuple(rows), (), texts=2)


def told_budgets(budgets: Mapping[str, float]) -> str:
    """As ``adaptation energy up to 3 J, peak memory up to 60 MB``."""
    return ", ".join(f"{COSTS[n].head} up to {v:g} {UNITS[n]}" for n, v in budgets.items())


def _fits(row: Row, budgets: Mapping[str, float]) -> bool:
    """Whether the costs of all runs are known and within the limits."""
    for name, limit in budgets.items():
        amounts = row.amounts(name)
        if len(amounts) < len(row.results):
            return False
        if max(amounts.values()) * COSTS[name].factor > limit:
            return False
    return True


def _least(answer: Answer, budgets: Mapping[str, float]) -> str:
    """That nothing is within, and what the least is."""
    told = []
    for name in budgets:
        factor = COSTS[name].factor
        known = [
            (max(amounts.values()) * factor, brief(row))
            for row in ranking(answer.comparison)
            if (amounts := row.amounts(name))
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
    return [
        f"Best: highest score ({' or '.join(scores)}) of the methods that see no labels of the "
        "target domains, no adaptation (source-only) and controls among them; oracle settings left "
        "out.",
        f"Margin: paired difference to the runner-up over {repeats}, with its 95 % interval; "
        f"below {ENOUGH_FOR_INTERVAL} pairs n is too small for one that says anything. p of "
        "Wilcoxon's signed-rank test, for which n is too small below 6 pairs that differ.",
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
    notes = [
        "Within a budget: every run of the method is. Memory does not include the runtime itself; "
        "adaptation energy is of the whole stream."
    ]
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


def named(rows: Sequence[Row]) -> str:
    """Names of rows, so many that a line can be read."""
    told = ", ".join(brief(row) for row in rows[:NAMED])
    return told if len(rows) <= NAMED else f"{told} and {len(rows) - NAMED} more"


def brief(row: Row) -> str:
    """A row's name, cut where it is very long."""
    return shorten(name_of(row, caveats=True), NAME_LIMIT)


def _score(row: Row) -> float:
    known = row.accuracy["score"]
    return -math.inf if known is None else known.mean
