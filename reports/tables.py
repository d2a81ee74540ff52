"""Tables of a comparison as plain text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from .aggregate import Row, clean, find_row
from .comparison import Comparison
from .footnotes import missing_runs
from .further_blocks import sheet
from .metrics import COSTS, MEASURES
from .paired import paired
from .statistics import Estimate, components, paired_difference
from .table_model import DAGGER, DASH, DOUBLE_DAGGER, DOWN, UP, Block, Sheet, origin_of

WIDTH = 120
"""Columns that a plain-text table may take."""
NAME_WIDTHS = (16, 25)
"""Columns after which names are wrapped: so many that the table fits, but within these bounds."""

TEXT_WIDTH = 22
"""Columns after which other words are broken, names of a runner-up among them."""
HEAD_WIDTH = 11
"""Columns after which a head is broken between words."""

PAGE = 40
"""Rows of all tables that one page takes beside the footnotes."""


def text(comparison: Comparison, note: str = "") -> str:
    """For the terminal: aligned columns within about 120 columns, then footnotes."""
    return sheet_text(sheet(comparison, note))


def sheet_text(made: Sheet) -> str:
    """`text` of any tables."""
    lines = [clean(made.title), ""]
    for block in made.blocks:
        lines += [*[block.title] * bool(block.title), *_text_block(block), ""]
    return "\n".join([*lines, *note_lines(made.notes)]) + "\n"


def note_lines(notes: Iterable[str]) -> list[str]:
    """Notes below a table in plain text."""
    lines = []
    for note in notes:
        lines += textwrap.wrap(
            note, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines


def markdown(comparison: Comparison, note: str = "") -> str:
    """GitHub-flavoured Markdown; text from records cannot become markup."""
    return sheet_markdown(sheet(comparison, note))


def sheet_markdown(made: Sheet) -> str:
    """`markdown` of any tables."""
    lines = [f"## {escaped_md(made.title)}", ""]
    for block in made.blocks:
        rule = "|" + ":---|" * block.texts + "---:|" * (len(block.heads) - block.texts)
        lines += [f"**{escaped_md(block.title)}**", "", _md_row(block.heads), rule]
        lines += [*(_md_row(row) for row in (*block.methods, *block.references)), ""]
    lines += [f"- {escaped_md(footnote)}" for footnote in made.notes]
    return "\n".join(lines) + "\n"


def latex(comparison: Comparison, note: str = "") -> str:
    """A ``table*`` float, or one for each table where they would not fit a page together, the
    footnotes in the last; needs the package booktabs. Text from records is escaped.
    """
    return sheet_latex(sheet(comparison, note))


def sheet_latex(made: Sheet) -> str:
    """`latex` of any tables."""
    long = sum(len(b.methods) + len(b.references) for b in made.blocks) > PAGE
    parts = [[block] for block in made.blocks] if long else [list(made.blocks)]
    lines = ["% needs \\usepackage{booktabs}"]
    for i, part in enumerate(parts):
        title = f"{made.title}: {part[0].title}" if long else made.title
        lines += [
            r"\begin{table*}",
            r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"  \caption{{{escaped_tex(title)}}}",
            rf"  \label{{tab:{made.slug}{f'-{i + 1}' if i else ''}}}",
        ]
        for block in part:
            lines += _tex_block(block)
        if part is parts[-1]:
            told = [rf"    {escaped_tex(footnote)}\par" for footnote in made.notes]
            lines += [r"  \begin{minipage}{\linewidth}\raggedright", *told, r"  \end{minipage}"]
        lines += [r"\end{table*}"]
    return "\n".join(lines) + "\n"


def comma_separated(comparison: Comparison, reference: str = "") -> str:
    """For programs: a line a row; mean, half width and n apart, six significant digits.

    Scores in percent, units of costs in the column names; a field is empty where there is no
    value, and a cost's ``kind`` says whether it is modelled, measured or unavailable.
    ``reference``: a row's label or method, whose paired differences stand in further columns.
    """
    out = io.StringIO()
    named = find_row(comparison.drawn, reference)
    lines = [_csv_fields(comparison, row, named) for row in comparison.rows]
    writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _two_lines(head: str) -> list[str]:
    """Long heads broken, and units under them: columns as narrow as their cells."""
    name, unit, rest = head.partition(" (")
    kept = re.sub(rf" (?=[{UP}{DOWN}])", "\u00a0", name)  # an arrow stays with its word
    wrapped = textwrap.wrap(kept, HEAD_WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = [line.replace("\u00a0", " ") for line in wrapped]
    return [*lines, f"({rest}"] if unit else lines


# --- plain text ------------------------------------------------------------


def _text_block(block: Block) -> list[str]:
    heads, groups = _lines(block)
    every = [heads, *(row for group in groups for row in group)]
    widths = _widths(every)
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [*_text_row(heads, widths, block.texts), rule]
    for group in groups:
        if group and lines[-1] != rule:
            lines.append(rule)
        for row in group:
            lines += _text_row(row, widths, block.texts)
    return lines


def _lines(block: Block) -> tuple[list[list[str]], list[list[list[list[str]]]]]:
    """Heads and rows of both groups with every cell in lines, so that `WIDTH` is kept."""
    heads = [_two_lines(head) for head in block.heads]
    groups = [
        [
            [[row[0]], *map(_words, row[1 : block.texts]), *map(_narrow, row[block.texts :])]
            for row in group
        ]
        for group in (block.methods, block.references)
    ]
    taken = sum(2 + w for w in _widths([heads, *(row for g in groups for row in g)])[1:])
    width = min(max(WIDTH - taken, NAME_WIDTHS[0]), NAME_WIDTHS[1])
    for group in groups:
        for row in group:
            row[0] = wrapped_name(row[0][0], width)
    return heads, groups


def wrapped_name(name: str, width: int) -> list[str]:
    """A method's name with its settings in lines of at most ``width`` characters."""
    wrapper = textwrap.TextWrapper(width, subsequent_indent="  ", break_on_hyphens=False)
    if max(map(len, name.split()), default=0) > width - 2:
        # Rather behind a setting's name or a hyphen than in the middle of a word.
        wrapper.wordsep_simple_re = re.compile(r"( +|(?<==)|(?<=\w-)(?=\w))")
    return wrapper.wrap(name)


