"""EdgeTA beside its rivals on the vision transformer, as a table, from the shipped records.

``python docs/claims.py`` prints the table of results/edgeta-claims.md.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy import stats

import bench

RECORDS = Path(__file__).parent / "results" / "records" / "domain-shift.tar.xz"
CONTROLS = ("source-only", "source-longer", "edgeta-offline")
"""They do not adapt."""
OPPONENTS = ("feature-alignment", "shot", "cua", "deep-coral", "source-longer")


def runs(records: Path = RECORDS) -> pd.DataFrame:
    """One row for each method and source draw, means over seeds: score, bytes and joules."""
    frame = bench.load_results(str(records))
    frame = frame[(frame.model == "digits-vit") & (frame.status == "ok") & ~frame.target_labels]
    whole = frame.groupby(["method", "source_draw", "seed"]).agg(
        score=("after", lambda after: 100 * after.mean()),
        bytes=("peak_memory_bytes", "first"),
        joules=("adaptation_energy_j", "first"),
    )
    return whole.groupby(["method", "source_draw"]).mean()


def versus(found: pd.DataFrame, method: str, others: list[str]) -> tuple[str, str, str, str]:
    """The mean of the others; then accuracy, memory and energy of a method beside it."""
    mine = found.loc[method]
    theirs = found.loc[others].groupby("source_draw").mean()
    pairs = mine.score - theirs.score
    half = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs)
    mean = theirs.mean()
    relative = 100 * pairs.mean() / mean.score
    return (
        f"{mean.score:.1f} %, {mean.bytes / 1e6:.1f} MB, {mean.joules:.1f} J",
        f"{pairs.mean():+.1f} ± {half:.1f} points, {relative:+.0f} %",
        share(mine.bytes.mean(), mean.bytes),
        share(mine.joules.mean(), mean.joules),
    )


def share(mine: float, theirs: float) -> str:
    """A difference in percent, or how many times as much."""
    if theirs == 0:
        return "they take none"
    ratio = mine / theirs
    return f"× {ratio:.1f}" if ratio >= 2 else f"{100 * (ratio - 1):+.0f} %"


def table(found: pd.DataFrame, method: str) -> list[str]:
    """The lines of the table for one method."""
    known = found.index.unique("method")
    rivals = [m for m in known if "edgeta" not in m and m not in CONTROLS]
    best = found.loc[rivals].groupby("method").score.mean().idxmax()
    whole = found.loc[method].mean()
    lines = [
        f"| {method} ({whole.score:.1f} %, {whole.bytes / 1e6:.1f} MB, {whole.joules:.1f} J) "
        "against | which has | accuracy | memory | energy |",
        "|---|---|---|---|---|",
    ]
    against = {
        f"the mean of the {len(rivals)} unsupervised rivals": rivals,
        f"the best of them in the mean, {best}": [best],
    }
    against |= {other: [other] for other in OPPONENTS if other != best}
    for label, others in against.items():
        lines.append(f"| {label} | {' | '.join(versus(found, method, others))} |")
    return lines


if __name__ == "__main__":
    numbers = runs()
    print("\n\n".join("\n".join(table(numbers, m)) for m in ("edgeta", "edgeta-faithful")))
