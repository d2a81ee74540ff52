"""The LaTeX tables compile, whatever stands in names, settings and reasons."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tex import ENGINE, NEEDS, compiled, has_siunitx

from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.paper import Paper
from bench.reports.tables import latex

Make = Callable[..., Record]
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


@pytest.mark.skipif(ENGINE is None, reason=NEEDS)
def test_tables_compile(
    make: Make, paper: list[Record], matrix: list[Record], timed: list[Record], tmp_path: Path
) -> None:
    records = [*odd(make), *wrapping(make), *paper, *matrix, *timed]
    tables = [latex(comparison, "A note: [x] 50 % & more_") for comparison in compare(records)]
    ended = compiled(tables, tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def paper_tables(folder: Path, records: list[Record], form: str, more: str = "") -> str:
    """A paper's table of all rows, with odd names for settings and title."""
    path = folder / f"{form}.yaml"
    path.write_text(
        f"title: 'Odd: {ODD[6]} {ODD[15]} 50 % & a_b'\nform: {form}\n"
        "columns: [accuracy, forgetting, time, energy, memory, runs, settings]\n"
        f"names: {{board: 'Board & [x] #1'}}\n{more}",
        encoding="utf-8",
    )
    Paper(path).write(records, folder)
    return (folder / f"{form}.tex").read_text(encoding="utf-8")


@pytest.mark.skipif(ENGINE is None, reason=NEEDS)
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


def test_numbers_by_siunitx_are_an_option(make: Make, tmp_path: Path) -> None:
    moves = (-0.12, 0.0, 0.12)
    records = [make("source-only", s, after=0.5 + m) for s, m in enumerate(moves)]
    records += [make("tent", s, after=0.4 - m, energy=3.25) for s, m in enumerate(moves)]
    plain = paper_tables(tmp_path, records, "long")
    assert "siunitx" not in plain
    table = paper_tables(tmp_path, records, "wide", "numbers: siunitx\n")
    assert "siunitx" in table
    body = table[table.index("midrule") : table.index("bottomrule")]
    numbers = re.sub(r"\\benchnum\{[+-]?[\d.]+\}|\\phantom\{[\d.]+\}|\d+ of \d+", "", body)
    assert re.search(r"\d", numbers) is None, numbers  # every number is one of siunitx's
    assert r"\benchnum{3.25}" in body


@pytest.mark.skipif(ENGINE != "pdflatex" or not has_siunitx(), reason="needs pdflatex with siunitx")
def test_numbers_by_siunitx_compile(make: Make, paper: list[Record], tmp_path: Path) -> None:
    tables = [
        paper_tables(tmp_path, [*odd(make), *paper], form, "numbers: siunitx\n")
        for form in ("long", "wide")
    ]
    look = "\\usepackage{siunitx}\n\\sisetup{output-decimal-marker={,}}\n"
    ended = compiled(tables, tmp_path, look)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "all.pdf"], cwd=tmp_path, check=True)
        told = (tmp_path / "all.txt").read_text(errors="replace")
        assert re.search(r"\b58,0\b|\b61,0\b", told)  # tent, with the paper's decimal marker


@pytest.mark.skipif(ENGINE is None, reason=NEEDS)
def test_a_paper_restyles_its_tables_with_commands_of_its_own(make: Make, tmp_path: Path) -> None:
    records = [make(m, s, after=a + s / 100) for s in range(3) for m, a in (("a", 0.6), ("b", 0.4))]
    table = paper_tables(tmp_path, records, "long")
    own = "\\newcommand{\\benchbest}[1]{\\typeout{BEST:#1}\\textbf{#1}}\n"
    ended = compiled([own + table, table], tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert ended.stdout.count("BEST:61.0") == 2