def _words(cell: str) -> list[str]:
    return [line for part in _narrow(cell) for line in wrapped_name(part, TEXT_WIDTH) or [""]]


def _narrow(cell: str) -> list[str]:
    # Only the state of the runs has separators: what became of the others goes below.
    # Ends of an interval stay together, below the mean.
    return re.split(r"(?<=[;,]) (?![^\[]*\])| (?=\[)", cell.replace(" ± ", "±"))


def _widths(rows: Sequence[Sequence[Sequence[str]]]) -> list[int]:
    columns = zip(*rows, strict=True)
    return [max((len(line) for cell in cells for line in cell), default=0) for cells in columns]


def _text_row(row: Sequence[Sequence[str]], widths: Sequence[int], texts: int) -> list[str]:
    lines = []
    for i in range(max(len(cell) for cell in row)):
        parts = zip((cell[i] if i < len(cell) else "" for cell in row), widths, strict=True)
        aligned = (p.ljust(w) if j < texts else p.rjust(w) for j, (p, w) in enumerate(parts))
        lines.append("  ".join(aligned).rstrip())
    return lines


# --- Markdown --------------------------------------------------------------


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped_md(cell) for cell in cells) + " |"


def escaped_md(value: str) -> str:
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
    '"': r"\char34{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "—": "---",
    "`": "{}`{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "§": r"\S{}",
    "¶": r"\P{}",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "ø": r"\o{}",
    "Æ": r"\AE{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    DAGGER: r"$^\dagger$",
    DOUBLE_DAGGER: r"$^\ddagger$",
    DASH: "--",
    **{c: "\\" + c for c in "&%$#_{}"},
}


_TEX_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0308": '"',
    "\u030a": "r",
    "\u030c": "v",
    "\u0327": "c",
}
"""Combining accents, and the commands for them in every encoding of fonts."""


def escaped_tex(value: str) -> str:
    """Text of which LaTeX reads nothing as a command, for every engine."""
    text = unicodedata.normalize("NFC", clean(value))
    return "".join(
        # Two hyphens in a row would be set as a dash.
        "-{}" if one + following == "--" else _TEX.get(one) or _tex_character(one)
        for one, following in zip(text, text[1:] + " ", strict=False)
    )


def _tex_character(character: str) -> str:
    """For every TeX engine: a character without a command is printed as its code, U+4E2D."""
    if character.isascii():
        return character
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _TEX_ACCENTS:
        letter = rf"\{base}" if base in "ij" else base  # without their dots
        return rf"\{_TEX_ACCENTS[accents[0]]}{{{letter}}}"
    return f"U+{ord(character):04X}"


def _tex_row(cells: Sequence[Sequence[str]], sides: str, align: str = "t") -> str:
    """Cells of several lines, as in plain text: a page is no wider than a terminal."""
    made = map(tex_cell, cells, [align] * len(cells), sides)
    return "    " + " & ".join(made) + r" \\"


def tex_cell(lines: Sequence[str], align: str, side: str) -> str:
    """A cell of one or several lines."""
    # A sign before a digit is a minus, not a hyphen.
    escaped = [re.sub(r"^-(?=\d)", "$-$", escaped_tex(line)) for line in lines]
    # After the end of a row, its \\ and booktabs' rules would read a [ or * as an argument.
    escaped = [re.sub(r"^[\[*]", r"{\g<0>}", line) for line in escaped]
    if len(lines) == 1:
        return escaped[0]
    stacked = r" \\ ".join(escaped)
    return rf"\begin{{tabular}}[{align}]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"


