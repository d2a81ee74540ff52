from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.record import Record
from bench.reports.comparison import Cost, compare
from bench.reports.layout import blocks, clean, cost, decimals, footnotes, percent
from bench.reports.statistics import Estimate
from bench.reports.tables import comma_separated, latex, markdown, text

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
NOTE = "Draft of <i>today</i>, 50 % done."


@pytest.mark.parametrize("suffix", ["txt", "md", "tex", "csv"])
def test_golden(paper: list[Record], suffix: str) -> None:
    """Run with BENCH_UPDATE_GOLDEN=1 to write the files anew, then read the difference."""
    (comparison,) = compare(paper)
    made = {
        "txt": lambda: text(comparison, NOTE),
        "md": lambda: markdown(comparison, NOTE),
        "tex": lambda: latex(comparison, NOTE),
        "csv": lambda: comma_separated(comparison),
    }[suffix]()
    path = GOLDEN / f"table.{suffix}"
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


def test_text_fits_the_terminal_and_is_aligned(paper: list[Record]) -> None:
    lines = text(compare(paper)[0]).splitlines()
    assert max(map(len, lines)) <= 120
    rule = next(line for line in lines if line and set(line) == {"-"})
    full = [line for line in lines if line.endswith("of 5")]
    assert len(full) == 4
    assert {len(line) for line in full} == {len(rule)}
    assert len({line.rindex("±") for line in full if "source-only" not in line}) == 1


@pytest.mark.parametrize(
    ("estimate", "signed", "expected"),
    [
        (Estimate(0.58, 0.012, 5), False, "58.0 ± 1.2"),
        (Estimate(0.58, None, 1), False, "58.0"),
        (Estimate(-0.0001, 0.0, 2), True, "+0.0 ± 0.0"),
        (Estimate(-0.0001, None, 1), False, "0.0"),
        (Estimate(0.125, 0.01, 3), True, "+12.5 ± 1.0"),
        (Estimate(-0.125, 0.01, 3), True, "-12.5 ± 1.0"),
        (None, True, "–"),
    ],
)
def test_percent(estimate: Estimate | None, signed: bool, expected: str) -> None:
    assert percent(estimate, signed) == expected


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (Cost(Estimate(12.175, 0.27, 4), ("modelled",)), 1.0, "12.2 ± 0.3"),
        (Cost(Estimate(50e6, 0.0, 2), ("modelled",)), 1e-6, "50.0 ± 0.0"),
        (Cost(Estimate(12345.6, None, 1), ("modelled",)), 1.0, "12346"),
        (Cost(Estimate(5.56e-5, None, 1), ("modelled",)), 1e3, "0.0556"),
        (Cost(Estimate(0.0, 0.0, 5), ("modelled",)), 1.0, "0 ± 0"),
        (Cost(None, (), (), ("no meter",)), 1.0, "unavailable"),
        (Cost(None), 1.0, "–"),
    ],
)
def test_cost(value: Cost, factor: float, expected: str) -> None:
    assert cost(value, factor) == expected


def test_decimals() -> None:
    assert [decimals(v) for v in (0.0, 0.00123, 0.5, 1.0, 99.0, 100.0, 4e9, -0.5)] == [
        0, 5, 3, 2, 1, 0, 0, 3,
    ]  # fmt: skip


def test_kind_stands_in_the_heads_of_costs(make: Make) -> None:
    (comparison,) = compare([make("tent", kind="measured", device="host", energy=None)])
    assert blocks(comparison)[1].heads == (
        "method",
        "adaptation time (s, measured)",
        "adaptation energy (J)",
        "peak memory (MB, measured)",
        "inference (ms/sample, measured)",
    )
    assert "Adaptation energy unavailable (tent): no meter is read." in footnotes(comparison)


def test_footnotes_say_what_a_reader_needs(paper: list[Record]) -> None:
    notes = "\n".join(footnotes(compare(paper)[0], NOTE))
    assert notes.startswith(NOTE)
    for told in (
        "95 % Student-t interval over the ok runs, one per seed (seeds 0-4), none where one run is",
        "† supervised reference",
        "modelled: profile board x counted step.",
        "Adaptation energy unavailable (meterless): no meter is read.",
        "1200 MB more",
        "The window closed before the method was done: tent (learning_rate=0.01, mode=a|b_c) on "
        "10 of 20 domains.",
        "5 records of older code of tent left out.",
        "No result: edgeta, seeds 0, 1: oom: a train step needs 9000.0 MB on board",
        "No result: shot, seed 1: failed: ValueError: loss is nan",
        "No result: shot, seed 2: interrupted: no reason recorded",
        "No result: tent, seed 3: timeout: <script>",
    ):
        assert told in notes


