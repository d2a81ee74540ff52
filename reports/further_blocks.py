"""Tables that a comparison has where its data carry them: paired comparisons, components of
variance, tuned beside default settings, models before the stream, and where a gain comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.records.record import Results

from .aggregate import SOURCE_ONLY, Row, find_row
from .comparison import Comparison
from .footnotes import footnotes
from .latency_block import NOTE, latency_block
from .metrics import WORDS, has_matrix
from .operations_block import NOTE as OPERATIONS_NOTE
from .operations_block import operations_block
from .paired import ENOUGH_PAIRS, Paired, holm, paired, ratio
from .statistics import (
    SHARE,
    Components,
    Run,
    components,
    estimate,
    over_draws,
    paired_difference,
)
from .table_model import (
    DASH,
    Block,
    Sheet,
    block,
    blocks,
    cost_number,
    name_of,
    percent,
    signed_points,
    without_zero_spread,
)
from .time_to_score import NOTE as TIME_NOTE
from .time_to_score import time_to_score_block

RATIOS = ("energy", "memory", "time")
"""The costs whose ratios to a named reference are shown."""

TOO_SMALL = "n too small"

Scores = Mapping[Run, float]


@dataclass(frozen=True)
class Further:
    """A table, and the notes that explain it."""

    block: Block
    notes: tuple[str, ...] = ()


def further_blocks(comparison: Comparison, reference: str = "") -> list[Further]:
    """The tables that the comparison's data carry; ``reference``: a row's label or method, to
    compare with besides source-only.
    """
    made = [_before(comparison), _split(comparison), _tuned_beside_default(comparison)]
    source = next((row for row in comparison.drawn if row.is_source_only), None)
    named = find_row(comparison.drawn, reference)
    made.append(_against(comparison, source, False))
    if named is not source:
        made.append(_against(comparison, named, True))
    made.append(_components(comparison))
    if (latency := latency_block(comparison)) is not None:
        made.append(Further(latency, (NOTE,)))
    if (operations := operations_block(comparison)) is not None:
        made.append(Further(operations, (OPERATIONS_NOTE,)))
    if (to_score := time_to_score_block(comparison)) is not None:
        made.append(Further(to_score, (TIME_NOTE,)))
    return [each for each in made if each is not None]


def sheet(comparison: Comparison, note: str = "", reference: str = "") -> Sheet:
    """All tables of a comparison and what stands below them; ``note`` heads the notes."""
    further = further_blocks(comparison, reference)
    return Sheet(
        comparison.title,
        comparison.slug,
        (*blocks(comparison), *(each.block for each in further)),
        (*footnotes(comparison, note), *(text for each in further for text in each.notes)),
    )


def with_note(made: Sheet, comparison: Comparison, note: str) -> Sheet:
    """The `sheet` of a comparison that was made without a note, with one."""
    if not note:
        return made
    further = made.notes[len(footnotes(comparison)) :]
    return replace(made, notes=(*footnotes(comparison, note), *further))


def p_value(value: float | None) -> str:
    """A p-value for a cell; in words where there are too few pairs."""
    if value is None:
        return TOO_SMALL
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def family(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of those that are known."""
    known = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def note_of_test(p_values: Sequence[float | None], pairs: Sequence[int], what: str) -> str:
    """What p is and over which family, or that there are too few pairs; ``what`` tests are of."""
    known = [p for p in p_values if p is not None]
    if not known:
        most = max(pairs, default=0)
        return (
            f"Wilcoxon's signed-rank test: {TOO_SMALL} ({most} pairs; below {ENOUGH_PAIRS} no "
            "outcome is significant at 5 %)"
        )
    return (
        f"p of Wilcoxon's signed-rank test, two-sided; Holm: adjusted for the {len(known)} {what} "
        f"tested; {ENOUGH_PAIRS} pairs that differ are needed"
    )


