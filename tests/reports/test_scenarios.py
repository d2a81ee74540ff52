"""What stands in reports besides the tables of every comparison, and across comparisons."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError
from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.further_blocks import further_blocks, sheet
from bench.reports.scenario_tables import scenario_csv, scenario_sheet
from bench.reports.scenarios import across
from bench.reports.tables import comma_separated, sheet_latex, sheet_markdown, sheet_text
from bench.reports.write import files, summary

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
LEVELS = {"source-only": 0.5, "edgeta-offline": 0.56, "tent": 0.6, "edgeta": 0.7}


def drawn(record: Record, draw: int) -> Record:
    cell = record.cell.model_copy(update={"source_draw": draw})
    return record.model_copy(update={"cell": cell, "identity": cell.identity})


def some(make: Make, draws: int = 3, seeds: int = 2, **more: Any) -> list[Record]:
    """Levels with a fixed effect of each draw and seed, and a tuned row; EdgeTA starts higher."""
    records = []
    for draw in range(draws):
        for seed in range(seeds):
            for i, (method, level) in enumerate(LEVELS.items()):
                at = level + 0.03 * (draw - 1) + 0.01 * seed + 0.004 * ((draw + seed + i) % 3)
                own = method.startswith("edgeta")
                given: dict[str, Any] = {
                    "before": 0.52 + 0.01 * draw if own else 0.45 + 0.01 * draw,
                    "after": at,
                    "energy": 0.0 if i < 2 else 10.0 * i + seed,
                    "memory": (60 - 10 * i) * 1e6,
                }
                records.append(drawn(make(method, seed, **given | more), draw))
                if method == "tent":
                    given |= {"after": at + 0.02, "settings": "tuned", "changed": {"rate": 0.5}}
                    records.append(drawn(make(method, seed, **given | more), draw))
                if method == "edgeta":
                    given |= {"after": at - 0.03, "changed": {"feedback": "none"}}
                    records.append(drawn(make(method, seed, **given | more), draw))
            best = {"before": 0.45 + 0.01 * draw, "after": 0.97 + 0.02 * (draw == 1)}
            records.append(drawn(make("fine-tune", seed, supervised=True, **best | more), draw))
    return records


def several(make: Make, n: int) -> list[Record]:
    """``n`` streams on two networks; on every third edgeta is as good as tent's tuned row."""
    records = []
    for i in range(n):
        for model in ("small-vit", "resnet"):
            stream = {"stream": {"size": 32 + i}, "model": model}
            for record in some(make, draws=1, seeds=3, **stream):
                records.append(record)
    return records


def tables(name: str, made: str) -> None:
    path = GOLDEN / name
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", ["txt", "md", "tex", "csv"])
def test_golden_of_draws(make: Make, suffix: str) -> None:
    (comparison,) = compare(some(make))
    made = sheet(comparison, reference="edgeta")
    written = {
        "txt": lambda: sheet_text(made),
        "md": lambda: sheet_markdown(made),
        "tex": lambda: sheet_latex(made),
        "csv": lambda: comma_separated(comparison, "edgeta"),
    }[suffix]()
    tables(f"draws.{suffix}", written)


@pytest.mark.parametrize("suffix", ["txt", "md", "tex", "csv"])
def test_golden_of_scenarios(make: Make, suffix: str) -> None:
    (found,) = across(compare(several(make, 3)))
    made = scenario_sheet(found, "edgeta")
    written = {
        "txt": lambda: sheet_text(made),
        "md": lambda: sheet_markdown(made),
        "tex": lambda: sheet_latex(made),
        "csv": lambda: scenario_csv(found),
    }[suffix]()
    tables(f"scenarios.{suffix}", written)


def blocks_of(records: list[Record], reference: str = "") -> dict[str, dict[str, tuple[str, ...]]]:
    """By title the cells of the further tables by the row's name."""
    (comparison,) = compare(records)
    return {
        each.block.title: {row[0]: row[1:] for row in (*each.block.methods, *each.block.references)}
        for each in further_blocks(comparison, reference)
    }


