"""Whether there is a source model worth adapting: its score against that of the commonest class."""

from __future__ import annotations

from .aggregate import SOURCE_ONLY
from .comparison import Comparison
from .metrics import has_matrix
from .statistics import (
    ENOUGH_FOR_INTERVAL,
    SHARE,
    distinguishable,
    estimate,
    paired_difference,
)
from .table_model import percent

COMMONEST_CLASS = "commonest-class"
"""The further metric of what always answering the most frequent class would score."""


def no_conclusion(comparison: Comparison) -> str:
    """Why a comparison bears no conclusion on methods; empty where it may, or nothing is known.

    It bears none where source-only is not above what one class for everything scores: over enough
    pairs by its interval, else by its mean. Streams of new classes are left out, whose source model
    cannot know them.
    """
    base = next((row for row in comparison.drawn if row.is_source_only), None)
    if base is None or has_matrix(comparison.cell.protocol):
        return ""
    found = {run: results.further(COMMONEST_CLASS) for run, results in base.results.items()}
    constant = {run: value for run, value in found.items() if value is not None}
    difference = paired_difference(base.scores, constant)
    if difference is None:
        return ""
    enough = difference.n >= ENOUGH_FOR_INTERVAL
    if difference.mean > 0 and (not enough or distinguishable(difference)):
        return ""
    scores = {run: base.scores[run] for run in constant}
    return (
        f"NO CONCLUSION: {SOURCE_ONLY} ({percent(estimate(scores, SHARE))} %) is not above what "
        "the commonest class as the answer to everything scores "
        f"({percent(estimate(constant, SHARE))} %): there is no source model worth adapting."
    )