def test_one_seed_claims_nothing(make: Make) -> None:
    (comparison,) = compare([make("source-only"), make("tent")])
    assert "±" not in text(comparison)
    assert "One ok run per method (seed 0): no intervals, no claim about differences." in footnotes(
        comparison
    )


def test_long_reasons_are_cut_in_footnotes(make: Make) -> None:
    (comparison,) = compare([make("tent", status="failed", reason="x" * 5000)])
    assert max(map(len, footnotes(comparison))) < 400


def test_control_characters_reach_no_output(paper: list[Record], nasty: str) -> None:
    (comparison,) = compare(paper)
    for made in (text(comparison), markdown(comparison), latex(comparison)):
        assert "\x1b" not in made
        assert all(c.isprintable() or c == "\n" for c in made)
    assert clean(nasty).endswith("[31m*red* next")


def test_markdown_escapes(paper: list[Record]) -> None:
    made = markdown(compare(paper)[0])
    assert "<" not in made
    assert r"&lt;script&gt;alert('x')&lt;/script&gt; \| 100 % of \$HOME &amp; a\_b" in made
    assert r"mode=a\|b\_c" in made
    tables = [line for line in made.splitlines() if line.startswith("|")]
    bars = [line.replace(r"\|", "").count("|") for line in tables]
    assert bars == [9] * 9 + [6] * 9


def test_latex_escapes(paper: list[Record]) -> None:
    made = latex(compare(paper)[0], NOTE)
    assert r"\textless{}script\textgreater{}alert('x')" in made
    assert r"\textbar{} 100 \% of \$HOME \& a\_b \{c\} \textasciitilde{} \textasciicircum{}" in made
    assert r"\textbackslash{}" in made
    assert r"fine-tune $^\dagger$ & 60.0 $\pm$ 0.0" in made
    # Outside the first line, a comment, every per cent sign is escaped, and braces balance.
    body = made.partition("\n")[2].replace(r"\%", "")
    assert "%" not in body
    plain = body.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert plain.count(r"\begin{") == plain.count(r"\end{")


def test_latex_minus_is_no_hyphen(make: Make) -> None:
    made = latex(compare([make("tent", before=0.6, after=0.5, final=0.5)])[0])
    assert " & -10.0 & " in made.replace("$-$", "-")
    assert "$-$10.0" in made


def test_csv_can_be_read_back(paper: list[Record]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(compare(paper)[0]))))
    by_name = {row["method"]: row for row in rows}
    assert len(rows) == 7
    tent = by_name["tent"]
    assert float(tent["after_percent"]) == pytest.approx(58.25)
    assert float(tent["after_percent_half_width"]) == pytest.approx(2.71753)
    assert tent["after_percent_n"] == "4"
    assert (tent["runs_ok"], tent["runs_recorded"]) == ("4", "5")
    assert float(tent["energy_j"]) == pytest.approx(12.175)
    assert tent["energy_kind"] == "modelled"
    assert float(tent["memory_mb"]) == 50.0
    assert float(tent["inference_ms_per_sample"]) == 2.0
    assert by_name["meterless"]["energy_j"] == ""
    assert by_name["meterless"]["energy_kind"] == "unavailable"
    assert by_name["edgeta"]["after_percent"] == ""
    assert by_name["edgeta"]["energy_kind"] == ""
    assert by_name["source-only"]["difference_percent_n"] == "0"
    assert by_name["fine-tune"]["supervised_reference"] == "1"
    assert by_name["shot"]["after_percent_half_width"] == ""


def test_csv_holds_no_formula(make: Make) -> None:
    made = comma_separated(compare([make("tent", device="=cmd|' /C calc'!A0")])[0])
    assert next(csv.DictReader(io.StringIO(made)))["device"].startswith("'=cmd")


def test_a_comparison_without_results_still_has_tables(make: Make) -> None:
    (comparison,) = compare([make("tent", status="failed", reason="boom")])
    for made in (text(comparison), markdown(comparison), latex(comparison)):
        assert "boom" in made
        assert "±" not in made
    assert comma_separated(comparison).count("\n") == 2