def test_nothing_further_of_one_run(make: Make) -> None:
    assert blocks_of([make("source-only"), make("tent")]) == {}


def test_shares_of_the_front_are_over_the_runs_that_all_methods_have(make: Make) -> None:
    # On the common runs (draw 0) the cheap method has .6 and the dear one .5. The cheap one's two
    # further draws of .1 are no repeats of the dear one's seeds.
    records = [
        drawn(make("cheap", seed, after=0.1 if draw else 0.6, energy=10.0), draw)
        for draw in range(3)
        for seed in range(3)
    ]
    records += [make("dear", seed, after=0.5, energy=20.0) for seed in range(3)]
    (comparison,) = compare(records)
    assert comparison.front_shares == {"cheap": 1.0, "dear": 0.0}


def test_tuned_beside_default(make: Make) -> None:
    found = blocks_of(some(make))["Tuned beside default (%)"]
    assert list(found) == ["tent [tuned]"]
    assert found["tent [tuned]"][2:] == ("+2.0 ± 0.0", "3")


def test_tuned_beside_what_the_suite_gives(make: Make) -> None:
    """As where all methods that train all weights have one recipe; not beside one of several."""
    recipe, penalty = {"epochs": 5}, {"epochs": 5, "penalty": 2.0}
    records = [
        make(name, seed, after=after + seed / 100, settings=settings, changed=changed)
        for seed in range(3)
        for name, after, settings, changed in [
            ("ewc", 0.6, "given", recipe),
            ("ewc", 0.7, "tuned", penalty),
            ("gem", 0.5, "given", recipe),
            ("gem", 0.5, "given", {"epochs": 6}),
            ("gem", 0.6, "tuned", penalty),
        ]
    ]
    found = blocks_of(records)["Tuned beside default (%)"]
    assert [cells[2:] for cells in found.values()] == [("+10.0 ± 0.0", "3")]


def test_before_the_stream_of_rows_with_a_model_of_their_own(make: Make) -> None:
    found = blocks_of(some(make))["Accuracy before the stream (%)"]
    assert list(found) == [
        "source-only", "edgeta", "edgeta (feedback=none)", "edgeta-offline",
    ]  # fmt: skip
    assert found["edgeta"][1].startswith("53.0 ± ")
    assert found["edgeta"][2] == "+7.0 ± 0.0"


def test_gains_are_split_where_the_rows_are_there(make: Make) -> None:
    found = blocks_of(some(make))["Gain over source-only in parts (points)"]
    offline, adaptation, feedback, whole = (float(cell.split(" ")[0]) for cell in found["edgeta"])
    assert feedback == pytest.approx(3.0)
    assert offline + adaptation + feedback == pytest.approx(whole, abs=0.11)
    assert found["edgeta (feedback=none)"][2] == "–"


def test_a_matrix_tells_the_gain_of_the_offline_stage(make: Make) -> None:
    protocol = {"name": "periodic", "evaluate_all": True}

    def made(method: str, seed: int, start: float, end: float) -> Record:
        rows = [[0.9, start, start], [0.9, end, start], [0.9, end, end]]
        return make(method, seed, protocol=protocol, matrix=rows, before=start)

    records = [made("source-only", s, 0.3, 0.3) for s in range(3)]
    records += [made("edgeta", s, 0.4, 0.6) for s in range(3)]
    found = blocks_of(records)
    # Of 400 test samples 200 are the source's, whose accuracy is equal.
    assert found["Gain over source-only in parts (points)"]["edgeta"] == (
        "+5.0 ± 0.0", "+10.0 ± 0.0", "+15.0 ± 0.0",
    )  # fmt: skip
    assert found["Accuracy before the stream (%)"]["edgeta"][2] == "65.0 ± 0.0"


def test_both_components_of_variance(make: Make) -> None:
    found = blocks_of(some(make))["Standard deviation of one run's score (points)"]
    assert found["tent [tuned]"][2:] == ("3", "2")
    assert float(found["tent [tuned]"][0][1:]) > float(found["tent [tuned]"][1][1:]) > 0
    assert "Standard deviation of one run's score (points)" not in blocks_of(some(make, 1, 5))


