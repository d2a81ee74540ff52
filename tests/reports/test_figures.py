from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records.record import Record
from bench.reports import figures, matrix_figure, stream_figure
from bench.reports.comparison import compare
from bench.reports.drawing import GREY, Drawing, Style, styles, tag
from bench.reports.error_bars import Point
from bench.reports.figures import draw
from bench.reports.matrix_figure import draw_matrix
from bench.reports.resampling import pareto

FRONT = "Pareto front"

Make = Callable[..., Record]


@contextmanager
def watched(*modules: Any) -> Iterator[dict[str, Axes]]:
    """The first axes of the figures that modules draw in the block, by the figure's name."""
    axes: dict[str, Axes] = {}
    finish = figures.finished

    def keep(figure: Figure, name: str, *told: Any) -> Any:
        axes[name] = figure.axes[0]
        return finish(figure, name, *told)

    with pytest.MonkeyPatch.context() as patch:
        for module in modules or (figures, stream_figure):
            patch.setattr(module, "finished", keep)
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


def test_three_figures_in_three_formats_of_the_stated_size(drawings: list[Drawing]) -> None:
    assert [d.name for d in drawings] == ["stream", "tradeoff", "memory"]
    for drawing in drawings:
        assert drawing.files["png"].startswith(b"\x89PNG")
        assert drawing.files["pdf"].startswith(b"%PDF")
        assert b"<text" in drawing.files["svg"]  # which can be searched and edited
        width = struct.unpack(">I", drawing.files["png"][16:20])[0]
        assert width == pytest.approx(drawing.width * 150, abs=1)


def test_same_records_same_bytes_and_no_date(paper: list[Record], drawings: list[Drawing]) -> None:
    comparisons = compare(paper[::-1])
    again = draw(comparisons[0], styles(comparisons))
    assert [d.files for d in again] == [d.files for d in drawings]
    assert all(b"CreationDate" not in d.files["pdf"] for d in drawings)
    assert all(b"Software" not in d.files["png"] for d in drawings)


def test_the_matrix_is_a_heat_map_of_means_over_runs(matrix: list[Record]) -> None:
    (comparison,) = compare(matrix)
    with watched(matrix_figure) as axes:
        drawing = draw_matrix(comparison, {})
    assert drawing is not None
    figure = axes["matrix"].figure
    shown = {place.get_title(): place for place in figure.axes if place.images}
    assert "ewc †" in shown
    assert len(shown) == 6
    rows = {row.label: row for row in comparison.rows}
    known = [r.matrix for r in rows["ewc"].results.values()]
    image = shown["ewc †"].images[0]
    np.testing.assert_allclose(image.get_array(), 100 * np.mean(known, axis=0))
    assert image.get_clim() == (0, 100)
    assert shown["ewc †"].get_xticklabels()[0].get_text() == "source"
    assert "after each stage was learned (rows)" in drawing.caption
    assert "matrix" in [d.name for d in draw(comparison, styles([comparison]))]


def test_global_state_stays(make: Make) -> None:
    comparisons = compare([make("source-only"), *(make("tent", seed) for seed in range(2))])
    import matplotlib.pyplot as plt

    # Another test of this process may have left a figure open.
    before, backend, opened = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(comparisons[0], styles(comparisons))
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend
    assert plt.get_fignums() == opened


def test_stream(paper: list[Record], sheets: dict[str, Axes]) -> None:
    axes = sheets["stream"]
    assert [t.get_text() for t in axes.get_xticklabels()] == compare(paper)[0].domains
    lines = {line.get_label().replace("\n", " "): line for line in axes.get_lines()}
    assert labels(axes) == list(lines)
    assert lines["source-only"].get_linestyle() == "--"
    assert lines["source-only"].get_color() == GREY
    assert lines["fine-tune †"].get_linestyle() == ":"
    assert lines["tent"].get_linestyle() == "-"
    assert lines["tent"].get_ydata() == pytest.approx([58.25] * 4)
    # A band for each method with several seeds; shot has one.
    lowest = [c.get_datalim(axes.transData).ymin for c in axes.collections]
    # The logit of .5825 less 0.0271753 / (.5825 * .4175), mapped back.
    assert any(low == pytest.approx(55.5091, abs=1e-3) for low in lowest)
    assert "edgeta" not in lines


