r"""A paper's table in LaTeX, to be read with ``\input``: booktabs rules, numbers aligned at their
decimal points, and everything about its look in commands that the paper may define otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .paper_formats import by_group, by_setting
from .paper_table import Head, Line, PaperTable, Value
from .table_model import interval_parts
from .tables import escaped_tex, tex_cell, wrapped_name

NAME_WIDTH = 34
"""Characters after which a method's name is broken."""
LINES = 40
"""Rows of a float; a longer table goes on in the next."""

STYLE = r"""% Needs \usepackage{booktabs}. Define any of these before \input to restyle all tables.
\providecommand{\benchenv}{table}
\providecommand{\benchsize}{\footnotesize\setlength{\tabcolsep}{4pt}\def\arraystretch{1.1}}
\providecommand{\benchbest}[1]{\textbf{#1}}
\providecommand{\benchsecond}[1]{\underline{#1}}
\providecommand{\benchpm}[1]{\,{\scriptsize$\pm$\,#1}}
\providecommand{\benchrange}[2]{\,{\scriptsize[#1, #2]}}
\providecommand{\benchcode}[1]{\textit{#1}}
\providecommand{\benchsetting}[1]{\textbf{#1}}
\providecommand{\benchgroup}[1]{\textit{#1}}
\providecommand{\benchup}{$\uparrow$}
\providecommand{\benchdown}{$\downarrow$}
\providecommand{\benchnote}[1]{{\scriptsize #1\par}}
"""


SIUNITX = r"""% Needs \usepackage{siunitx} too: its \sisetup says how numbers look.
\providecommand{\benchnum}[1]{\num[retain-explicit-plus]{#1}}
"""


def paper_latex(table: PaperTable) -> str:
    """One float, or several where the table has more than `LINES` rows. Text is escaped."""
    rows = list(_rows(table))
    parts = [rows[i : i + LINES] for i in range(0, len(rows), LINES)]
    lines = [STYLE.rstrip(), *[SIUNITX.rstrip()] * table.siunitx]
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        number = f" ({i + 1} of {len(parts)})" if len(parts) > 1 else ""
        caption = table.caption if not i else f"{table.title}{number}, continued."
        lines += [
            r"\begin{\benchenv}",
            r"  \centering\benchsize",
            rf"  \caption[{{{escaped_tex(table.title + number)}}}]{{{escaped_tex(caption)}}}",
            rf"  \label{{tab:{table.name}{f'-{i + 1}' if i else ''}}}\par\smallskip",
            rf"  \begin{{tabular}}{{@{{}}l{''.join(map(_column, _paired(table)))}@{{}}}}",
            r"    \toprule",
            *_heads(table),
            r"    \midrule",
            *part,
            r"    \bottomrule",
            r"  \end{tabular}",
        ]
        if last and table.notes:
            lines += [
                r"  \par\smallskip\begin{minipage}{\linewidth}\raggedright",
                *(rf"    \benchnote{{{escaped_tex(note)}}}" for note in table.notes),
                r"  \end{minipage}",
            ]
        lines.append(r"\end{\benchenv}")
    return "\n".join(lines) + "\n"


def _paired(table: PaperTable) -> list[tuple[Head, bool]]:
    """Columns, and whether intervals stand in a column of their own behind the means."""
    made = []
    for i, head in enumerate(table.heads):
        known = [line.values[i] for line in table.lines]
        has = any(len(_parts(value)) > 1 for value in known)
        made.append((head, has))
    return made


def _column(column: tuple[Head, bool]) -> str:
    head, interval = column
    return "l" if head.words else "r@{}l" if interval else "r"


def _heads(table: PaperTable) -> Iterator[str]:
    """Settings above, where they stand beside each other; names, arrows and units."""
    columns = _paired(table)
    spans = [1 + interval for _, interval in columns]
    if any(head.setting for head in table.heads):
        cells, rules, start = [""], [], 2
        for setting in dict.fromkeys(head.setting for head in table.heads):
            size = sum(s for s, (h, _) in zip(spans, columns, strict=True) if h.setting == setting)
            cells.append(rf"\multicolumn{{{size}}}{{c}}{{\benchsetting{{{escaped_tex(setting)}}}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + size - 1}}}")
            start += size
        yield f"    {' & '.join(cells)} \\\\ {''.join(rules)}"
    names, units = ["method"], [""]
    for span, (head, _) in zip(spans, columns, strict=True):
        arrow = {"↑": r" \benchup", "↓": r" \benchdown"}.get(head.better, "")
        side = "l" if head.words else "c"
        names.append(rf"\multicolumn{{{span}}}{{{side}}}{{{escaped_tex(head.name)}{arrow}}}")
        unit = escaped_tex(f"({head.unit})") if head.unit else ""
        units.append(rf"\multicolumn{{{span}}}{{{side}}}{{{unit}}}")
    yield f"    {' & '.join(names)} \\\\"
    if any(head.unit for head in table.heads):
        yield f"    {' & '.join(units)} \\\\"