def _against(comparison: Comparison, control: Row | None, costs: bool) -> Further | None:
    """Every row paired with one; ratios of costs with it too, where ``costs``."""
    if control is None:
        return None
    rows, found = [], list[Paired]()
    for row in comparison.drawn:
        known = None if row is control else paired(row.scores, control.scores)
        if known is not None and (costs or known.difference.n > 2):
            rows.append(row)
            found.append(known)
    if not rows:
        return None
    p_values = [known.p if row.competes else None for row, known in zip(rows, found, strict=True)]
    adjusted = family(p_values)
    told = {
        row.label: (known, p, a)
        for row, known, p, a in zip(rows, found, p_values, adjusted, strict=True)
    }
    tested = any(p is not None for p in p_values)
    ratios = [n for n in RATIOS if costs and control.amounts(n)]

    def cells(row: Row) -> list[str]:
        known, p, holm_p = told[row.label]
        effect = DASH if known.effect is None else f"{known.effect:+.2f}"
        made = [signed_points(known.difference), effect, str(known.difference.n)]
        if tested:
            made += [p_value(p), p_value(holm_p)] if row.competes else [DASH, DASH]
        return [*made, *(_ratio(n, row, control) for n in ratios)]

    heads = ["method", "difference", "effect size", "pairs", *(["p", "p (Holm)"] * tested)]
    heads += [f"{n} ratio" for n in ratios]
    kind = "draws of the source model" if over_draws(control.scores) else "seeds"
    notes = [
        f"Paired with {name_of(control)} over {kind}: difference of scores; effect size = Hedges' "
        f"g of the paired differences; "
        + note_of_test(p_values, [k.difference.n for k in found], "methods")
    ]
    if ratios:
        notes.append(
            f"Ratios to {name_of(control)}: geometric means of paired ratios, intervals formed of "
            "their logarithms; below 1 is less."
        )
    title = f"Paired with {name_of(control)} (points)"
    return Further(block(rows, title, heads, cells), (f"{notes[0]}.", *notes[1:]))


def _ratio(name: str, row: Row, control: Row) -> str:
    """The ratio of a cost, of modelled ones without an interval that would read 0."""
    known = ratio(row.amounts(name), control.amounts(name))
    modelled = row.costs[name].kinds == control.costs[name].kinds == ("modelled",)
    return cost_number(without_zero_spread(known) if modelled else known)


def _components(comparison: Comparison) -> Further | None:
    """What draws of the source model and seeds do to single runs."""
    rows = [row for row in comparison.drawn if len({run.draw for run in row.scores}) > 1]
    if not rows:
        return None

    def cells(row: Row) -> list[str]:
        known: Components = components(row.scores)
        both = (known.draws, known.seeds)
        told = [DASH if v is None else f"±{100 * v:.1f}" for v in both]
        return [*told, str(known.n_draws), str(known.n_seeds)]

    heads = ["method", "source draws", "seeds", "number of draws", "number of seeds"]
    return Further(
        block(rows, "Standard deviation of one run's score (points)", heads, cells),
        (
            "Source draws: what another source model and offline stage changes; seeds: "
            "what another seed changes on the same one (crossed random effects, cut at 0; over the "
            "seeds that all draws have).",
        ),
    )


def _tuned_beside_default(comparison: Comparison) -> Further | None:
    """Rows with tuned settings beside the method's row with its default ones, or where the suite
    gives it some, as a recipe for all, with those.
    """
    untuned: dict[str, dict[tuple[str, bool], list[Row]]] = {"default": {}, "given": {}}
    for row in comparison.drawn:
        if row.settings in untuned:
            untuned[row.settings].setdefault(_of(row), []).append(row)
    given = {of: rows for of, rows in untuned["given"].items() if len(rows) == 1}
    other_rows = {of: rows[0] for of, rows in (given | untuned["default"]).items()}
    pairs = {
        row.label: (row, other)
        for row in comparison.drawn
        if row.settings == "tuned" and (other := other_rows.get(_of(row)))
    }
    if not pairs:
        return None

    def cells(row: Row) -> list[str]:
        other = pairs[row.label][1]
        difference = paired_difference(row.scores, other.scores)
        n = "0" if difference is None else str(difference.n)
        both = (percent(each.accuracy["score"]) for each in (row, other))
        return [*both, signed_points(difference), n]

    heads = ["method", "tuned", "default", "tuned - default", "pairs"]
    rows = [row for row, _ in pairs.values()]
    has_given = any(other.settings == "given" for _, other in pairs.values())
    note = "Default: with the settings that the suite gives, where it gives some."
    shown = block(rows, "Tuned beside default (%)", heads, cells)
    return Further(shown, (note,) if has_given else ())


def _of(row: Row) -> tuple[str, bool]:
    """The method of a row, and whether the row is a reference."""
    return row.runs[0].cell.method.name, row.supervised


