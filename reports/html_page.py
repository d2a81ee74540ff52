"""One HTML file that shows everything and opens offline; its one script comes from here alone."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from bench.records.cell import variant_title
from bench.records.record import Record

from .aggregate import Row, clean, fate, run_of, show_all
from .comparison import Comparison, flat_settings
from .drawing import Drawing, Style
from .footnotes import runs_text
from .page_data import captions, page_data
from .shared_notes import said_once
from .table_model import DASH, Sheet, name_of, settings_of

CSS_DPI = 96
"""Pixels that style sheets count in an inch."""


def page(
    comparisons: Sequence[Comparison],
    sheets: Sequence[Sheet],
    look: Mapping[str, Style],
    note: str = "",
    across: Sequence[tuple[Sheet, Drawing]] = (),
    workloads: Sequence[Sheet] = (),
    logs: Mapping[str, str] = MappingProxyType({}),
    answer: Sheet | None = None,
    has_files: bool = True,
) -> str:
    """The report as HTML, everything from records escaped; ``look`` comes from `drawing.styles`.

    ``sheets``: of the comparisons, without the note; ``across``: tables and figures of several of
    them; ``workloads``: tables across suites; ``logs``: the ends of logs by the name that records
    have of them; ``answer``: what stands first; ``has_files``: whether the figures of comparisons
    lie beside the page as well. The policy of the page lets the browser run the script that lies
    beside this module and nothing else.
    """
    beside = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(beside),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"name_of": name_of, "settings_of": settings_of}
    environment.filters |= {"clean": clean, "show_all": show_all, "base64": base64.b64encode}
    shown, shared = said_once(sheets)
    records = [record for comparison in comparisons for record in comparison.records]
    script = beside.joinpath("page.js").read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        css_dpi=CSS_DPI,
        css=Markup(beside.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=f"sha256-{sha256}",
        data=page_data(comparisons, look),
        logs=logs,
        note=clean(note),
        across=[*((tables, None) for tables in workloads), *across],
        answer=answer,
        has_files=has_files,
        shared_notes=shared,
        comparisons=[_section(c, made, logs) for c, made in zip(comparisons, shown, strict=True)],
        versions=_versions(records),
        suites=sorted({record.suite for record in records}),
        first=min((record.started for record in records), default=""),
        last=max((record.started for record in records), default=""),
        runs=len(records),
    )


def _section(comparison: Comparison, made: Sheet, logs: Mapping[str, str]) -> dict[str, Any]:
    cell = comparison.cell
    return {
        "id": made.slug,
        "title": clean(made.title),
        "blocks": made.blocks,
        "footnotes": made.notes,
        "has_oracle": comparison.has_oracle,
        "facets": {
            "suite": comparison.records[0].suite,
            "model": cell.model.name,
            "variant": variant_title(cell.variant) or "full",
            "device": cell.device,
        },
        "drawn": comparison.drawn,
        "captions": captions(comparison),
        "energy_unknown": comparison.drawn
        and all(row.costs["energy"].estimate is None for row in comparison.drawn),
        "settings": _shared(comparison),
        "rows": comparison.rows,
        "missing": [each for row in comparison.rows for each in _missing(row, logs)],
    }


def _missing(row: Row, logs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The runs of a row without a result: those with one reason in one line, unless the page has
    the end of their log.
    """
    alike: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for run in row.missing:
        status = fate(run) + (f" on the {run.oom_on}" if run.oom_on else "")
        alike[(status, clean(run.reason), run.log if logs.get(run.log) else "")].append(run)
    return [
        {
            "method": name_of(row),
            "runs": runs_text([run_of(run) for run in runs]),
            "status": status,
            "reason": reason,
            "logs": list(dict.fromkeys(run.log for run in runs if run.log)),
        }
        for (status, reason, _), runs in alike.items()
    ]


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