def test_two_runs_are_points_and_no_band(make: Make, drawn: dict[str, Axes]) -> None:
    records = [
        make(m, seed, after=[0.4 + 0.5 * seed, 0.95, 0.9, 0.99], energy=5.0 + 10 * seed)
        for m in ("source-only", "tent")
        for seed in range(2)
    ]
    comparisons = compare(records)
    stream, tradeoff, memory = draw(comparisons[0], styles(comparisons))
    points = [c.get_offsets() for c in drawn["stream"].collections]
    assert [len(found) for found in points] == [8, 8]
    assert [y for _, y in points[0][:2]] == pytest.approx([40.0, 90.0])
    found = [line for line in drawn["tradeoff"].get_lines() if isinstance(line, Point)]
    assert [line.bars[2:] for line in found] == [(False, False)] * 2
    assert len(drawn["tradeoff"].collections) == 2
    for drawing in (stream, tradeoff, memory):
        assert "of two the points" in drawing.caption


@pytest.mark.parametrize("seeds", [3, 5])
def test_bands_stay_within_what_accuracy_can_be(
    make: Make, drawn: dict[str, Axes], seeds: int
) -> None:
    wide = [0.05, 0.99, 0.9, 0.6, 0.99]
    comparisons = compare([make("tent", s, after=wide[s]) for s in range(seeds)])
    draw(comparisons[0], styles(comparisons))
    (band,) = drawn["stream"].collections
    limits = band.get_datalim(drawn["stream"].transData)
    assert 0 < limits.ymin < limits.ymax < 100


