"""The page of all methods in Markdown, from what they declare and what their steps cost."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench import registry
from bench.contracts.method import FAMILIES, Method
from bench.defaults import DEVICE, MODEL, STREAM
from bench.docgen.markdown import settings_table, table

if TYPE_CHECKING:
    from bench.estimate.step_costs import StepCost

Counted = Mapping[str, "Sequence[StepCost] | str"]
"""The work of each method by its name, or why it was not counted."""

TITLES = {
    "reference": "References",
    "UDA": "Unsupervised domain adaptation",
    "CL": "Continual learning",
    "PEFT": "Parameter-efficient fine-tuning",
}
BEGIN, END = "<!-- counted -->", "<!-- /counted -->"
"""What stands between these lines was counted; all else is what the methods declare."""

HEAD = f"""\
# Methods

Written by `bench docs` from the registered methods; do not edit. Family, needs, protocols and
shifts are what a method declares and `bench check` checks. Provenance: *published*, one of
EdgeTA's baselines by its paper or code; *group-harness*, from that group's own harness;
*chosen-here*. Allowed values are stated as intervals, (0, 1] without the 0; what `bench tune`
searches within them stands in the last column.

Costs are of one step of batch 50 with default settings, on the embedded model ({MODEL}, 0.21 M
parameters) and stream ({STREAM}): the costliest of each kind in two domains. Operations,
bytes, launches and peak memory (with the model, without the runtime) are counted operator by
operator; the time is modelled for {DEVICE}, whose profile says where its numbers come from.
*varies*: the work depends on what the method sees, and so on the source model's weights. *predict*
is inference, and a *section* is work beside the steps. 1 MB is 1e6 bytes.
"""


def page(costs: Counted | None) -> str:
    """The whole page; without ``costs`` the counted tables are left out."""
    classes = {name: registry.load("method", name) for name in registry.entries("method")}
    parts = [HEAD]
    for family in FAMILIES:
        members = {n: c for n, c in sorted(classes.items()) if c.family == family}
        if members:
            parts += [f"## {TITLES[family]}", _overview(members)]
            for name, method in members.items():
                parts += _section(name, method, None if costs is None else costs[name])
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _overview(members: Mapping[str, type[Method]]) -> str:
    rows = []
    for name, method in members.items():
        words = [", ".join(v) or "–" for v in (method.needs, method.protocols, method.shifts)]
        rows.append([f"[{name}](#{name.replace('+', '')})", method.provenance, *words])
    return table(["name", "provenance", "needs", "protocols", "shifts"], rows)


def _section(
    name: str, method: type[Method], work: Sequence[StepCost] | str | None
) -> Iterator[str]:
    yield f"### {name}"
    yield inspect.cleandoc(method.__doc__ or "")
    yield f"- Paper: {method.paper}\n- Update: `{method.equation}`"
    if method.Config.model_fields:
        yield settings_table(method.Config)
        yield inspect.cleandoc(method.Config.__doc__ or "")
    if work is not None:
        yield f"{BEGIN}\n{_costs(work)}\n{END}"


def _costs(work: Sequence[StepCost] | str) -> str:
    if isinstance(work, str):
        return f"Not counted: {work}"
    rows = []
    for each in work:
        millions = (each.operations, each.bytes, each.peak_bytes)
        operations, traffic, peak = (_significant(value / 1e6) for value in millions)
        kind, time = each.kind + ", varies" * each.varies, _significant(each.time_s * 1e3)
        rows.append([kind, operations, traffic, str(each.launches), peak, time])
    head = ["step", "operations (M)", "traffic (MB)", "launches", "peak memory (MB)", "time (ms)"]
    return table(head, rows, align=["---"] + ["---:"] * 5)


def _significant(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"
