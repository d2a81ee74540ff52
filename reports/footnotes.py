"""What stands under the tables of a comparison: meanings, caveats, and the runs that failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from bench.records.record import ProfileError

from .aggregate import SOURCE_ONLY, Row, clean, fate, run_of, shorten
from .chance import no_conclusion
from .comparison import Comparison
from .metrics import COSTS, WORDS, columns, has_matrix, is_online, primary
from .statistics import SHARE, Run, estimate, over_draws
from .table_model import (
    DAGGER,
    DASH,
    DOUBLE_DAGGER,
    LOWER_BOUND,
    ORIGINS,
    PILCROW,
    SECTION,
    decimals,
    name_of,
    percent,
)

REASON_LIMIT = 240
"""Characters of a reason in a footnote; the page shows all of it."""

_IN_RANGE = "within the range of the quantity, as [from, to] where the sides are uneven"

ORACLE = (
    f"{DOUBLE_DAGGER} ORACLE: settings selected with the labels of the test stream; an upper bound "
    "of tuning that no deployed device can have, NO FAIR COMPARISON with the other rows."
)


def footnotes(comparison: Comparison, note: str = "") -> list[str]:
    """What a reader needs besides the cells; ``note`` comes first, but for warnings."""
    rows, named = comparison.rows, comparison.metric.named_in
    notes = [ORACLE] if comparison.has_oracle else []
    notes += [text] if (text := no_conclusion(comparison)) else []
    notes += [clean(note)] if note else []
    protocol = ", ".join(f"{k}={v}" for k, v in comparison.cell.protocol.items() if k != "name")
    notes.append(f"Protocol {comparison.cell.protocol.get('name', DASH)}: {protocol}.")
    if comparison.drawn:
        notes += map(named, [*_meanings(comparison), _source_note(rows)])
        notes += _further_notes(comparison)
        notes += _interval_notes(rows)
    if any(row.supervised for row in rows):
        notes.append(
            f"{DAGGER} supervised reference: adapts with the labels of the target domains, which "
            "the other methods do not see; a yardstick, not a competitor."
        )
    notes += [*_words(rows), *_cost_notes(comparison), *_lower_bounds(rows)]
    notes += [*_window_notes(comparison), *map(named, _row_notes(rows))]
    notes += [f"{text}." for text in (*comparison.notes, *_told_by_methods(rows))]
    notes += [line for row in rows for line in missing_runs(row)]
    return [clean(text) for text in notes]


def _told_by_methods(rows: Iterable[Row]) -> list[str]:
    """What methods told of their runs under ``notes`` of the records' details, each text once."""
    found: dict[str, int] = defaultdict(int)
    for row in rows:
        for record in row.runs:
            for text in record.details.get("notes", []):
                found[f"{name_of(row)}: {shorten(str(text), REASON_LIMIT)}"] += 1
    return [text if n == 1 else f"{text} ({n} runs)" for text, n in found.items()]


def missing_runs(row: Row) -> list[str]:
    """The runs of a row that have no results, those with one reason in one line."""
    reasons: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for record in row.missing:
        reasons[(fate(record), clean(record.reason))].append(run_of(record))
    return [
        f"No result: {name_of(row)}, {runs_text(runs)}: {status}: "
        f"{shorten(reason or 'no reason recorded', REASON_LIMIT)}"
        for (status, reason), runs in reasons.items()
    ]


def _meanings(comparison: Comparison) -> list[str]:
    """What the columns of accuracies are, and by which of them rows are compared."""
    protocol = comparison.cell.protocol
    levels, changes = columns(protocol)
    told = [f"{measure.head} = {measure.meaning}" for measure in (*levels, *changes)]
    best = primary(protocol).head
    told.append(f"vs {SOURCE_ONLY} = difference in {best}, paired by run")
    n = len(comparison.domains)
    order = f"Rows are sorted by {best}, the highest first, below {SOURCE_ONLY}."
    if has_matrix(protocol):
        notes = [f"The stream has {n} target domains.", *(f"{t}." for t in told), order]
        if not comparison.metric.of_samples:
            notes.append(
                "Over several domains the accuracy is the mean of theirs, weighted by their test "
                "samples."
            )
        return notes
    mean = f"Accuracy is the mean over {n} target domains"
    if is_online(protocol):
        return [f"{mean}.", *(f"{t}." for t in told), order]
    return [f"{mean}: {'; '.join(told)}.", order]


def _further_notes(comparison: Comparison) -> list[str]:
    """What further metrics are of, and which of them are better when they are lower."""
    metrics = comparison.further_metrics
    if not metrics:
        return []
    lower = [m.title for m in metrics if not m.higher_is_better]
    told = f"; lower is better: {', '.join(lower)}" if lower else ""
    return [f"Further metrics: on the test split once adapted, mean over the target domains{told}."]


