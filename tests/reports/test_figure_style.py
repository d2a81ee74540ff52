"""The style of figures is seaborn's, without importing it."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reports.drawing import grid, sheet
from bench.reports.figure_style import COLORBLIND


@pytest.mark.parametrize(
    ("style", "made"), [("whitegrid", sheet), ("white", lambda *a: grid(*a, 1, 1))]
)
def test_settings_are_seaborns(style, made) -> None:
    sns = pytest.importorskip("seaborn")
    ours = {"axes.edgecolor": "0.3", "grid.color": "0.9"}
    expected = {**sns.plotting_context("paper"), **sns.axes_style(style, rc=ours)}
    # Only images that name no colors take the first; the second gets our font besides.
    del expected["image.cmap"], expected["font.sans-serif"]
    before = dict(mpl.rcParams)
    with made(2, 2):
        assert {name: mpl.rcParams[name] for name in expected} == expected
    assert dict(mpl.rcParams) == before


def test_the_palette_and_the_frame_are_seaborns() -> None:
    sns = pytest.importorskip("seaborn")
    assert list(COLORBLIND) == list(sns.color_palette("colorblind"))
    expected = Figure().add_subplot()
    sns.despine(ax=expected)
    with sheet(2, 2) as (_, axes):
        assert _shown(axes) == _shown(expected)


def _shown(axes: Axes) -> dict[str, bool]:
    return {name: spine.get_visible() for name, spine in axes.spines.items()}


def test_drawing_imports_neither_seaborn_nor_pandas() -> None:
    code = (
        "import sys, bench.reports.draw_all, bench.reports.html_page\n"
        "heavy = {'seaborn', 'pandas', 'scipy.stats', 'matplotlib.pyplot', 'torch'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