def _tex_block(block: Block) -> list[str]:
    sides = "l" * block.texts + "r" * (len(block.heads) - block.texts)
    heads, groups = _lines(block)
    lines = [
        rf"  \begin{{tabular}}{{{sides}}}",
        r"    \toprule",
        rf"    \multicolumn{{{len(block.heads)}}}{{l}}{{\textbf{{{escaped_tex(block.title)}}}}} \\",
        _tex_row(heads, sides, align="b"),
    ]
    for group in groups:
        if group:
            lines += [r"    \midrule", *(_tex_row(row, sides) for row in group)]
    return [*lines, r"    \bottomrule", r"  \end{tabular}\par\medskip"]


# --- CSV -------------------------------------------------------------------


def _csv_fields(comparison: Comparison, row: Row, reference: Row | None) -> dict[str, str]:
    cell = comparison.cell
    fields = {
        "stream": csv_text(cell.stream.name),
        "model": csv_text(cell.model_title),
        "device": csv_text(cell.device),
        "metric": comparison.metric.name,
        "protocol": json.dumps(cell.protocol, sort_keys=True),
        "method": csv_text(row.label),
        "origin": csv_text(origin_of(row)),
        "settings": row.settings,
        "settings_changed": json.dumps(row.facts.changed, sort_keys=True),
        "supervised_reference": str(int(row.supervised)),
        "runs_ok": str(len(row.results)),
        "runs_recorded": str(len(row.runs)),
    }
    accuracies = {name: row.accuracy[name] for name in MEASURES} | {"difference": row.difference}
    for name, estimate in accuracies.items():
        fields |= csv_estimate(f"{name}_percent", estimate and estimate.scaled(100.0))
    source = next((r for r in comparison.drawn if r.is_source_only), None)
    fields |= _csv_paired("difference", row, source)
    if reference is not None:
        known = None if row is reference else paired_difference(row.scores, reference.scores)
        fields["reference"] = csv_text(reference.label)
        fields |= csv_estimate("to_reference_percent", known and known.scaled(100.0))
        fields |= _csv_paired("to_reference", row, reference)
    spread = components(row.scores) if row.scores else None
    for name, value in (("draws", spread and spread.draws), ("seeds", spread and spread.seeds)):
        fields[f"deviation_of_{name}_percent"] = "" if value is None else f"{100 * value:.6g}"
    share = comparison.front_shares.get(row.label) if row.competes else None
    fields["on_front_percent"] = "" if share is None else f"{100 * share:.6g}"
    for metric in comparison.further_metrics:
        known = row.further.get(metric.name)
        of, factor = ("_percent", 100.0) if metric.unit == "%" else ("", 1.0)
        column = metric.name.replace("-", "_") + of
        fields |= csv_estimate(column, known and known.scaled(factor))
    for name, shown in COSTS.items():
        cost = row.costs[name]
        column = f"{name}_{shown.unit.replace('/', '_per_').lower()}"
        fields |= csv_estimate(column, cost.estimate and cost.estimate.scaled(shown.factor))
        fields[f"{name}_kind"] = " and ".join(cost.kinds) or ("unavailable" if cost.gaps else "")
    fields["older_code"], fields["without_effect"] = str(int(row.older_code)), str(int(row.inert))
    fields["window_closed"] = "" if row.window is None else str(row.window)
    return fields | {"missing": csv_text("; ".join(missing_runs(row)))}


def _csv_paired(column: str, row: Row, control: Row | None) -> dict[str, str]:
    """Effect size and p of a row paired with another."""
    found = None if control in (None, row) else paired(row.scores, control.scores)
    effect, p = (None, None) if found is None else (found.effect, found.p)
    return {
        f"{column}_effect_size": "" if effect is None else f"{effect:.6g}",
        f"{column}_p": "" if p is None else f"{p:.6g}",
    }


def csv_estimate(column: str, estimate: Estimate | None) -> dict[str, str]:
    """The fields of an estimate; empty where there is none."""
    if estimate is None:
        ends = dict.fromkeys((f"{column}_half_width", f"{column}_low", f"{column}_high"), "")
        return {column: "", **ends, f"{column}_n": "0"}
    width, (low, high) = estimate.half_width, estimate.interval or (None, None)
    return {
        column: f"{estimate.mean + 0.0:.6g}",
        f"{column}_half_width": "" if width is None else f"{width:.6g}",
        f"{column}_low": "" if low is None else f"{low + 0.0:.6g}",
        f"{column}_high": "" if high is None else f"{high + 0.0:.6g}",
        f"{column}_n": str(estimate.n),
    }


def csv_text(value: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    value = clean(value)
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
