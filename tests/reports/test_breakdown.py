"""What adaptation time goes into: the figure by kind of work, and what records lack it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_files import texts, written

from bench import BenchError
from bench.records.record import Costs, Record
from bench.reports.breakdown_figure import draw_breakdown, seconds_by_kind
from bench.reports.comparison import compare
from bench.reports.write import files

Make = Callable[..., Record]


def told(record: Record, **seconds: float) -> Record:
    """The record with the time of each kind, which must be its adaptation time."""
    assert record.results is not None
    costs = record.results.costs.model_dump()
    costs |= {"steps": dict.fromkeys(seconds, 3), "time_by_kind": seconds}
    content = record.model_dump()
    content["results"]["costs"] = Costs.model_validate(costs).model_dump()
    return Record.model_validate(content)


def several(make: Make) -> list[Record]:
    records = []
    for seed in range(3):
        records += [
            make("source-only", seed, time=0.0),
            make("tent", seed),  # one kind: all of its time
            told(make("edgeta", seed, time=6.0), adapt=4.0 + seed, proxy=2.0 - seed),
        ]
    return records


def widths(svg: bytes, color: str) -> list[float]:
    """Of the bars of a color, in the units of the drawing."""
    found = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {color}', svg.decode())
    spans = []
    for path in found:
        xs = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)]
        spans.append(max(xs) - min(xs))
    return spans


def test_bars_are_the_mean_seconds_of_each_kind(make: Make, tmp_path: Path) -> None:
    made = written(tmp_path, several(make), figures=["breakdown"])
    svg = made["figure-breakdown-digits-small-vit-board.svg"]
    shown = texts(svg)
    assert {"adapt", "proxy", "edgeta", "tent", "0", "1.50", "6.00"} <= set(shown)
    assert "adaptation time of the whole stream (s, modelled)" in shown
    adapt, proxy = widths(svg, "#0173b2"), widths(svg, "#de8f05")
    # EdgeTA 5 s and 1 s, Tent 1.5 s; the legend has a small square of each.
    wide = max(adapt)
    assert sorted(round(w / wide * 5.0, 2) for w in adapt)[-2:] == [1.5, 5.0]
    assert max(round(w / wide * 5.0, 2) for w in proxy) == 1.0


def test_records_without_it_are_said_to_lack_it(make: Make) -> None:
    old = make("shot", time=3.0)
    assert old.results is not None
    old.results.costs.steps = {"adapt": 2, "centroids": 1}
    assert seconds_by_kind(old.results.costs) is None
    (comparison,) = compare([*several(make), old])
    drawing = draw_breakdown(comparison, {})
    assert drawing is not None
    assert "Unavailable: records of shot hold the sum over several kinds" in drawing.caption
    assert texts(drawing.files["svg"]).count("unavailable") == 1


def test_one_kind_or_none_makes_no_figure(make: Make, tmp_path: Path) -> None:
    records = [make("source-only", time=0.0), make("tent")]
    with pytest.raises(
        BenchError, match=r"breakdown cannot be drawn of .*: no record tells the time of several"
    ):
        written(tmp_path / "none", records, figures=["breakdown"])
    names = {path.name for path in files(records, tmp_path / "plain")}
    assert not any("breakdown" in name for name in names)
    names = {path.name for path in files(several(make), tmp_path / "several")}
    assert "figure-breakdown-digits-small-vit-board.pdf" in names


@pytest.mark.parametrize("many", [5, 40])
def test_many_kinds_with_any_names_are_drawn(make: Make, many: int, nasty: str) -> None:
    kinds: dict[str, Any] = {f"{nasty[:20]} $x_{i}$ {'n' * 300}": 1.0 for i in range(many)}
    (comparison,) = compare([told(make("wild", time=float(many)), **kinds)])
    drawing = draw_breakdown(comparison, {})
    assert drawing is not None
    assert len(drawing.files["svg"]) < 200_000
    assert ("other kinds" in texts(drawing.files["svg"])) is (many > 7)