def test_a_named_reference_has_a_table_with_ratios(make: Make) -> None:
    found = blocks_of(some(make), "edgeta")["Paired with edgeta (points)"]
    assert found["edgeta-offline"][3] == "–"  # no energy to compare
    assert found["edgeta-offline"][4].startswith("1.67")  # 50 MB to 30
    assert found["fine-tune †"][2] == "3"


def test_six_seeds_are_tested_and_three_are_not(make: Make) -> None:
    (comparison,) = compare(some(make, 1, 3))
    told = sheet_text(sheet(comparison))
    assert "n too small (3 pairs; below 6 no outcome is significant at 5 %)" in " ".join(
        told.split()
    )
    found = blocks_of(some(make, 1, 6))["Paired with source-only (points)"]
    assert found["edgeta"][3] == "0.031"
    assert found["edgeta"][4] == "0.156"  # five methods
    assert found["fine-tune †"][3:] == ("–", "–")


def test_a_scenario_counts_once_whatever_the_devices(make: Make) -> None:
    records = [
        make(m, seed, after=after, device=device, model=model, memory=memory)
        for m, after, memory in (("source-only", 0.5, 10e6), ("tent", 0.6, 40e6))
        for device in ("board", "host")
        for model in ("small-vit", "resnet")
        for seed in range(3)
    ]
    (found,) = across(compare(records))
    assert [s.title for s in found.scenarios] == ["resnet", "small-vit"]
    duel = found.duel("tent", "source-only")
    assert duel is not None
    assert (duel.paired.difference.n, duel.wins, duel.ties, duel.losses) == (2, 2, 0, 0)
    ratio = found.cost_ratio("memory", "tent", "source-only")
    assert ratio is not None
    assert ratio.mean == pytest.approx(4.0)


def test_ties_are_within_the_margin(make: Make) -> None:
    (found,) = across(compare(several(make, 1)))
    wide = found.duel("edgeta", "tent [default]", margin=0.2)
    assert wide is not None
    assert (wide.wins, wide.ties, wide.losses) == (0, 2, 0)
    narrow = found.duel("tent [default]", "edgeta", margin=0.01)
    assert narrow is not None
    assert (narrow.wins, narrow.ties, narrow.losses) == (0, 0, 2)
    edge = found.duel("tent [tuned]", "tent [default]", margin=0.02)
    assert edge is not None
    assert edge.ties == 2


def test_one_scenario_or_one_method_is_no_comparison_across(make: Make) -> None:
    assert across(compare(some(make))) == []
    records = [make("tent", model="small-vit"), make("shot", model="resnet")]
    assert across(compare(records)) == []


def test_a_profile_rises_from_the_best_run_to_all(make: Make) -> None:
    (found,) = across(compare(several(make, 2)))
    made = found.profile("edgeta", [-0.5, 0.0, 0.5])
    assert made[0] == 0.0
    assert 0 < made[1] < 1
    assert made[2] == 1.0
    assert found.profile("source-only", [0.05]) == [0.0]


def test_files_of_scenarios_and_of_a_reference(make: Make, tmp_path: Path) -> None:
    paths = {p.name for p in files(several(make, 1), tmp_path, reference="edgeta", margin=0.02)}
    assert {
        "table-scenarios-after.md", "table-scenarios-after.tex", "table-scenarios-after.csv",
        "figure-profile-scenarios-after.png", "figure-profile-scenarios-after.pdf",
        "figure-profile-scenarios-after.svg",
    } <= paths  # fmt: skip
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Across 2 scenarios" in page
    assert "Paired with edgeta (points)" in page
    assert "tied within 2 points" in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table-scenarios-after.csv").read_text())))
    assert len(rows) == 7 * 6 / 2
    assert {row["margin_percent"] for row in rows} == {"2"}


def test_an_unknown_reference_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"reference 'edgta': .* did you mean 'edgeta'"):
        files(some(make), tmp_path, reference="edgta")


def test_the_summary_ends_with_the_scenarios(make: Make) -> None:
    assert "Across 2 scenarios · after" in summary(several(make, 1))
    assert "Across" not in summary(some(make))
