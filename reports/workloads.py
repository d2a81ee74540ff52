"""The displays of EdgeTA's paper: score, memory and energy of every method on every workload.

A workload is a suite on a model (and variant). Unlike scenarios, workloads may have scores of
different kinds (accuracy, mIoU, mAP, ...): nothing is averaged over them but differences to EdgeTA.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .aggregate import SOURCE_ONLY, Row, clean
from .comparison import Comparison
from .metrics import COSTS
from .paired import geometric_mean, ratio
from .statistics import DIFFERENCE, Estimate, mean_ci, paired_difference
from .table_model import (
    DAGGER,
    DASH,
    LOWER_BOUND,
    Block,
    Sheet,
    cost,
    percent,
    reason_code,
    signed_points,
)

EDGETA = "edgeta"
RIVAL = "cua"
CONTROLS = (SOURCE_ONLY, "source-longer", "source-fine-tune", "edgeta-offline")
"""Rows that adapt to no target, and are nobody's rivals."""
SIDE_BY_SIDE = 6
"""Workloads that stand beside each other in a table."""

PUBLISHED = {"difference": "+21.88", "memory": "-27.14", "energy": "-65.65"}
"""EdgeTA against the other methods on average, of its abstract: points and percent."""
AGAINST_CUA = {
    "edgeta-clip": "+12.71",
    "edgeta-sam": "+7.36",
    "edgeta-grounding": "+6.41",
    "edgeta-gpt-neo": "+10.81",
    "edgeta-roberta": "+10.38",
}
"""Points by which EdgeTA is above CUA on a Xavier NX, of its project page, by suite; on
``edgeta-grounding`` of GLIP, which is another grounded detector.
"""


@dataclass(frozen=True)
class Workload:
    """One suite on one model and device: rows by method."""

    title: str
    suite: str
    metric: str
    rows: Mapping[str, Row]


def workload_sheets(comparisons: Iterable[Comparison], least: int = 2) -> list[Sheet]:
    """For each device with that many suites that have results, its displays."""
    by_device: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.drawn and not comparison.has_oracle:
            cell = comparison.cell
            by_device[cell.device_title + cell.computed_title].append(comparison)
    made = []
    for device, found in sorted(by_device.items()):
        workloads = _workloads(found)
        if len({workload.suite for workload in workloads}) >= least:
            made.append(_sheet(device, workloads))
    return made


def _workloads(comparisons: Sequence[Comparison]) -> list[Workload]:
    suites = [comparison.suite for comparison in comparisons]
    titles = [
        suite if suites.count(suite) == 1 else f"{suite} · {comparison.cell.model_title}"
        for suite, comparison in zip(suites, comparisons, strict=True)
    ]
    more = [c.variant or c.key[:6] for c in comparisons]
    told = [t if titles.count(t) == 1 else f"{t} ({m})" for t, m in zip(titles, more, strict=True)]
    made = [
        Workload(title, suite, comparison.metric.title, _by_method(comparison.rows))
        for title, suite, comparison in zip(told, suites, comparisons, strict=True)
    ]
    return sorted(made, key=lambda workload: workload.title)


