"""The LaTeX tables compile, whatever stands in names, settings and reasons."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.paper import Paper
from bench.reports.tables import latex

Make = Callable[..., Record]
ENGINES = ("pdflatex", "tectonic")
ENGINE = next((name for name in ENGINES if shutil.which(name)), None)
ODD = (
    "[x]", "*star", "a & b", "50 %", "snake_case", "#1", "~home", "x^2", r"back\slash", "{open",
    "$HOME", '"quoted"', "`tick`", "a--b", "<b>|c", "Łódź-ßæø-façade-naïve-Čeština", "方法", "α=µ",
    "e\u0301", "§ ¶ † ‡ – — … ± ≤",
)  # fmt: skip
AFTER_A_ROW = re.compile(r"(\\\\|\\(top|mid|bottom)rule)\s*[\[*]")
"""Where LaTeX would read what follows as the argument of the command before it."""


def odd(make: Make) -> list[Record]:
    """Rows whose names, settings, reasons and titles hold every sign that LaTeX reads."""
    records = [make("source-only", seed) for seed in range(2)]
    for name in ODD:
        records += [
            make(name, device=ODD[7]),
            make("tent", changed={"mode": name, "rate": 0.1}, device=ODD[7]),
            make("shot", status="failed", reason=f"{name} was not found", device=ODD[7],
                 changed={"path": name}),
        ]  # fmt: skip
    return records


def wrapping(make: Make) -> list[Record]:
    """Names that break before a bracket or a star."""
    records = []
    for name in ("source-fine-tune", "a-method-of-long-name"):
        records += [make(name, settings=origin) for origin in ("default", "tuned")]
        records += [make(f"{name} *bold* [x]", settings=s) for s in ("default", "given")]
    return records


@pytest.mark.parametrize("made", [odd, wrapping])
def test_nothing_is_read_as_the_argument_of_the_end_of_a_row(
    made: Callable[[Make], list[Record]], make: Make
) -> None:
    tables = "\n".join(latex(comparison) for comparison in compare(made(make)))
    assert AFTER_A_ROW.search(tables) is None
    assert re.search(r"\\\\ \{\[\}(x|tuned)\]|\n    \{\[\}x\] &", tables)


def test_every_sign_is_escaped(make: Make) -> None:
    tables = "\n".join(latex(comparison) for comparison in compare(odd(make)))
    for made in (
        r"a \& b", r"50 \%", r"snake\_case", r"\#1", r"\textasciitilde{}home", r"x\textasciicircum",
        r"back\textbackslash{}slash", r"\{open", r"\$HOME", r"\char34{}quoted\char34{}",
        "{}`{}tick{}`{}", "a-{}-b",
        r"\textless{}b\textgreater{}\textbar{}c", r"\L{}\'{o}d\'{z}-\ss",
        r"fa\c{c}ade-na\"{\i}ve-\v{C}e\v{s}tina", "U+65B9U+6CD5", r"U+03B1=$\mu$",
        r"    \'{e} & ",
    ):  # fmt: skip
        assert made in tables, made
    assert tables.isascii()


def compiled(tables: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """One document of all tables, each of them a float on a page of its own."""
    body = "\n\\clearpage\n".join(tables)
    text = (
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"\\listoftables\n{body}\n\\end{{document}}\n"
    )
    (folder / "all.tex").write_text(text, encoding="utf-8")
    assert ENGINE is not None
    options = ["-interaction=nonstopmode", "-halt-on-error"] if ENGINE == "pdflatex" else []
    for _ in range(2):  # the second time with the titles in the list of tables
        ended = subprocess.run(
            [ENGINE, *options, "all.tex"], cwd=folder, timeout=120, check=False,
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    return ended


@pytest.mark.skipif(ENGINE is None, reason=f"needs one of {', '.join(ENGINES)}")
def test_tables_compile(
    make: Make, paper: list[Record], matrix: list[Record], timed: list[Record], tmp_path: Path
) -> None:
    records = [*odd(make), *wrapping(make), *paper, *matrix, *timed]
    tables = [latex(comparison, "A note: [x] 50 % & more_") for comparison in compare(records)]
    ended = compiled(tables, tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def paper_tables(folder: Path, records: list[Record], form: str) -> str:
    """A paper's table of all rows, with odd names for settings and title."""
    path = folder / f"{form}.yaml"
    path.write_text(
        f"title: 'Odd: {ODD[6]} {ODD[15]} 50 % & a_b'\nform: {form}\n"
        "columns: [accuracy, forgetting, time, energy, memory, runs, settings]\n"
        "names: {board: 'Board & [x] #1'}\n",
        encoding="utf-8",
    )
    Paper(path).write(records, folder)
    return (folder / f"{form}.tex").read_text(encoding="utf-8")


@pytest.mark.skipif(ENGINE is None, reason=f"needs one of {', '.join(ENGINES)}")
def test_tables_of_papers_compile(
    make: Make, paper: list[Record], timed: list[Record], tmp_path: Path
) -> None:
    many = [make(f"m{i:02d}", seed, after=0.3 + i / 100) for i in range(60) for seed in range(3)]
    tables = [
        paper_tables(tmp_path, [*odd(make), *paper, *timed], form) for form in ("long", "wide")
    ]
    tables.append(paper_tables(tmp_path, many, "long"))
    assert AFTER_A_ROW.search("".join(tables)) is None
    ended = compiled(tables, tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


@pytest.mark.skipif(ENGINE is None, reason=f"needs one of {', '.join(ENGINES)}")
def test_a_paper_restyles_its_tables_with_commands_of_its_own(make: Make, tmp_path: Path) -> None:
    records = [make(m, s, after=a + s / 100) for s in range(3) for m, a in (("a", 0.6), ("b", 0.4))]
    table = paper_tables(tmp_path, records, "long")
    own = "\\newcommand{\\benchbest}[1]{\\typeout{BEST:#1}\\textbf{#1}}\n"
    ended = compiled([own + table, table], tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert ended.stdout.count("BEST:61.0") == 2
