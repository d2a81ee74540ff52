"""Tables of a comparison as plain text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Sequence

from bench.reports.comparison import Comparison, Cost, Row
from bench.reports.layout import (
    ACCURACIES,
    COSTS,
    DAGGER,
    DASH,
    Block,
    blocks,
    clean,
    footnotes,
    missing_runs,
)
from bench.reports.statistics import Estimate

WIDTH = 120
"""Columns that a plain-text table may take."""
NAME_WIDTH = 25
"""Columns after which names are wrapped."""


def text(comparison: Comparison, note: str = "") -> str:
    """For the terminal: aligned columns within about 120 columns, then footnotes."""
    lines = [clean(comparison.title), ""]
    for block in blocks(comparison):
        lines += [block.title, *_text_block(block), ""]
    for footnote in footnotes(comparison, note):
        lines += textwrap.wrap(
            footnote, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"


def markdown(comparison: Comparison, note: str = "") -> str:
    """GitHub-flavoured Markdown; text from records cannot become markup."""
    lines = [f"## {_md(comparison.title)}", ""]
    for block in blocks(comparison):
        lines += [f"**{_md(block.title)}**", ""]
        lines.append(_md_row(block.heads))
        lines.append("|:---|" + "---:|" * (len(block.heads) - 1))
        lines += [_md_row(row) for row in (*block.methods, *block.references)]
        lines.append("")
    lines += [f"- {_md(footnote)}" for footnote in footnotes(comparison, note)]
    return "\n".join(lines) + "\n"


def latex(comparison: Comparison, note: str = "") -> str:
    """A ``table*`` float; needs the package booktabs. Text from records is escaped."""
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{_tex(comparison.title)}}}",
        rf"  \label{{tab:{comparison.slug}}}",
    ]
    for block in blocks(comparison):
        lines += _tex_block(block)
    lines += [r"  \begin{minipage}{\linewidth}\raggedright"]
    lines += [rf"    {_tex(footnote)}\par" for footnote in footnotes(comparison, note)]
    lines += [r"  \end{minipage}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """For programs: a line a row; mean, half width and n apart, six significant digits.

    Accuracies in percent, units of costs in the column names; a field is empty where there is no
    value, and a cost's ``kind`` says whether it is modelled, measured or unavailable.
    """
    out = io.StringIO()
    lines = [_csv_fields(comparison, row) for row in comparison.rows]
    writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _two_lines(head: str) -> list[str]:
    """Units under the names of costs, so that a column is as narrow as its cells."""
    return head.replace(" (", "\n(").split("\n")


# --- plain text ------------------------------------------------------------


def _text_block(block: Block) -> list[str]:
    heads = [_two_lines(head) for head in block.heads]
    groups = [[_wrapped(row) for row in group] for group in (block.methods, block.references)]
    every = [heads, *(row for group in groups for row in group)]
    widths = [max(len(line) for row in every for line in row[i]) for i in range(len(heads))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [*_text_row(heads, widths), rule]
    for group in groups:
        if group and lines[-1] != rule:
            lines.append(rule)
        for row in group:
            lines += _text_row(row, widths)
    return lines


def _wrapped(row: Sequence[str]) -> list[list[str]]:
    name = textwrap.wrap(row[0], NAME_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    # Only the state of the runs has separators: what became of the others goes below.
    return [name, *(re.split(r"(?<=[;,]) ", cell) for cell in row[1:])]


def _text_row(row: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    lines = []
    for i in range(max(len(cell) for cell in row)):
        parts = [cell[i] if i < len(cell) else "" for cell in row]
        aligned = [parts[0].ljust(widths[0])]
        aligned += [part.rjust(w) for part, w in zip(parts[1:], widths[1:], strict=True)]
        lines.append("  ".join(aligned).rstrip())
    return lines


# --- Markdown --------------------------------------------------------------


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_md(cell) for cell in cells) + " |"


def _md(value: str) -> str:
    """Escape by CommonMark 2.4; angle brackets as entities, for renderers that pass HTML on."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", clean(value).replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


# --- LaTeX -----------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "…": r"\dots{}",
    DAGGER: r"$^\dagger$",
    DASH: "--",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def _tex(value: str) -> str:
    return "".join(_TEX.get(c, c) for c in clean(value))


def _tex_row(cells: Sequence[Sequence[str]], align: str = "t") -> str:
    """Cells of several lines, as in plain text: a page is no wider than a terminal."""
    sides = ["l", *["r"] * (len(cells) - 1)]
    made = (_tex_cell(cell, align, side) for cell, side in zip(cells, sides, strict=True))
    return "    " + " & ".join(made) + r" \\"


def _tex_cell(lines: Sequence[str], align: str, side: str) -> str:
    # A sign before a digit is a minus, not a hyphen.
    escaped = [re.sub(r"^-(?=\d)", "$-$", _tex(line)) for line in lines]
    if len(lines) == 1:
        return escaped[0]
    stacked = r" \\ ".join(escaped)
    return rf"\begin{{tabular}}[{align}]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"


def _tex_block(block: Block) -> list[str]:
    lines = [
        rf"  \begin{{tabular}}{{l{'r' * (len(block.heads) - 1)}}}",
        r"    \toprule",
        rf"    \multicolumn{{{len(block.heads)}}}{{l}}{{\textbf{{{_tex(block.title)}}}}} \\",
        _tex_row([_two_lines(head) for head in block.heads], align="b"),
    ]
    for group in (block.methods, block.references):
        if group:
            lines += [r"    \midrule", *(_tex_row(_wrapped(row)) for row in group)]
    return [*lines, r"    \bottomrule", r"  \end{tabular}\par\medskip"]


# --- CSV -------------------------------------------------------------------


def _csv_fields(comparison: Comparison, row: Row) -> dict[str, str]:
    cell = comparison.cell
    fields = {
        "scenario": _csv_text(cell.scenario.name),
        "model": _csv_text(cell.model.name),
        "device": _csv_text(cell.device),
        "protocol": json.dumps(cell.protocol, sort_keys=True),
        "method": _csv_text(row.label),
        "supervised_reference": str(int(row.supervised)),
        "runs_ok": str(len(row.results)),
        "runs_recorded": str(len(row.runs)),
    }
    for name in ACCURACIES:
        estimate: Estimate | None = getattr(row, name)
        fields |= _csv_estimate(f"{name}_percent", estimate and estimate.scaled(100.0))
    for name, (_, unit, factor) in COSTS.items():
        cost: Cost = getattr(row, name)
        column = f"{name}_{unit.replace('/', '_per_').lower()}"
        fields |= _csv_estimate(column, cost.estimate and cost.estimate.scaled(factor))
        fields[f"{name}_kind"] = " and ".join(cost.kinds) or ("unavailable" if cost.gaps else "")
    return fields | {"missing": _csv_text("; ".join(missing_runs(row)))}


def _csv_estimate(column: str, estimate: Estimate | None) -> dict[str, str]:
    if estimate is None:
        return {column: "", f"{column}_half_width": "", f"{column}_n": "0"}
    width = estimate.half_width
    return {
        column: f"{estimate.mean:.6g}",
        f"{column}_half_width": "" if width is None else f"{width:.6g}",
        f"{column}_n": str(estimate.n),
    }


def _csv_text(value: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    value = clean(value)
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
