"""A paper's table as plain text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .aggregate import clean
from .paper_table import Head, Line, PaperTable, Value, named_parts
from .table_columns import column_of
from .table_model import Block, Sheet, with_interval
from .tables import csv_estimate, csv_text, escaped_md, sheet_text

MARKS = {"best": "*", "second": "_", "": ""}
"""In plain text, before a number."""


def paper_text(table: PaperTable) -> str:
    """Aligned columns; ``*`` stands before the best, ``_`` before the second."""
    blocks = []
    for setting, lines in by_setting(table):
        # Settings beside each other are no narrower than a terminal: here each has its block.
        for beside in dict.fromkeys(head.setting for head in table.heads):
            kept = [i for i, head in enumerate(table.heads) if head.setting == beside]
            heads = ("method", *(told_head(replace(table.heads[i], setting="")) for i in kept))
            rows: list[tuple[str, ...]] = []
            for group, found in by_group(lines):
                rows += [(f"[{group}]", *[""] * len(kept))] * bool(group)
                for line in found:
                    values = [line.values[i] for i in kept]
                    rows.append((line.name, *(MARKS[v.mark] + told(v) for v in values)))
            blocks.append(Block(setting or beside, heads, tuple(rows), ()))
    marked = any(value.mark for line in table.lines for value in line.values)
    legend = ["* best, _ second"] * marked
    notes = (table.caption, *legend, *table.notes)
    return sheet_text(Sheet(table.title, table.name, tuple(blocks), notes))


def paper_markdown(table: PaperTable) -> str:
    """GitHub-flavoured Markdown: best in bold, second underlined."""
    heads = ["method", *(told_head(head) for head in table.heads)]
    rule = "|:---|" + "".join(":---|" if head.words else "---:|" for head in table.heads)
    lines = [f"**{escaped_md(table.title)}**", "", _md_row([escaped_md(h) for h in heads]), rule]
    for setting, of_setting in by_setting(table):
        lines += _md_heading(setting, "**", len(heads))
        for group, found in by_group(of_setting):
            lines += _md_heading(group, "*", len(heads))
            for line in found:
                cells = [_md_marked(escaped_md(told(v)), v.mark) for v in line.values]
                lines.append(_md_row([escaped_md(line.name), *cells]))
    lines += ["", escaped_md(table.caption), "", *(f"- {escaped_md(n)}" for n in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def paper_csv(table: PaperTable) -> str:
    """For programs: a line for each row and setting; empty fields where there is no value."""
    rows = [_fields(table, line) for line in table.lines]
    flat = [fields for each in rows for fields in each]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def paper_json(table: PaperTable) -> str:
    """Everything that the other formats show, with all digits."""
    content = {
        "title": table.title,
        "caption": table.caption,
        "columns": [
            {
                "column": head.column, "name": head.name, "unit": head.unit,
                "better": {"↑": "higher", "↓": "lower"}.get(head.better, ""),
                "setting": head.setting,
            }
            for head in table.heads
        ],
        "rows": [
            {
                "name": line.name, "group": line.group, "setting": line.setting,
                "labels": [None if row is None else clean(row.label) for _, row in line.rows],
                "cells": [_json_value(value) for value in line.values],
            }
            for line in table.lines
        ],
        "notes": list(table.notes),
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def told(value: Value) -> str:
    """A cell without its mark."""
    if value.estimate is None:
        return value.words or value.code
    return with_interval(value.estimate, value.places, value.signed)


def told_head(head: Head) -> str:
    """Setting, name, arrow and unit."""
    parts = [f"{head.setting}:" * bool(head.setting), head.name, head.better]
    parts.append(f"({head.unit})" * bool(head.unit))
    return " ".join(part for part in parts if part)


def by_setting(table: PaperTable) -> Iterator[tuple[str, list[Line]]]:
    """The lines of each setting, in order."""
    settings = dict.fromkeys(line.setting for line in table.lines)
    for setting in settings:
        yield setting, [line for line in table.lines if line.setting == setting]


def by_group(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Lines that follow each other with one group."""
    start = 0
    for i in range(1, len(lines) + 1):
        if i == len(lines) or lines[i].group != lines[start].group:
            yield lines[start].group, list(lines[start:i])
            start = i


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_heading(text: str, around: str, size: int) -> list[str]:
    told = [f"{around}{escaped_md(text)}{around}", *[""] * (size - 1)]
    return [_md_row(told)] if text else []


def _md_marked(text: str, mark: str) -> str:
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(mark, text)


def _fields(table: PaperTable, line: Line) -> Iterator[dict[str, str]]:
    size = len(line.values) // len(line.rows)
    for i, (comparison, row) in enumerate(line.rows):
        parts = zip(("suite", "stream", "model", "device"), named_parts(comparison), strict=True)
        fields = {name: csv_text(part) for name, part in parts}
        fields["settings_of_the_table"] = csv_text(comparison.variant)
        fields |= {"group": csv_text(line.group), "name": csv_text(line.name)}
        fields["method"] = "" if row is None else csv_text(row.label)
        values = line.values[i * size : (i + 1) * size]
        for head, value in zip(table.heads[:size], values, strict=True):
            if head.words:
                fields[head.column] = csv_text(value.words or value.code)
                continue
            unit = column_of(head.column, comparison).unit
            named = {"%": "percent", "points": "points"}.get(unit, unit.replace("/", "_per_"))
            column = f"{head.column.replace('-', '_')}_{named}".rstrip("_").lower()
            fields |= csv_estimate(column, value.estimate)
            short = head.column.replace("-", "_")
            fields |= {f"{short}_mark": value.mark, f"{short}_code": value.code}
        yield fields


def _json_value(value: Value) -> dict[str, Any]:
    known = value.estimate
    if known is None:
        return {"words": value.words} if value.words else {"code": value.code}
    low, high = known.interval or (None, None)
    numbers = {"mean": known.mean, "low": low, "high": high, "half_width": known.half_width}
    return {**numbers, "n": known.n, "mark": value.mark, "shown": told(value)}
