"""What changed between two stores, as text for a terminal, in Markdown and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from bench import register
from bench.records.record import Record

from .aggregate import clean, shorten
from .changes import SCORE, Change, Changes, MethodChange, changes_between
from .footnotes import runs_text
from .further_blocks import TOO_SMALL, p_value
from .metrics import COSTS
from .table_model import DASH, Block, Sheet, cost_number, percent, signed_points
from .tables import sheet_markdown, sheet_text

STAR = "*"
"""Marks changes beyond noise."""
LONGEST = 90
"""Characters of a reason in a table."""


@register("report", "changes")
def changes_report(
    a: Iterable[Record], b: Iterable[Record], names: tuple[str, str], form: str = "text"
) -> tuple[str, bool]:
    """What changed between the records of two stores beyond noise, and whether anything did.

    ``form``: text, markdown or json. Raises BenchError if no run is in both.
    """
    found = changes_between(a, b, names)
    written = {"text": text, "markdown": markdown, "json": Changes.json}[form]
    return written(found), found.changed


def text(changes: Changes) -> str:
    """For a terminal: what changed first, then every method, and a line that counts."""
    return f"{sheet_text(sheet(changes))}\n{verdict(changes)}\n"


def markdown(changes: Changes) -> str:
    """GitHub-flavoured Markdown, as for a comment on a change of code."""
    return f"{sheet_markdown(sheet(changes))}\n{verdict(changes)}\n"


def verdict(changes: Changes) -> str:
    """How much changed, in one line."""
    counts: Counter[str] = Counter(c.verdict for m in changes.methods for c in m.changes)
    statuses = sum(len(m.statuses) for m in changes.methods)
    told = [f"{counts[each]} {each}" for each in ("better", "worse")]
    told += [f"{statuses} run{'s' * (statuses != 1)} ended otherwise"]
    rest = ("within noise", "same", TOO_SMALL, "not compared")
    quiet = ", ".join(f"{counts[each]} {each}" for each in rest if counts[each])
    head = "Changed beyond noise" if changes.changed else "No change beyond noise"
    return f"{head}: {', '.join(told)}{f'; {quiet}' if quiet else ''}."


def sheet(changes: Changes) -> Sheet:
    """All tables, what changed beyond noise first."""
    by_title: dict[str, list[MethodChange]] = defaultdict(list)
    for method in changes.methods:
        by_title[method.title].append(method)
    blocks = [_beyond(changes.methods), _statuses(changes.methods)]
    blocks += [_every(title, methods) for title, methods in by_title.items()]
    return Sheet(
        f"B = {clean(changes.b)} against A = {clean(changes.a)}",
        "changes",
        tuple(block for block in blocks if block is not None),
        tuple(_notes(changes)),
    )


def _beyond(methods: Iterable[MethodChange]) -> Block | None:
    found = [(m, c) for m in methods for c in m.changes if c.beyond_noise]
    rows = [
        (m.method, m.title, _title(c), *_means(c), _change(c), p_value(c.adjusted), c.verdict)
        for m, c in found
    ]
    heads = ("method", "comparison", "of", "A", "B", "change", "p (Holm)", "B is")
    return Block("Changed beyond noise", heads, tuple(rows), (), texts=3) if rows else None


def _statuses(methods: Iterable[MethodChange]) -> Block | None:
    rows = [
        (m.method, m.title, runs_text([s.run]), s.a, s.b, shorten(s.reason, LONGEST) or DASH)
        for m in methods
        for s in m.statuses
    ]
    heads = ("method", "comparison", "run", "A", "B", "reason")
    return Block("Ended otherwise", heads, tuple(rows), (), texts=6) if rows else None


def _every(title: str, methods: Sequence[MethodChange]) -> Block:
    """A row for each method of a comparison, a column for each quantity."""
    heads, known = ["method"], []
    for name in (SCORE, *COSTS):
        found = [c for m in methods for c in m.changes if c.quantity == name]
        if not found:
            continue
        kinds = " and ".join(sorted({c.kind for c in found} - {""}))
        unit = "points" if name == SCORE else f"B / A, {kinds}" if kinds else "B / A"
        heads.append(f"{found[0].title} ({unit})")
        known.append(name)
    rows = []
    for m in methods:
        of = {c.quantity: c for c in m.changes}
        cells = [_cell(of[name]) if name in of else DASH for name in known]
        pairs = max((c.change.n for c in m.changes if c.change is not None), default=0)
        rows.append((m.method, *cells, str(pairs)))
    return Block(title, (*heads, "pairs"), tuple(rows), ())


def _cell(change: Change) -> str:
    if change.change is None:
        return DASH
    if change.same:
        return "="
    told = _change(change)
    if change.verdict == TOO_SMALL:
        return f"{told}; {TOO_SMALL}"
    return f"{told} {STAR}" if change.beyond_noise else told


def _change(change: Change) -> str:
    if change.quantity == SCORE:
        return signed_points(change.change)
    if change.is_ratio or change.change is None:
        return cost_number(change.change)
    return f"{cost_number(change.change.scaled(change.factor))} {change.unit}"


def _means(change: Change) -> tuple[str, str]:
    both = (change.a, change.b)
    if change.quantity == SCORE:
        a, b = (percent(each) for each in both)
    else:
        a, b = (cost_number(each and each.scaled(change.factor)) for each in both)
    return a, b


def _title(change: Change) -> str:
    known = ", ".join(filter(None, [change.unit, change.kind]))
    return f"{change.title} ({known})" if known else change.title


def _notes(changes: Changes) -> Iterable[str]:
    yield (
        "Change: of the score B - A, of costs B / A (geometric mean), paired by seed and source "
        "draw, with its 95 % Student-t interval over seeds, or over draws where there are 3. "
        f"{STAR} beyond noise: the paired t-test rejects at 5 % after Holm's correction over all "
        f"that is tested. = no run differs. {TOO_SMALL}: one pair, or fewer than 6 whose "
        "differences of the score are equal."
    )
    gaps: dict[str, list[str]] = defaultdict(list)
    for m in changes.methods:
        for c in m.changes:
            if c.why_not:
                gaps[f"{c.title}: {c.why_not}"].append(f"{m.method} · {m.title}")
    for why, where in gaps.items():
        yield f"Not compared: {why} ({_some(where)})"
    if code := sorted({part for m in changes.methods for part in m.code}):
        yield f"Differs between A and B: {', '.join(code)}"
    for name, side in (("A", "only_a"), ("B", "only_b")):
        runs = [
            f"{m.method} · {m.title} ({runs_text(found)})"
            for m in changes.methods
            if (found := getattr(m, side))
        ]
        alone = [*getattr(changes, side), *runs]
        if alone:
            yield f"Only in {name}: {_some(alone, most=20)}"
    yield from map(clean, changes.notes)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{'; '.join(names[:most])}{more}"
