"""Figures in a paper's column: their width in all formats, their fonts, and no text over another.

Every kind is drawn through a report file for 12 and for 40 methods; what lies where is asked of the
renderer when a figure is written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from report_files import report, texts, written

from bench import BenchError
from bench.records.record import Record
from bench.records.store import Store
from bench.reports.write import files

Make = Callable[..., Record]

COLUMN = 252
"""Points: 3.5 inches."""
OF_EACH = ["stream", "tradeoff", "memory", "matrix", "pairwise", "trained", "breakdown"]
BARS = ["bars", "bars-memory", "bars-energy", "bars-time"]
LONG = "elastic-feature-alignment"


class Seen:
    """What figures looked like when they were written."""

    def __init__(self) -> None:
        self.overlaps: list[str] = []
        self.outside: list[str] = []
        self.covered: list[str] = []
        self.sizes: set[float] = set()
        self.number = 0

    def look_at(self, figure: Figure) -> None:
        self.number += 1
        figure.draw_without_rendering()  # places the labels of ticks
        shown = [(text, text.get_window_extent()) for text in _texts(figure)]
        self.sizes |= {text.get_fontsize() for text, _ in shown}
        for (a, box), (b, other) in combinations(shown, 2):
            if _inside(box).overlaps(_inside(other)):
                self.overlaps.append(f"{a.get_text()!r} and {b.get_text()!r}")
        page = figure.bbox
        self.outside += [
            text.get_text()
            for text, box in shown
            if not all(page.padded(1).contains(*corner) for corner in box.corners())
        ]
        for legend in figure.legends:
            box = legend.get_window_extent()
            self.covered += [
                str(axes) for axes in figure.axes if box.overlaps(axes.get_window_extent())
            ]


def _inside(box: Bbox) -> Bbox:
    """Less half a pixel at each side: neighbours may touch."""
    return box.padded(-0.5)


def _texts(figure: Figure) -> Iterator[Text]:
    """All that is written and seen: matplotlib keeps ticks outside of the view, and unused ones."""
    hidden = {id(axes) for axes in figure.axes if not axes.get_visible()}
    ticks: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks |= {id(text) for text in axis.findobj(Text)}
            if id(axes) not in hidden and axis.get_visible():
                yield from _of_axis(axis)
    for text in figure.findobj(Text):
        owner: Axes | None = text.axes
        seen = text.get_visible() and (owner is None or id(owner) not in hidden)
        if seen and id(text) not in ticks and text.get_text().strip():
            yield text


def _of_axis(axis: Axis) -> Iterator[Text]:
    yield from (t for t in (axis.label, axis.offsetText) if t.get_text())
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        if low <= tick.get_loc() <= high:
            for text in (tick.label1, tick.label2):
                if text.get_visible() and text.get_text():
                    yield text


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Looks at every figure when its PNG is written."""
    looks, save = Seen(), Figure.savefig

    def watched(figure: Figure, *given: Any, **settings: Any) -> None:
        if settings["format"] == "png":
            looks.look_at(figure)
        save(figure, *given, **settings)

    monkeypatch.setattr(Figure, "savefig", watched)
    return looks


def records(make: Make, many: int) -> list[Record]:
    """Two networks, three seeds; the second method has a long name, the third long settings."""
    names = ["source-only", LONG, *(f"method-{i:02d}" for i in range(many - 2))]
    made = []
    for i, (name, model, s) in enumerate((n, m, s) for n in names for m in ("vit", "a-network")
                                         for s in range(3)):  # fmt: skip
        at, place = i // 6, 0.4 + i // 6 / 2 / many + s / 100
        chosen = {"changed": {"learning_rate": 0.01, "mode": "affine"}} if at == 2 else {}
        times = {f"blocks.{k}.attn.qkv.weight": k % 9 for k in range(12)}
        told = {"selections": 9, "tensors": 20, "times_selected": times}
        record = make(
            name, s, model=model, after=[place, 0.6, 1.2 - place, place],
            energy=float(at * at), memory=(9 + at) * 1e6, supervised=at == 5,
            windows_closed=int(at == 4), details={"elastic": told} if at in (1, 2, 3) else {},
            protocol={"name": "periodic", "window_s": 60.0, "reset": "never"}, **chosen,
        )  # fmt: skip
        made.append(_with_kinds(record))
    return [*made, make("norm", model="vit", status="unsupported", reason="no BatchNorm")]


def _with_kinds(record: Record) -> Record:
    assert record.results is not None
    kinds = {"adapting": 0.7, "building a proxy": 0.5, "selecting tensors": 0.3}
    costs = record.results.costs.model_copy(update={"time_by_kind": kinds})
    results = record.results.model_copy(update={"costs": costs})
    return record.model_copy(update={"results": results})


def with_matrix(make: Make, many: int) -> list[Record]:
    learned = [[0.9] * 5, *([0.5 + i / 10] * 5 for i in range(4))]
    protocol = {"name": "periodic", "reset": "never", "evaluate_all": True}
    names = ["source-only", LONG, *(f"method-{i:02d}" for i in range(many - 2))]
    return [make(name, s, matrix=learned, protocol=protocol) for name in names for s in range(2)]


def width_of(name: str, content: bytes) -> float:
    """A file's width in points."""
    if name.endswith(".png"):
        at = content.index(b"pHYs") + 4
        per_metre = struct.unpack(">I", content[at : at + 4])[0]
        return float(struct.unpack(">I", content[16:20])[0] / per_metre / 0.0254 * 72)
    pattern = (
        rb'<svg[^>]* width="([\d.]+)pt"' if name.endswith(".svg") else rb"MediaBox \[ 0 0 ([\d.]+)"
    )
    found = re.search(pattern, content)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("many", [12, 40])