def _words(rows: Iterable[Row]) -> list[str]:
    """What the words in the columns of origin and settings mean, as far as they occur."""
    provenances = {row.facts.provenance for row in rows}
    kinds = {row.settings for row in rows}
    origins = [f"{ORIGINS[p]} = {what}" for p, what in WORDS["origins"].items() if p in provenances]
    names = {"none": DASH}
    settings = [
        f"{names.get(k, k)} = {what}" for k, what in WORDS["settings"].items() if k in kinds
    ]
    notes = [f"Origin: {'; '.join(origins)}."] if origins else []
    return [*notes, f"Settings: {'; '.join(settings)}."]


def _source_note(rows: Iterable[Row]) -> str:
    """Accuracy before any adaptation; methods that make their own small model have another."""
    known = [row for row in rows if row.results]
    reference = [row for row in known if row.is_source_only] or known
    by_run = {run: r.source_before for row in reference for run, r in row.results.items()}
    own = percent(estimate(by_run, SHARE))
    text = f"Before the stream, accuracy on held-out source data: {own}"
    means = [
        estimate({run: r.source_before for run, r in row.results.items()}).mean for row in known
    ]
    if max(means) - min(means) < 0.01:
        return f"{text}."
    low, high = (f"{100 * mean:.1f}" for mean in (min(means), max(means)))
    return f"{text}; from {low} to {high} where methods deploy models of their own."


def _interval_notes(rows: Sequence[Row]) -> list[str]:
    """What intervals are over: the runs of source-only, and of rows that have other ones."""
    known = [row for row in rows if row.results]
    counts = sorted({len(row.results) for row in known})
    reference = next((row for row in known if row.is_source_only), None)
    most = max(known, key=lambda row: len(row.results))
    common = set((reference or most).results)
    draws = len({run.draw for run in common})
    if counts == [1]:
        text = (
            f"One ok run per method ({runs_text(common)}): no intervals, no claim about differences"
        )
    else:
        over = f"ok runs, one per seed ({runs_text(common)})"
        if over_draws(common):
            over = f"means of {draws} draws of source model and offline stage ({runs_text(common)})"
        elif draws > 1:
            over = f"seeds, each the mean of {draws} source draws ({runs_text(common)})"
        alone = ", none where one run is ok" if counts[0] == 1 else ""
        text = f"± half width of the 95 % Student-t interval over the {over}{alone}; {_IN_RANGE}"
        if not over_draws(common):
            fewer = "one draw" if draws == 1 else f"only {draws} draws"
            text += f"; there is {fewer} of the source model, whose variation is not in it"
    others: dict[tuple[Run, ...], list[Row]] = defaultdict(list)
    for row in known:
        if set(row.results) != common:
            others[tuple(sorted(row.results))].append(row)
    told = [_other_runs(runs, group, reference) for runs, group in others.items()]
    return [f"{text}.", *told]


def _other_runs(runs: Sequence[Run], rows: Sequence[Row], reference: Row | None) -> str:
    """Which rows are over other runs, and what source-only has on these."""
    text = f"{_capital(runs_text(runs))} alone: {', '.join(name_of(row) for row in rows)}"
    if reference is None:
        return f"{text}."
    scores = {run: score for run, score in reference.scores.items() if run in runs}
    if not scores:
        return f"{text}; {SOURCE_ONLY} has none of them, so there is no difference to it."
    shared = f"{len(scores)} of these" if len(scores) < len(runs) else "the same"
    return (
        f"{text}; on {shared} {SOURCE_ONLY} has {percent(estimate(scores, SHARE))}, with which the "
        f"column 'vs {SOURCE_ONLY}' compares."
    )


def _cost_notes(comparison: Comparison) -> list[str]:
    rows = comparison.rows
    known: dict[tuple[str, str], list[str]] = defaultdict(list)
    gaps: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, column in COSTS.items():
        costs = [row.costs[name] for row in rows]
        kinds, hows = {k for c in costs for k in c.kinds}, {h for c in costs for h in c.hows}
        for row in rows:
            for how in row.costs[name].gaps:
                gaps[(column.head, how or "no reason recorded")].append(name_of(row))
        if hows:
            known[(" and ".join(sorted(kinds)), "; ".join(sorted(hows)))].append(column.head)
    amounts = {r.costs.runtime_memory.value for row in rows for r in row.results.values()}
    runtime = {a for a in amounts if a is not None}
    notes = [f"{_capital(', '.join(heads))}: {k}: {how}." for (k, how), heads in known.items()]
    notes += [
        f"{_capital(head)} unavailable ({', '.join(labels)}): {how}."
        for (head, how), labels in gaps.items()
    ]
    if known:
        notes.append("Adaptation time and energy are sums over the stream; 1 MB is 1e6 bytes.")
    if any("modelled" in kinds for kinds, _ in known):
        several = any(len(row.results) > 1 for row in rows)
        spread = "± of a modelled cost is its spread over runs, left out where there is none; "
        known_error = model_error(rows)
        notes.append(
            f"{_capital(spread.rstrip('; '))}. {known_error}" * several or known_error
            if known_error
            else f"{spread * several}{'how' if several else 'How'} far the cost model itself is "
            "off is in no record ('bench device check' measures it on a machine at hand)."
        )
    if comparison.front_shares:
        notes.append(
            "On front: share of bootstrap draws of the repeats in which no other competing row is "
            "at least as good in both adaptation energy and score (of equal rows the first counts)."
        )
    if runtime:
        sizes = ", ".join(f"{a / 1e6:.{decimals(a / 1e6)}f}" for a in sorted(runtime))
        notes.append(f"Peak memory does not include the runtime itself: {sizes} MB more.")
    return notes