def _by_method(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows by method, so that they meet those of other suites, or by label where one has several;
    supervised references are marked.
    """
    methods = [(row.runs[-1].cell.method.name, row.supervised) for row in rows]
    made = {}
    for row, method in zip(rows, methods, strict=True):
        name = method[0] if methods.count(method) == 1 else row.label
        made[f"{name} {DAGGER}" if row.supervised else name] = row
    return made


def _sheet(device: str, workloads: Sequence[Workload]) -> Sheet:
    names = _names(workloads)

    def memory(row: Row) -> str:
        return cost(row.costs["memory"], COSTS["memory"].factor)

    def energy(row: Row) -> str:
        return cost(row.costs["energy"], COSTS["energy"].factor)

    def score(row: Row) -> str:
        return percent(row.accuracy["score"])

    displays = (
        ("Score (%)", score),
        (f"{COSTS['memory'].head.capitalize()} (MB)", memory),
        (f"{COSTS['energy'].head.capitalize()} (J)", energy),
    )
    blocks = [b for title, value in displays for b in _display(title, names, workloads, value)]
    metrics = ", ".join(f"{clean(w.title)}: {w.metric}" for w in workloads)
    notes = [
        f"Workload = a suite on a model. Scores: {metrics}.",
        f"{DASH} not run; n/a: the method does not apply, for the reason in the workload's own "
        f"table; {DAGGER} supervised reference: sees target labels; {LOWER_BOUND} a cost that is a "
        "lower bound.",
    ]
    if any(EDGETA in workload.rows for workload in workloads):
        for block, note in (_against_all(names, workloads), _against_cua(workloads)):
            blocks += [block] if block is not None else []
            notes += [note] if block is not None else []
    slug = "workloads-" + "".join(c if c.isalnum() else "-" for c in device.lower())[:60]
    return Sheet(f"All workloads · {device}", slug, tuple(blocks), tuple(notes))


def _names(workloads: Sequence[Workload]) -> list[str]:
    """Source-only, then by the mean place among the competing methods of each workload, then the
    supervised references.
    """
    places: dict[str, list[float]] = defaultdict(list)
    for workload in workloads:
        scores = {n: r.accuracy["score"] for n, r in workload.rows.items()}
        order = sorted((-s.mean, n) for n, s in scores.items() if s is not None)
        for i, (_, name) in enumerate(order):
            places[name].append(i / max(len(order) - 1, 1))
    every = dict.fromkeys(name for workload in workloads for name in workload.rows)

    def rank(name: str) -> tuple[bool, bool, float, str]:
        known = places.get(name)
        return DAGGER in name, name != SOURCE_ONLY, fmean(known) if known else 2.0, name

    return sorted(every, key=rank)


def _display(
    title: str, names: Sequence[str], workloads: Sequence[Workload], value: Callable[[Row], str]
) -> list[Block]:
    blocks = []
    for i in range(0, len(workloads), SIDE_BY_SIDE):
        shown = workloads[i : i + SIDE_BY_SIDE]
        number = f" {i // SIDE_BY_SIDE + 1}" if len(workloads) > SIDE_BY_SIDE else ""
        groups = [
            tuple(
                (_marked(n, workloads), *(_cell(w.rows.get(n), value) for w in shown))
                for n in names
                if (DAGGER in n) is supervised
            )
            for supervised in (False, True)
        ]
        heads = ("method", *(clean(workload.title) for workload in shown))
        blocks.append(Block(title + number, heads, groups[0], groups[1]))
    return blocks


def _marked(name: str, workloads: Sequence[Workload]) -> str:
    bound = any(w.rows[name].uncounted for w in workloads if name in w.rows)
    shown = _shown(name, workloads)
    return clean(f"{shown} {LOWER_BOUND}" if bound else shown)


def _shown(name: str, workloads: Sequence[Workload]) -> str:
    """What a report file calls a method, else its name."""
    rows = [w.rows[name] for w in workloads if name in w.rows]
    called = next((row.display for row in rows if row.display), "")
    if not called:
        return name
    return f"{called} {DAGGER}" if rows[0].supervised else called


def _cell(row: Row | None, value: Callable[[Row], str]) -> str:
    """A value, or why there is none."""
    return reason_code(row) or (DASH if row is None else value(row))


def _against_all(names: Sequence[str], workloads: Sequence[Workload]) -> tuple[Block | None, str]:
    """EdgeTA against each method that competes, over the workloads that both have."""
    rivals = [n for n in names if DAGGER not in n and n not in CONTROLS and n != EDGETA]
    rows: list[tuple[str, ...]] = []
    differences: list[float] = []
    ratios: dict[str, list[float]] = {"memory": [], "energy": []}
    for rival in rivals:
        pairs = [
            (w.rows[EDGETA], w.rows[rival])
            for w in workloads
            if EDGETA in w.rows and rival in w.rows and w.rows[rival].competes
        ]
        found = [d for a, b in pairs if (d := paired_difference(a.scores, b.scores)) is not None]
        if not found:
            continue
        difference = mean_ci([d.mean for d in found], DIFFERENCE)
        differences.append(difference.mean)
        told = []
        for name, means in ratios.items():
            known = [ratio(a.amounts(name), b.amounts(name)) for a, b in pairs]
            over = geometric_mean([each.mean for each in known if each is not None])
            means += [] if over is None else [over.mean]
            told.append(_change(over))
        called = _shown(rival, workloads)
        rows.append((clean(called), signed_points(difference), *told, str(len(found))))
    if not rows:
        return None, ""
    heads = ("method", "score (points)", "memory (%)", "energy (%)", "workloads")
    over_all = [_change(geometric_mean(means)) for means in ratios.values()]
    mean = ("mean over methods", f"{100 * fmean(differences):+.1f}", *over_all, DASH)
    published = (
        "published", PUBLISHED["difference"], PUBLISHED["memory"], PUBLISHED["energy"], DASH,
    )  # fmt: skip
    block = Block("EdgeTA against the other methods", heads, tuple(rows), (mean, published))
    return block, (
        "EdgeTA against the other methods: mean over workloads of the paired difference, with its "
        "Student-t interval over workloads; costs: geometric mean of paired ratios, minus 1. "
        "Published: EdgeTA's abstract, an average over its rivals, data sets and FMs."
    )


def _change(found: Estimate | None) -> str:
    return DASH if found is None else f"{100 * (found.mean - 1):+.1f}"


def _against_cua(workloads: Sequence[Workload]) -> tuple[Block | None, str]:
    """EdgeTA and CUA on the five further FMs of the paper's project page."""
    rows = []
    for workload in workloads:
        published = AGAINST_CUA.get(workload.suite)
        edgeta, cua = workload.rows.get(EDGETA), workload.rows.get(RIVAL)
        if published is None or edgeta is None or cua is None:
            continue
        difference = signed_points(paired_difference(edgeta.scores, cua.scores))
        cells = [_cell(row, lambda r: percent(r.accuracy["score"])) for row in (cua, edgeta)]
        rows.append((clean(workload.title), *cells, difference, published))
    if not rows:
        return None, ""
    heads = ("workload", "CUA (%)", "EdgeTA (%)", "difference (points)", "published")
    return Block("Further foundation models against CUA", heads, tuple(rows), ()), (
        "Against CUA: paired difference; published: EdgeTA's project page, on a Xavier NX (that of "
        "grounding is of GLIP)."
    )