def test_all_figures_of_a_column_are_as_wide_as_it_and_can_be_read(
    make: Make, tmp_path: Path, seen: Seen, many: int
) -> None:
    figures = [name for name in OF_EACH if name != "matrix"]
    both = records(make, many)
    made = written(tmp_path / "all", both, figures=BARS, figure_width="column")
    one = [each for each in both if each.cell.model.name == "vit"]
    made |= written(tmp_path / "one", one, figures=figures, figure_width="column")
    made |= written(
        tmp_path / "matrix", with_matrix(make, many), figures=["matrix"], figure_width="column"
    )
    drawn = {name: content for name, content in made.items() if name.startswith("figure-")}
    kinds = {name.removeprefix("figure-").partition("-digits")[0].partition(".")[0]
             for name in drawn}  # fmt: skip
    assert kinds == {*OF_EACH, *BARS}
    for name, content in drawn.items():
        assert width_of(name, content) == pytest.approx(COLUMN, abs=0.3), name
    assert seen.number == len(drawn) / 3
    assert seen.overlaps == []
    assert seen.outside == []
    assert seen.covered == []
    assert seen.sizes <= {7.0, 8.0}
    pdf = made["figure-bars.pdf"]
    assert b"/FontFile2" in pdf  # TrueType, embedded: type 42 of matplotlib
    assert b"/Type3" not in pdf


def test_the_figures_across_settings_fit_a_column(make: Make, tmp_path: Path, seen: Seen) -> None:
    names = ["source-only", LONG, *(f"method-{i:02d}" for i in range(7))]
    protocol = {"name": "periodic", "reset": "never"}
    windows = [
        make(name, s, after=0.5 + i / 50 + s / 100 + window / 1000,
             protocol={**protocol, "window_s": window})
        for i, name in enumerate(names) for window in (5.0, 10.0, 60.0) for s in range(3)
    ]  # fmt: skip
    made = written(tmp_path, windows, figures=["window"], figure_width="column")
    networks = [
        make(name, s, model=model, after=0.5 + i / 50 + s / 100)
        for i, name in enumerate(names)
        for model in ("vit", "cnn")
        for s in range(2)
    ]
    for path in files(networks, tmp_path / "all", figure_width="column"):
        made[path.name] = path.read_bytes()
    across = [name for name in made if name.startswith(("figure-window", "figure-profile"))]
    assert len(across) == 6
    for name in across:
        assert width_of(name, made[name]) == pytest.approx(COLUMN, abs=0.3)
    assert (seen.overlaps, seen.outside, seen.covered) == ([], [], [])
    assert seen.sizes <= {7.0, 8.0}


def test_a_text_over_another_would_be_seen() -> None:
    figure, looks = Figure(figsize=(2, 1)), Seen()
    for name, place in (("one", 0.1), ("other", 0.15), ("cut off", 0.95)):
        figure.text(place, 0.5, name)
    looks.look_at(figure)
    assert looks.overlaps == ["'one' and 'other'"]
    assert looks.outside == ["cut off"]


def test_in_a_column_a_matrix_of_pairs_shows_as_many_methods_as_have_room(
    make: Make, tmp_path: Path
) -> None:
    one = [each for each in records(make, 40) if each.cell.model.name == "vit"]
    made = written(tmp_path, one, figures=["pairwise"], figure_width="column")
    caption = made["captions.md"].decode()
    assert "White: not distinguishable" in caption
    assert "15 prominent rows." in caption


def test_names_that_one_line_would_make_equal_keep_their_lines(make: Make, tmp_path: Path) -> None:
    alike = [f"a-{'x' * 14}-{i}-{'y' * 14}" for i in range(40)]
    many = [make(name, s) for name in ["source-only", *alike] for s in range(2)]
    made = written(tmp_path, many, figures=["memory"], figure_width="column")
    told = texts(made["figure-memory-digits-small-vit-board.svg"])
    lines = [name for name in told if re.fullmatch(r"a-x{14}-\d+-", name)]
    assert len(set(lines)) == 39  # of 40 rows, one of which is source-only


@pytest.fixture
def folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = Store(tmp_path / "results")
    for seed in range(2):
        store.write(make("source-only", seed, after=0.5))
        store.write(make("tent", seed, after=0.6))
    (tmp_path / "paper.yaml").write_text(
        "stores: [results]\ncolumns: [accuracy]\nfigures: [memory]\nfigure_width: column\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_STORE", raising=False)
    return tmp_path


def widths(folder: Path) -> set[int]:
    return {round(width_of(path.name, path.read_bytes())) for path in folder.glob("figure-*.pdf")}


def test_the_command_and_the_file_say_how_wide(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(monkeypatch, "paper.yaml", "--out", "a") == 0
    assert widths(folder / "a") == {COLUMN}
    assert report(monkeypatch, "paper.yaml", "--out", "b", "--figure-width", "page") == 0
    assert widths(folder / "b") == {461}  # 6.4 inches
    asked = ("--store", "results", "--jobs", "1", "--figure-width", "column", "--out", "c")
    assert report(monkeypatch, *asked) == 0
    assert widths(folder / "c") == {COLUMN}
    assert report(monkeypatch, "--store", "results", "--figure-width", "wide") == 2
    assert "wide" in capsys.readouterr().err


def test_a_width_that_there_is_not_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="key 'figure_width': 'wide' is not allowed"):
        written(tmp_path, [make("tent")], figures=["memory"], figure_width="wide")
    with pytest.raises(BenchError, match="--figure-width 'wide': is no width; known: column, page"):
        files([make("tent")], tmp_path, figure_width="wide")