def _before(comparison: Comparison) -> Further | None:
    """Accuracies before the stream, of rows that deploy a model of their own."""
    source = next((row for row in comparison.drawn if row.is_source_only), None)
    if source is None:
        return None

    def own_model(row: Row) -> bool:
        shared = row.results.keys() & source.results.keys()
        return any(_start(row.results[r]) != _start(source.results[r]) for r in shared)

    rows = [row for row in comparison.drawn if own_model(row)]
    if not rows:
        return None
    shown: dict[str, Callable[[Results], float]] = {
        "source": lambda r: r.source_before,
        "first domain": lambda r: r.domains[0].before,
    }
    if has_matrix(comparison.cell.protocol):
        shown["source and all domains"] = _all_before

    def cells(row: Row) -> list[str]:
        made = []
        for value in shown.values():
            made.append(percent(estimate(_values(row, value), SHARE)))
        first = shown["first domain"]
        lead = paired_difference(_values(row, first), _values(source, first))
        return [*made, signed_points(lead)]

    heads = ["method", *shown, f"first domain vs {SOURCE_ONLY}"]
    title = comparison.metric.named_in("Accuracy before the stream (%)")
    note = (
        "Before the stream: accuracy before any adaptation; rows that deploy a model of their own, "
        f"or predict otherwise than {SOURCE_ONLY} from the start."
    )
    return Further(block([source, *rows], title, heads, cells), (comparison.metric.named_in(note),))


def _split(comparison: Comparison) -> Further | None:
    """Gains over source-only in parts: the offline stage, adaptation, feedback."""
    source = next((row for row in comparison.drawn if row.is_source_only), None)
    if source is None:
        return None
    parts = {row.label: _parts(row, source, comparison) for row in comparison.drawn}
    rows = [row for row in comparison.drawn if parts[row.label]]
    if not rows:
        return None
    stages = ("offline", "adaptation", "feedback")
    heads = [stage for stage in stages if any(stage in part for part in parts.values())]

    def cells(row: Row) -> list[str]:
        known = parts[row.label]
        made = [signed_points(paired_difference(*known[h])) if h in known else DASH for h in heads]
        return [*made, signed_points(row.difference)]

    return Further(
        block(rows, f"Gain over {SOURCE_ONLY} in parts (points)", ["method", *heads, "all"], cells),
        (
            "Parts of a gain: offline = the deployed model without adaptation less "
            f"{SOURCE_ONLY}; adaptation = what adapting adds, without feedback where a row without "
            "it is here; feedback = what that adds.",
        ),
    )


def _parts(row: Row, source: Row, comparison: Comparison) -> dict[str, tuple[Scores, Scores]]:
    """By part the scores that it is the difference of; empty where records do not tell."""
    words: dict[str, Any] = WORDS["parts"]
    name = row.runs[0].cell.method.name
    unadapted = find_row(comparison.drawn, name + words["offline_suffix"])
    without = dict(words["without_feedback"])
    plain = next(
        (
            r
            for r in comparison.drawn
            if r.runs[0].cell.method.name == name
            and r is not row
            and r.supervised is row.supervised
            and r.facts.changed == row.facts.changed | without
        ),
        None,
    )
    if unadapted is not None:
        start, base = unadapted.scores, source.scores
    elif has_matrix(comparison.cell.protocol) and any(
        _start(row.results[r]) != _start(source.results[r])
        for r in row.results.keys() & source.results.keys()
    ):
        start, base = _values(row, _all_before), _values(source, _all_before)
    else:
        return {}
    made = {"offline": (start, base), "adaptation": ((plain or row).scores, start)}
    return made | ({"feedback": (row.scores, plain.scores)} if plain is not None else {})


def _values(row: Row, value: Callable[[Results], float]) -> Scores:
    return {run: value(results) for run, results in row.results.items()}


def _start(results: Results) -> tuple[float, float]:
    """What tells a deployed model from another before the stream."""
    return results.source_before, results.domains[0].before


def _all_before(results: Results) -> float:
    """Accuracy over all test samples of the source and the domains before the stream."""
    assert results.matrix is not None
    sizes = [results.source_samples, *(d.test_samples for d in results.domains)]
    return sum(n * r for n, r in zip(sizes, results.matrix[0], strict=True)) / sum(sizes)