def model_error(rows: Iterable[Row]) -> str:
    """How far modelled costs are off, as the devices' profiles stated it; empty if none did."""
    runs = [results.costs for row in rows for results in row.results.values()]
    modelled = [costs for costs in runs if costs.adaptation_time.kind == "modelled"]
    stated = {costs.profile_error.model_dump_json(): costs.profile_error for costs in modelled
              if costs.profile_error is not None}  # fmt: skip
    told = [_stated(error) for _, error in sorted(stated.items())]
    if told and any(costs.profile_error is None for costs in modelled):
        told.append("Records of other runs do not tell it.")
    return " ".join(told)


def _stated(error: ProfileError) -> str:
    shares = {"time": error.time, "memory": error.memory, "energy": error.energy}
    known = [f"{100 * v:.3g} % in {name}" for name, v in shares.items() if v is not None]
    unknown = [name for name, v in shares.items() if v is None]
    lacking = f", in {' and '.join(unknown)} by an unknown share" if unknown else ""
    return (
        f"The device's profile is off by {' and '.join(known)} in the median{lacking} "
        f"({clean(error.source).rstrip('.')})."
    )


def _lower_bounds(rows: Iterable[Row]) -> list[str]:
    """Rows whose counted costs leave work out, and which."""
    told = [f"{name_of(row)}: {', '.join(row.uncounted)}" for row in rows if row.uncounted]
    return (
        [f"{LOWER_BOUND} Costs are lower bounds, not counted: {'; '.join(told)}."] if told else []
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _window_notes(comparison: Comparison) -> list[str]:
    closed = []
    for row in comparison.drawn:
        stages = [d.window_closed for r in row.results.values() for d in r.domains]
        if any(stages):
            closed.append(f"{name_of(row)} on {sum(stages)} of {len(stages)}")
    told = f"{PILCROW} The window closed before the method was done: {'; '.join(closed)} domains."
    if not closed:
        return []
    if any(row.window and row.window.wanted is not None for row in comparison.drawn):
        told += (
            " Steps are those done there, of those that the same run takes on a device whose "
            "window does not close."
        )
    return [told]


def _row_notes(rows: Sequence[Row]) -> list[str]:
    """Rows that a reader would take for something else: of older code, and without any effect."""
    old = [name_of(row) for row in rows if row.older_code]
    inert = [name_of(row) for row in rows if row.inert]
    notes = []
    if old:
        notes.append(
            f"{SECTION} OLDER CODE: {', '.join(old)}: the method changed since these runs, and "
            "its newest runs, in another row or table, have other code. Run the suite again "
            "before comparing."
        )
    if inert:
        notes.append(
            f"Without effect: {', '.join(inert)}: every accuracy, of each domain, split and seed, "
            f"equals that of {SOURCE_ONLY}."
        )
    return notes


def runs_text(runs: Collection[Run]) -> str:
    """Seeds, and draws of the source model where there are others than the first."""
    seeds, draws = {run.seed for run in runs}, {run.draw for run in runs}
    if draws == {0}:
        return _numbers("seed", seeds)
    if len(runs) == len(seeds) * len(draws):
        return f"{_numbers('source draw', draws)} × {_numbers('seed', seeds)}"
    each = ((d, {run.seed for run in runs if run.draw == d}) for d in sorted(draws))
    return "; ".join(f"source draw {d}: {_numbers('seed', found)}" for d, found in each)


def _numbers(what: str, numbers: Collection[int]) -> str:
    return f"{what}{'s' if len(numbers) > 1 else ''} {spans(numbers)}"


def spans(numbers: Collection[int]) -> str:
    """In ascending order, with three or more in a row as ``0-4``."""
    found: list[list[int]] = []
    for one in sorted(numbers):
        if found and one == found[-1][-1] + 1:
            found[-1].append(one)
        else:
            found.append([one])
    parts = (f"{s[0]}-{s[-1]}" if len(s) > 2 else ", ".join(map(str, s)) for s in found)
    return ", ".join(parts)
