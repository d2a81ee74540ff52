"""Tables across scenarios: scores side by side, aggregates, and a matrix of pairs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from itertools import combinations

from .aggregate import SOURCE_ONLY, clean
from .further_blocks import RATIOS, family, note_of_test, p_value
from .metrics import MEASURES
from .scenarios import MARGIN, Across, Duel, Scenario
from .table_model import DAGGER, DASH, Block, Sheet, cost_number, percent, signed_points

SIDE_BY_SIDE = 5
"""Scenarios, and methods to compare with, that stand beside each other."""
IN_MATRIX = 12
"""Methods that a matrix of pairs has rows for."""


def scenario_sheet(made: Across, reference: str = "", margin: float = MARGIN) -> Sheet:
    """All tables of some scenarios; ``reference``: a method besides source-only to compare with."""
    controls = [c for c in dict.fromkeys((SOURCE_ONLY, reference)) if c in made.all_methods]
    blocks, notes = _scores(made), _notes(made)
    block, note = _aggregates(made)
    blocks.append(block)
    notes.append(note)
    for control in controls:
        block, note = _against(made, control, margin, costs=control == reference)
        blocks.append(block)
        notes.append(note)
    block, note = _matrix(made, controls, margin)
    blocks.append(block)
    notes.append(note)
    return Sheet(_title(made), slug(made), tuple(blocks), tuple(notes))


def slug(made: Across) -> str:
    """A safe file name."""
    return f"scenarios-{made.measure.replace('_', '-')}"


def scenario_csv(made: Across, margin: float = MARGIN) -> str:
    """For programs: every pair of methods, scores in percent, costs as ratios."""
    out = io.StringIO()
    fields = ["method", "than", "scenarios", "difference_percent", "difference_percent_low",
              "difference_percent_high", "effect_size", "wins", "ties", "losses",
              "margin_percent", "p", "p_holm"]  # fmt: skip
    fields += [f"{n}_ratio{end}" for n in RATIOS for end in ("", "_low", "_high")]
    writer = csv.DictWriter(out, fieldnames=fields, lineterminator="\n", restval="")
    writer.writeheader()
    pairs = list(combinations(made.all_methods, 2))
    duels = [made.duel(a, b, margin) for a, b in pairs]
    adjusted = family([None if d is None else d.paired.p for d in duels])
    for (a, b), duel, holm_p in zip(pairs, duels, adjusted, strict=True):
        if duel is None:
            continue
        difference = duel.paired.difference.scaled(100.0)
        low, high = difference.interval or (None, None)
        line: dict[str, object] = {
            "method": clean(a), "than": clean(b), "scenarios": difference.n,
            "difference_percent": f"{difference.mean + 0.0:.6g}",
            "difference_percent_low": "" if low is None else f"{low + 0.0:.6g}",
            "difference_percent_high": "" if high is None else f"{high + 0.0:.6g}",
            "effect_size": "" if duel.paired.effect is None else f"{duel.paired.effect:.6g}",
            "wins": duel.wins, "ties": duel.ties, "losses": duel.losses,
            "margin_percent": f"{100 * margin:g}",
            "p": "" if duel.paired.p is None else f"{duel.paired.p:.6g}",
            "p_holm": "" if holm_p is None else f"{holm_p:.6g}",
        }  # fmt: skip
        for name in RATIOS:
            known = made.cost_ratio(name, a, b)
            if known is not None:
                ends = known.interval or (None, None)
                line[f"{name}_ratio"] = f"{known.mean:.6g}"
                line[f"{name}_ratio_low"] = "" if ends[0] is None else f"{ends[0]:.6g}"
                line[f"{name}_ratio_high"] = "" if ends[1] is None else f"{ends[1]:.6g}"
        writer.writerow(line)
    return out.getvalue()


def _title(made: Across) -> str:
    return f"Across {len(made.scenarios)} scenarios · {MEASURES[made.measure].head}"


def _notes(made: Across) -> list[str]:
    names = ", ".join(s.title for s in made.scenarios)
    notes = [
        f"Scenario = stream on a network, mean over devices where there are several: {names}.",
        f"Score = {MEASURES[made.measure].head}, first averaged over the domains of a stream; "
        "every scenario counts once.",
    ]
    if any(made.supervised(m) for m in made.all_methods):
        notes.append(f"{DAGGER} supervised reference: sees target labels, a yardstick.")
    left = [m for m in made.all_methods if m not in made.methods]
    if left:
        notes.append(
            "Without a result in some scenario, and so only in tables of scenarios and of pairs: "
            f"{', '.join(map(made.called, left))}."
        )
    return notes


def _block(
    made: Across,
    methods: Sequence[str],
    title: str,
    heads: Sequence[str],
    cells: Callable[[str], Sequence[str]],
) -> Block:
    groups = [
        tuple((_name(made, m), *cells(m)) for m in methods if made.supervised(m) is supervised)
        for supervised in (False, True)
    ]
    return Block(title, ("method", *heads), groups[0], groups[1])


def _name(made: Across, method: str) -> str:
    called = made.called(method)
    return clean(f"{called} {DAGGER}" if made.supervised(method) else called)


def _scores(made: Across) -> list[Block]:
    """Scores with a column for each scenario, and their mean in the last."""
    blocks = []
    several = len(made.scenarios) > SIDE_BY_SIDE
    for i in range(0, len(made.scenarios), SIDE_BY_SIDE):
        shown = made.scenarios[i : i + SIDE_BY_SIDE]
        last = i + SIDE_BY_SIDE >= len(made.scenarios)

        def cells(method: str, shown: Sequence[Scenario] = shown, last: bool = last) -> list[str]:
            known = [s.entries.get(method) for s in shown]
            mean = f"{100 * made.mean(method):.1f}" if method in made.methods else DASH
            return [percent(None if e is None else e.score) for e in known] + [mean] * last

        number = f" {i // SIDE_BY_SIDE + 1}" if several else ""
        heads = [*(clean(s.title) for s in shown), *(["mean"] * last)]
        title = f"Score by scenario (%){number}"
        blocks.append(_block(made, made.all_methods, title, heads, cells))
    return blocks


def _aggregates(made: Across) -> tuple[Block, str]:
    def cells(method: str) -> list[str]:
        point, (low, high) = made.interquartile(method)
        return [f"{100 * point:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]"]

    heads = ["interquartile mean", "95 % interval"]
    block = _block(made, made.methods, "All scenarios together (%)", heads, cells)
    return block, (
        "Interquartile mean: of the middle half of all runs of all scenarios (Agarwal et al., "
        "NeurIPS 2021); its interval: percentiles of a bootstrap within each scenario, so that it "
        "speaks of repeats and not of other scenarios."
    )


def _against(made: Across, control: str, margin: float, costs: bool) -> tuple[Block, str]:
    methods = [m for m in made.all_methods if m != control]
    known = {m: made.duel(m, control, margin) for m in methods}
    p_values = [_p(known[m]) if not made.supervised(m) else None for m in methods]
    adjusted = dict(zip(methods, family(p_values), strict=True))
    tested = any(p is not None for p in p_values)
    ratios = [n for n in RATIOS if costs]

    def cells(method: str) -> list[str]:
        duel = known[method]
        end = [cost_number(made.cost_ratio(n, method, control)) for n in ratios]
        if duel is None:
            return [DASH] * (4 + 2 * tested) + end
        effect = duel.paired.effect
        told = [
            signed_points(duel.paired.difference),
            DASH if effect is None else f"{effect:+.2f}",
            duel.counts,
            str(duel.paired.difference.n),
        ]
        if tested:
            each = (duel.paired.p, adjusted[method])
            told += [DASH, DASH] if made.supervised(method) else [p_value(p) for p in each]
        return told + end

    heads = ["difference", "effect size", "won/tied/lost", "scenarios", *["p", "p (Holm)"] * tested]
    heads += [f"{n} ratio" for n in ratios]
    counts = [d.paired.difference.n for d in known.values() if d is not None]
    note = (
        f"Against {made.called(control)}: mean over scenarios of the paired difference, its "
        f"Student-t interval over scenarios; effect size = Hedges' g; tied within "
        f"{100 * margin:g} points; "
        f"{note_of_test(p_values, counts, 'methods')}."
    )
    if ratios:
        note += " Ratios: geometric means over scenarios; below 1 is less."
    title = f"Against {made.called(control)}, over scenarios (points)"
    return _block(made, methods, title, heads, cells), note


def _matrix(made: Across, controls: Sequence[str], margin: float) -> tuple[Block, str]:
    """Rows against the columns: mean difference, wins/ties/losses, p."""
    competing = [m for m in made.methods if not made.supervised(m)]
    rows = competing[:IN_MATRIX]
    columns = list(dict.fromkeys([*(c for c in controls if c in rows), *rows]))[:SIDE_BY_SIDE]
    tested = [(a, b) for a, b in combinations(rows, 2) if a in columns or b in columns]
    duels = {pair: made.duel(*pair, margin) for pair in tested}
    p_values = [_p(d) for d in duels.values()]
    adjusted = dict(zip(tested, family(p_values), strict=True))

    def cell(row: str, column: str) -> str:
        duel = None if row == column else made.duel(row, column, margin)
        if duel is None:
            return DASH
        pair = (row, column) if (row, column) in adjusted else (column, row)
        told = f"{100 * duel.paired.difference.mean + 0.0:+.1f}; {duel.counts}"
        p = adjusted[pair]
        return told if p is None else f"{told}; p {p_value(p)}"

    heads = [_name(made, c) for c in columns]
    block = _block(
        made, rows, "Row against column (points)", heads, lambda m: [cell(m, c) for c in columns]
    )
    counts = [d.paired.difference.n for d in duels.values() if d is not None]
    left = len(competing) - len(rows)
    more = f" The best {IN_MATRIX} of {len(competing)} methods; CSV has all." if left else ""
    return block, (
        "Row against column: mean difference, scenarios won/tied/lost by the row with ties within "
        f"{100 * margin:g} points, and p adjusted by Holm where there is one; "
        f"{note_of_test(p_values, counts, 'pairs')}.{more}"
    )


def _p(duel: Duel | None) -> float | None:
    return None if duel is None else duel.paired.p
