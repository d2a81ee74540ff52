"""One HTML file that shows everything, opens offline and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench.record import Record
from bench.reports.comparison import Comparison, Row, fate
from bench.reports.figures import Drawing
from bench.reports.layout import blocks, clean, footnotes, name_of, settings, versions

CSS_DPI = 96
"""Pixels that style sheets count in an inch."""


def page(
    comparisons: Sequence[Comparison],
    drawings: Mapping[str, Sequence[Drawing]],
    note: str = "",
) -> str:
    """The report as HTML; ``drawings`` are the figures of each comparison by its ``key``.

    Everything that comes from records is escaped by the template engine, text and attributes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records = [record for comparison in comparisons for record in comparison.records]
    return environment.get_template("page.html").render(
        note=clean(note),
        comparisons=[_section(c, drawings.get(c.key, ())) for c in comparisons],
        versions=versions(records),
        suites=sorted({record.suite for record in records}),
        first=min((record.started for record in records), default=""),
        last=max((record.started for record in records), default=""),
        runs=len(records),
    )


# ---------------------------------------------------------------------------


def _section(comparison: Comparison, drawings: Sequence[Drawing]) -> dict[str, Any]:
    return {
        "id": comparison.slug,
        "title": clean(comparison.title),
        "blocks": blocks(comparison),
        "footnotes": footnotes(comparison),
        "figures": [
            {
                "title": drawing.title,
                "caption": drawing.caption,
                "width": round(drawing.width * CSS_DPI),
                "data": base64.b64encode(drawing.png).decode(),
            }
            for drawing in drawings
        ],
        "energy_unknown": drawings and all(d.name != "tradeoff" for d in drawings),
        "settings": settings(comparison),
        "methods": [_method(row) for row in comparison.rows],
        "missing": [_missing(row, record) for row in comparison.rows for record in row.missing],
    }


def _method(row: Row) -> dict[str, str]:
    # All runs of a row have the same code, so the newest one's facts hold for all.
    facts = max(row.runs, key=lambda record: record.started).method
    return {
        "name": name_of(row),
        "family": facts.family,
        "provenance": facts.provenance,
        "paper": facts.paper,
        "needs": ", ".join(need.replace("_", " ") for need in facts.needs),
    }


def _missing(row: Row, record: Record) -> dict[str, Any]:
    return {
        "name": name_of(row),
        "seed": record.cell.seed,
        "status": fate(record) + (f" on the {record.oom_on}" if record.oom_on else ""),
        "reason": clean(record.reason) or "no reason recorded",
        "log": record.log,
    }
