from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.record import Record
from bench.reports import figures
from bench.reports.comparison import compare
from bench.reports.figures import Drawing, draw, pareto, styles

Make = Callable[..., Record]


@contextmanager
def watched() -> Iterator[dict[str, Axes]]:
    """The axes of the figures that are drawn in the block, by the figure's name."""
    axes: dict[str, Axes] = {}
    finish = figures._finished

    def keep(figure: Figure, name: str, title: str, caption: str) -> Any:
        axes[name] = figure.axes[0]
        return finish(figure, name, title, caption)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_finished", keep)
        yield axes


@pytest.fixture
def drawn() -> Iterator[dict[str, Axes]]:
    with watched() as axes:
        yield axes


@pytest.fixture(scope="module")
def paper_drawings(paper: list[Record]) -> tuple[list[Drawing], dict[str, Axes]]:
    comparisons = compare(paper)
    with watched() as axes:
        return draw(comparisons[0], styles(comparisons)), axes


@pytest.fixture
def drawings(paper_drawings: tuple[list[Drawing], dict[str, Axes]]) -> list[Drawing]:
    return paper_drawings[0]


@pytest.fixture
def sheets(paper_drawings: tuple[list[Drawing], dict[str, Axes]]) -> dict[str, Axes]:
    return paper_drawings[1]


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [entry.get_text().replace("\n", " ") for entry in legend.get_texts()]


def test_three_figures_in_two_formats_of_the_stated_size(drawings: list[Drawing]) -> None:
    assert [d.name for d in drawings] == ["stream", "tradeoff", "memory"]
    for drawing in drawings:
        assert drawing.png.startswith(b"\x89PNG")
        assert drawing.pdf.startswith(b"%PDF")
        width = struct.unpack(">I", drawing.png[16:20])[0]
        assert width == pytest.approx(drawing.width * 150, abs=1)


def test_same_records_same_bytes_and_no_date(paper: list[Record], drawings: list[Drawing]) -> None:
    comparisons = compare(paper[::-1])
    again = draw(comparisons[0], styles(comparisons))
    assert [d.png for d in again] == [d.png for d in drawings]
    assert [d.pdf for d in again] == [d.pdf for d in drawings]
    assert all(b"CreationDate" not in d.pdf for d in drawings)
    assert all(b"Software" not in d.png for d in drawings)


def test_global_state_stays(make: Make) -> None:
    comparisons = compare([make("source-only"), *(make("tent", seed) for seed in range(2))])
    before, backend = dict(mpl.rcParams), mpl.get_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(comparisons[0], styles(comparisons))
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_stream(paper: list[Record], sheets: dict[str, Axes]) -> None:
    axes = sheets["stream"]
    assert [t.get_text() for t in axes.get_xticklabels()] == compare(paper)[0].domains
    lines = {line.get_label().replace("\n", " "): line for line in axes.get_lines()}
    assert labels(axes) == list(lines)
    assert lines["source-only"].get_linestyle() == "--"
    assert lines["source-only"].get_color() == figures.GREY
    assert lines["fine-tune †"].get_linestyle() == ":"
    assert lines["tent"].get_linestyle() == "-"
    assert lines["tent"].get_ydata() == pytest.approx([58.25] * 4)
    # A band for each method with several seeds; shot has one.
    lowest = [c.get_datalim(axes.transData).ymin for c in axes.collections]
    assert any(low == pytest.approx(58.25 - 2.71753) for low in lowest)
    assert "edgeta" not in lines