def _rows(table: PaperTable) -> Iterator[str]:
    columns = _paired(table)
    size = 1 + sum(1 + interval for _, interval in columns)
    widths = [_widths([line.values[i] for line in table.lines]) for i in range(len(columns))]
    for n, (setting, of_setting) in enumerate(by_setting(table)):
        rule = r"\midrule " * (n > 0)
        if setting:
            told = rf"\benchsetting{{{escaped_tex(setting)}}}"
            yield rf"    {rule}\multicolumn{{{size}}}{{@{{}}l}}{{{told}}} \\"
            rule = ""
        for g, (group, lines) in enumerate(by_group(of_setting)):
            if group:
                space = r"\addlinespace " * (g > 0)
                told = rf"\benchgroup{{{escaped_tex(group)}}}"
                yield rf"    {rule}{space}\multicolumn{{{size}}}{{@{{}}l}}{{{told}}} \\"
                rule = ""
            for line in lines:
                yield f"    {rule}{_line(line, columns, widths, table.siunitx)}"
                rule = ""


def _line(
    line: Line,
    columns: Sequence[tuple[Head, bool]],
    widths: Sequence[tuple[int, int]],
    siunitx: bool,
) -> str:
    cells = [tex_cell(wrapped_name(line.name, NAME_WIDTH) or [""], "t", "l")]
    for value, (head, interval), width in zip(line.values, columns, widths, strict=True):
        if head.words:
            cells.append(escaped_tex(value.words or value.code))
        elif value.estimate is None:
            code = rf"\benchcode{{{escaped_tex(value.code)}}}"
            cells.append(rf"\multicolumn{{2}}{{c}}{{{code}}}" if interval else code)
        else:
            cells += _number(value, interval, *width, siunitx)
    return f"{' & '.join(cells)} \\\\"


def _number(value: Value, interval: bool, places: int, whole: int, siunitx: bool) -> list[str]:
    """The mean, padded to ``places`` decimals, and the interval, padded to ``whole`` digits."""
    mean, *ends = _parts(value)
    shown = [rf"\benchnum{{{each}}}" if siunitx else _signed(each) for each in (mean, *ends)]
    command = {"best": r"\benchbest", "second": r"\benchsecond"}.get(value.mark)
    made = [(rf"{command}{{{shown[0]}}}" if command else shown[0]) + _padding(mean, places)]
    if not interval:
        return made
    if len(ends) == 1:
        more = whole - len(ends[0].partition(".")[0])
        pad = rf"\phantom{{{'0' * more}}}" if more > 0 else ""
        return [*made, rf"\benchpm{{{pad}{shown[1]}}}"]
    if ends:
        return [*made, rf"\benchrange{{{shown[1]}}}{{{shown[2]}}}"]
    return [*made, ""]


def _padding(mean: str, places: int) -> str:
    """What takes the place of missing decimals, so that decimal points stand below each other."""
    _, point, decimals = mean.partition(".")
    missing = places - len(decimals)
    if missing <= 0 or "e" in mean:
        return ""
    return rf"\phantom{{{'' if point else '.'}{'0' * missing}}}"


def _widths(values: Sequence[Value]) -> tuple[int, int]:
    """Most decimals of a column's means, and most digits before the point of its half widths."""
    parts = [_parts(value) for value in values if value.estimate is not None]
    places = [len(p[0].partition(".")[2]) for p in parts if "e" not in p[0]]
    wholes = [len(p[1].partition(".")[0]) for p in parts if len(p) == 2]
    return max(places, default=0), max(wholes, default=0)


def _parts(value: Value) -> list[str]:
    if value.estimate is None:
        return []
    return interval_parts(value.estimate, value.places, value.signed)


def _signed(number: str) -> str:
    """A number whose minus is one, as wide as a plus."""
    return number.replace("-", "$-$", 1) if number.startswith("-") else number
