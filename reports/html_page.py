"""One HTML file that shows everything, opens offline and runs no script."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench.records.record import Record

from .aggregate import clean, fate, show_all
from .comparison import Comparison, flat_settings
from .drawing import Drawing
from .further_blocks import sheet
from .shared_notes import said_once
from .table_model import DASH, Sheet, name_of, settings_of

CSS_DPI = 96
"""Pixels that style sheets count in an inch."""


def page(
    comparisons: Sequence[Comparison],
    drawings: Mapping[str, Sequence[Drawing]],
    note: str = "",
    reference: str = "",
    across: Sequence[tuple[Sheet, Drawing]] = (),
    workloads: Sequence[Sheet] = (),
    answer: Sheet | None = None,
) -> str:
    """The report as HTML, everything from records escaped; ``drawings``: figures by ``key``;
    ``reference``: see `files`; ``across``: tables and figure of scenarios; ``workloads``: tables
    across suites; ``answer``: what stands first.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"name_of": name_of, "settings_of": settings_of, "fate": fate}
    environment.filters |= {"clean": clean, "show_all": show_all, "base64": base64.b64encode}
    sheets, shared = said_once([sheet(each, reference=reference) for each in comparisons])
    records = [record for comparison in comparisons for record in comparison.records]
    return environment.get_template("page.html").render(
        css_dpi=CSS_DPI,
        note=clean(note),
        across=[*((tables, None) for tables in workloads), *across],
        answer=answer,
        shared_notes=shared,
        comparisons=[
            _section(c, drawings.get(c.key, ()), made)
            for c, made in zip(comparisons, sheets, strict=True)
        ],
        versions=_versions(records),
        suites=sorted({record.suite for record in records}),
        first=min((record.started for record in records), default=""),
        last=max((record.started for record in records), default=""),
        runs=len(records),
    )


def _section(comparison: Comparison, drawings: Sequence[Drawing], made: Sheet) -> dict[str, Any]:
    return {
        "id": made.slug,
        "title": clean(made.title),
        "blocks": made.blocks,
        "footnotes": made.notes,
        "has_oracle": comparison.has_oracle,
        "figures": drawings,
        "energy_unknown": drawings and all(d.name != "tradeoff" for d in drawings),
        "settings": _shared(comparison),
        "rows": comparison.rows,
    }


def _shared(comparison: Comparison) -> dict[str, str]:
    """What all runs of the comparison share: names, settings and digests."""
    cell = comparison.cell
    variant = {} if cell.variant is None else {"code of the variant": cell.variant.code[:12]}
    return {
        "stream": cell.stream.name,
        "model": cell.model_title,
        "device": cell.device,
        "protocol": str(cell.protocol.get("name", DASH)),
        **flat_settings(cell),
        "code of the stream": cell.stream.code[:12],
        "code of the model": cell.model.code[:12],
        **variant,
        "device profile": cell.device_digest[:12],
    }


def _versions(records: Iterable[Record]) -> dict[str, str]:
    """Versions and machines that the records were made with; several are all named."""
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for key, value in record.environment.items():
            if key == "argv":
                continue  # a command line may hold paths of the person who ran it
            for name, text in value.items() if isinstance(value, dict) else [(key, value)]:
                if text not in ("", None):
                    seen[str(name)][str(text)] = None
    return {name: "; ".join(sorted(values)) for name, values in seen.items()}