def test_tradeoff(drawings: list[Drawing], sheets: dict[str, Axes]) -> None:
    drawing, axes = drawings[1], sheets["tradeoff"]
    assert labels(axes) == [
        "source-only", "shot", "tent", "tent (learning_rate=0.01, mode=a|b_c)", "fine-tune †",
        "Pareto front",
    ]  # fmt: skip
    front = next(line for line in axes.get_lines() if line.get_label() == "Pareto front")
    # Source-only, tent, shot; fine-tune sees labels; tent at 130 J is worse than shot.
    assert list(front.get_xdata()) == pytest.approx([0.0, 12.175, 40.0, 130.0])
    assert list(front.get_ydata()) == pytest.approx([50.0, 58.25, 63.0, 63.0])
    assert axes.get_xlim()[0] < 0
    assert "energy unavailable: meterless" in axes.get_xlabel()
    assert "Not drawn, energy unavailable: meterless." in drawing.caption
    assert "(J, modelled)" in axes.get_xlabel()


def test_energies_far_apart_get_a_logarithmic_axis_that_holds_zero(
    make: Make, drawn: dict[str, Axes]
) -> None:
    records = [make("source-only", energy=0.0), make("tent", energy=0.5), make("shot", energy=50.0)]
    comparisons = compare(records)
    draw(comparisons[0], styles(comparisons))
    axes = drawn["tradeoff"]
    assert axes.get_xscale() == "symlog"
    low, high = axes.get_xlim()
    assert low < 0 < 50 < high


def test_memory(sheets: dict[str, Axes]) -> None:
    axes = sheets["memory"]
    assert [b.get_width() for b in axes.patches] == pytest.approx([8, 70, 50, 50, 50, 50])
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "peak memory above the runtime (MB, modelled)"


def test_without_any_energy_there_is_no_tradeoff(make: Make) -> None:
    comparisons = compare([make("source-only", energy=None), make("tent", energy=None)])
    assert [d.name for d in draw(comparisons[0], styles(comparisons))] == ["stream", "memory"]


def test_without_results_there_are_no_figures(make: Make) -> None:
    comparisons = compare([make("tent", status="failed")])
    assert draw(comparisons[0], styles(comparisons)) == []


def test_styles_are_one_for_each_method_and_do_not_repeat(make: Make) -> None:
    records = [make(f"method-{i:02d}", device=d) for i in range(20) for d in ("a", "b")]
    look = styles(compare([*records, make("source-only")]))
    assert len(look) == 21
    assert look["source-only"].colour == figures.GREY
    assert len({(str(s.colour), s.marker) for s in look.values()}) == 21


def test_text_from_records_is_no_formula(make: Make, drawn: dict[str, Axes]) -> None:
    comparisons = compare([make("tent", changed={"k": r"$\frac{1}$ and $x"})])
    draw(comparisons[0], styles(comparisons))
    assert labels(drawn["stream"])[0].count(r"\$") == 3


def test_long_streams_keep_readable_ticks(make: Make, drawn: dict[str, Axes]) -> None:
    record = make("tent")
    assert record.results is not None
    domain = record.results.domains[0]
    many = [domain.model_copy(update={"name": f"domain-{i}"}) for i in range(200)]
    long = record.model_copy(
        update={"results": record.results.model_copy(update={"domains": many})}
    )
    comparisons = compare([long])
    draw(comparisons[0], styles(comparisons))
    ticks = [t.get_text() for t in drawn["stream"].get_xticklabels()]
    assert ticks[:2] == ["domain-0", "domain-5"]
    assert len(ticks) == 40


def test_pareto_example() -> None:
    points = {"a": (0.0, 1.0), "b": (2.0, 3.0), "c": (2.0, 2.0), "d": (5.0, 3.0), "e": (6.0, 4.0)}
    assert pareto(points) == ["a", "b", "e"]


coordinates = st.integers(0, 6).map(float)


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2),
                       st.tuples(coordinates, coordinates), max_size=12))  # fmt: skip
def test_pareto_is_what_nothing_dominates(points: dict[str, tuple[float, float]]) -> None:
    front = pareto(points)
    best = {
        p
        for p in points.values()
        if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points.values())
    }
    assert {points[name] for name in front} == best
    assert len(front) == len(best)
    assert [points[n] for n in front] == sorted(points[n] for n in front)