def test_tradeoff(drawings: list[Drawing], sheets: dict[str, Axes]) -> None:
    drawing, axes = drawings[1], sheets["tradeoff"]
    assert labels(axes) == [
        "source-only", "shot", "tent (learning_rate=0.01, mode=a|b_c) ¶", "tent", "fine-tune †",
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
    assert "Pareto front of the methods (source-only, tent, shot)." in drawing.caption


def test_stream_of_everything_seen(matrix: list[Record], drawn: dict[str, Axes]) -> None:
    comparisons = compare(matrix)
    stream, tradeoff, _, _ = draw(comparisons[0], styles(comparisons))
    axes = drawn["stream"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["source", "rotation-1", "noise-1"]
    lines = {line.get_label(): line for line in axes.get_lines()}
    # 200 samples of the source and 100 of each domain; the seeds' mean of wiggle is 0.
    after = [90.0, (200 * 70 + 100 * 70) / 300, (200 * 60 + 100 * 60 + 100 * 80) / 400]
    assert lines["tent [tuned]"].get_ydata() == pytest.approx(after)
    assert lines["tent [oracle] ‡"].get_linestyle() == "-."
    assert axes.get_ylabel() == "accuracy over everything seen (%)"
    assert "‡ ORACLE" in stream.caption
    # Oracle settings have seen test labels: they are no point of the front.
    front = next(line for line in drawn["tradeoff"].get_lines() if line.get_label() == FRONT)
    # Source-only at 0 J, tent at 12, tent tuned at 20, eata at 30; the default scores 60.0.
    assert list(front.get_xdata()) == pytest.approx([0.0, 12.0, 20.0, 30.0, 30.0])
    assert list(front.get_ydata()) == pytest.approx([57.5, 60.0, 65.0, 70.0, 70.0])
    assert "‡ ORACLE" in tradeoff.caption
    assert "over everything seen" in drawn["tradeoff"].get_ylabel()


def test_stream_of_online_accuracy(online: list[Record], drawn: dict[str, Axes]) -> None:
    comparisons = compare(online)
    stream = draw(comparisons[0], styles(comparisons))[0]
    lines = {line.get_label(): line for line in drawn["stream"].get_lines()}
    assert lines["tent [tuned]"].get_ydata() == pytest.approx([58.0] * 4)
    assert drawn["stream"].get_ylabel() == "online accuracy (%)"
    assert "predicted before it is adapted to" in stream.caption
    assert "ORACLE" not in stream.caption


@pytest.fixture(scope="module")
def crowd(make: Make) -> tuple[dict[str, Drawing], dict[str, Axes], dict[str, Style]]:
    """Source-only, 24 methods from 70 to 47 %, 6 references from 90 to 85 %, an oracle."""
    comparisons = compare([
        make("source-only", after=0.45),
        *(make(f"method-{i:02d}", after=0.7 - i / 100) for i in range(24)),
        *(make(f"seer-{i}", after=0.9 - i / 100, supervised=True) for i in range(6)),
        make("method-00", after=0.8, settings="oracle"),
    ])  # fmt: skip
    look = styles(comparisons)
    with watched() as axes:
        return {d.name: d for d in draw(comparisons[0], look)}, axes, look


def test_a_crowded_stream_is_small_multiples_and_names_the_rest(
    crowd: tuple[dict[str, Drawing], dict[str, Axes], dict[str, Style]],
) -> None:
    drawings, axes, look = crowd
    best = ["method-00 [default]", *(f"method-0{i}" for i in range(1, 8))]
    panels = [each for each in axes["stream"].figure.axes if each.get_visible()]
    assert [panel.get_title() for panel in panels] == [*best, "seer-0 †"]
    for panel in panels:  # each beside no adaptation, on one scale
        still, own, _ = panel.get_lines()  # the third is the grid
        assert (still.get_color(), still.get_linestyle()) == (GREY, "--")
        assert own.get_color() == look[panel.get_title().removesuffix(" †")].color
        assert panel.get_ylim() == panels[0].get_ylim()
    left = drawings["stream"].caption.partition("Left out of 32 rows, see the table: ")[2]
    assert left.rstrip(".").split(", ") == [
        "method-00 [oracle] ‡", *(f"method-{i:02d}" for i in range(8, 24)),
        *(f"seer-{i} †" for i in range(1, 6)),
    ]  # fmt: skip
    assert len({str(look[name].color) for name in best}) == 8


@pytest.mark.parametrize("many", [6, 7, 9])
def test_more_than_six_methods_stand_in_figures_of_their_own(
    make: Make, drawn: dict[str, Axes], many: int
) -> None:
    names = [f"method-{i}" for i in range(many)]
    records = [make(m, s, after=[0.5, 0.9, 0.6 + s / 9, 0.3]) for m in names for s in range(3)]
    comparisons = compare([*records, make("source-only")])
    draw(comparisons[0], styles(comparisons))
    figure = drawn["stream"].figure
    panels = [each for each in figure.axes if each.get_visible()]
    assert len(panels) == (1 if many <= 6 else many)
    figure.draw_without_rendering()
    lowest = [each for each in panels if each.xaxis.get_visible()]
    shown = [t.get_window_extent() for each in lowest for t in each.get_xticklabels()]
    assert len(shown) == (4 if many <= 6 else 12)  # below the lowest panel of each column
    assert not any(a.overlaps(b) for i, a in enumerate(shown) for b in shown[:i])


def test_the_front_says_how_sure_it_is(make: Make, drawn: dict[str, Axes]) -> None:
    """Tent is always on the front; shot takes more energy and is above it in one draw of many."""
    records = [
        make(m, seed, after=after + step * seed, energy=energy)
        for seed in range(3)
        for m, after, step, energy in (
            ("source-only", 0.5, 0.0, 0.0), ("tent", 0.6, 0.0, 5.0), ("shot", 0.55, 0.04, 9.0),
        )
    ]  # fmt: skip
    comparisons = compare(records)
    drawing = draw(comparisons[0], styles(comparisons))[1]
    shares = comparisons[0].front_shares
    assert (shares["source-only"], shares["tent"]) == (1.0, 1.0)
    assert 0.0 < shares["shot"] < 0.5
    assert labels(drawn["tradeoff"]) == [
        "source-only (100 %)", "tent (100 %)", f"shot ({100 * shares['shot']:.0f} %)", FRONT,
    ]  # fmt: skip
    assert "(%) of a method: in how many of the bootstrap draws" in drawing.caption


@pytest.mark.parametrize("name", ["tradeoff", "memory"])
def test_other_crowded_figures_name_every_row_legibly(
    crowd: tuple[dict[str, Drawing], dict[str, Axes], dict[str, Style]], name: str
) -> None:
    axes = crowd[1][name]
    axes.figure.draw_without_rendering()
    legend = axes.get_legend()
    texts = axes.get_yticklabels() if legend is None else legend.get_texts()
    assert len(texts) == (33 if name == "tradeoff" else 32)  # one is the Pareto front
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    page = axes.figure.bbox
    assert all(page.contains(*corner) for box in boxes for corner in box.corners())


def test_names_of_any_length_leave_room_for_the_figure(make: Make) -> None:
    long = ["x" * 300, f"{'x' * 299}y"]
    comparisons = compare([make("source-only"), *(make(each, model=each) for each in long)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where nothing is left for the axes
        for comparison in comparisons:
            draw(comparison, styles(comparisons))
    tags = {tag(row).replace("\n", "") for each in comparisons for row in each.rows}
    assert tags == {"source-only", f"{'x' * 70}…{'x' * 39}", f"{'x' * 70}…{'x' * 38}y"}


def test_two_hundred_methods_leave_figures_that_can_be_read(
    make: Make, drawn: dict[str, Axes]
) -> None:
    worse = [make(f"method-{i:03d}", after=0.9 - i / 500, energy=9.0 + i) for i in range(200)]
    cheap = make("cheap", after=0.2, energy=8.0)  # nothing dominates it, whatever its score
    comparisons = compare([make("source-only", after=0.1, energy=9.0), *worse, cheap])
    made = {each.name: each for each in draw(comparisons[0], styles(comparisons))}
    names = labels(drawn["tradeoff"])
    assert names[:3] == ["source-only", "method-000", "method-001"]
    assert names[-2:] == ["cheap", FRONT]
    assert len(names) == 40 + 2
    assert "161 rows of lower scores are left out, see the table." in made["tradeoff"].caption
    assert "left out, see the table." in made["memory"].caption
    assert made["tradeoff"].width < 12


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
    assert [b.get_width() for b in axes.patches] == pytest.approx([8, 50, 50, 50, 70, 50])
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
    assert look["source-only"].color == GREY
    assert len({(str(s.color), s.marker) for s in look.values()}) == 21


def test_text_from_records_is_no_formula(make: Make, drawn: dict[str, Axes]) -> None:
    comparisons = compare([make("tent", changed={"k": r"$\frac{1}$ and $x"})])
    draw(comparisons[0], styles(comparisons))
    assert labels(drawn["stream"])[0].count(r"\$") == 3


@pytest.mark.parametrize(("name", "rotation"), [("art", 0.0), ("medquad_CancerGov", 25.0)])
def test_long_names_of_domains_do_not_lie_over_each_other(
    make: Make, drawn: dict[str, Axes], name: str, rotation: float
) -> None:
    record = make("tent")
    assert record.results is not None
    few = [
        domain.model_copy(update={"name": f"{name}-{i}"})
        for i, domain in enumerate(record.results.domains)
    ]
    results = record.results.model_copy(update={"domains": few})
    comparisons = compare([record.model_copy(update={"results": results})])
    draw(comparisons[0], styles(comparisons))
    ticks = drawn["stream"].get_xticklabels()
    assert {tick.get_rotation() for tick in ticks} == {rotation}


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
