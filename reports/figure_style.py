"""How all figures look: seaborn's styles "whitegrid" and "white" in its context "paper", and its
color-blind safe palette, as settings of matplotlib.

Written down here, as importing seaborn takes longer than drawing a report's figures. From
seaborn 0.13 (Waskom, seaborn: statistical data visualization, JOSS 2021).
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

COLORBLIND = tuple(
    to_rgb(color)
    for color in (
        "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
        "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
    )
)  # fmt: skip
"""The palette, in its order: blue, orange, green, red, purple, brown, pink, grey, yellow, sky."""

PAPER = 0.8
"""Of the sizes in a notebook."""

SETTINGS: dict[str, Any] = {
    # Its context "paper".
    "axes.linewidth": 1.25 * PAPER, "grid.linewidth": 1 * PAPER, "patch.linewidth": 1 * PAPER,
    "lines.linewidth": 1.5 * PAPER, "lines.markersize": 6 * PAPER,
    "xtick.major.width": 1.25 * PAPER, "ytick.major.width": 1.25 * PAPER,
    "xtick.minor.width": 1 * PAPER, "ytick.minor.width": 1 * PAPER,
    "xtick.major.size": 6 * PAPER, "ytick.major.size": 6 * PAPER,
    "xtick.minor.size": 4 * PAPER, "ytick.minor.size": 4 * PAPER,
    "font.size": 12 * PAPER, "axes.labelsize": 12 * PAPER, "axes.titlesize": 12 * PAPER,
    "legend.title_fontsize": 12 * PAPER,
    "xtick.labelsize": 11 * PAPER, "ytick.labelsize": 11 * PAPER, "legend.fontsize": 11 * PAPER,
    # What its styles share.
    "figure.facecolor": "white", "axes.facecolor": "white",
    "text.color": ".15", "axes.labelcolor": ".15", "xtick.color": ".15", "ytick.color": ".15",
    "axes.axisbelow": True, "lines.solid_capstyle": "round",
    "patch.edgecolor": "w", "patch.force_edgecolor": True,
    "font.family": ["sans-serif"],
    "font.sans-serif": [
        "Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif",
    ],
    "axes.spines.left": True, "axes.spines.bottom": True,
    "axes.spines.right": True, "axes.spines.top": True,
    "xtick.direction": "out", "ytick.direction": "out",
    "xtick.bottom": False, "ytick.left": False, "xtick.top": False, "ytick.right": False,
    "grid.linestyle": "-",
    # Ours: paler than its own.
    "axes.edgecolor": "0.3", "grid.color": "0.9",
    # Fonts embedded as TrueType, text of SVG as text; ids of SVG from the drawing, not at random.
    "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "bench",
}  # fmt: skip
"""Of all figures; those on `sheet` have a grid besides."""


def without_frame(axes: Axes) -> None:
    """No line above the axes and none to their right."""
    axes.spines[["top", "right"]].set_visible(False)
