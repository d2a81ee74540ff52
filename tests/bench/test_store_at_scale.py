"""What a large store costs: CPU seconds and peak memory of commands, each in a fresh process.

Run with ``tox -e bench``, or as a script to see figures alone: ``python
tests/bench/test_store_at_scale.py FOLDER``. Stores of 100,000 records and of 112 comparisons are
generated, which takes minutes; a folder that is named (or ``BENCH_BIG_STORES``) keeps them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZES = {"large": ("100000", "100", "20"), "wide": ("10000", "112", "18")}
"""Records, comparisons and methods of the generated stores."""
CHOSEN = ("--suite", "domain-shift", "--device", "xavier-nx")
SEEDS = ("--model", "digits-vit", "--methods", "all", "--seeds", "0..52")
BARS = {
    "status": (("status",), "large", 2.0, 300.0),
    "plan": (("plan", *CHOSEN, *SEEDS), "large", 4.0, None),
    "report of one comparison": (("report", *CHOSEN), "large", 10.0, None),
    "report of 112 comparisons": (("report",), "wide", 80.0, None),
    "the same with files of all figures": (("report", "--figures"), "wide", None, None),
}  # fmt: skip
"""By title: a command, its store, and the most CPU seconds and MB; 80 s are 40 s of 2 jobs. The
last is measured alone: matplotlib draws a figure in three formats in about a third of a second.
"""


@dataclass(frozen=True)
class Cost:
    """Of one process and those that it waited for."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measured(*command: str) -> Cost:
    """The cost of a command of ``bench`` in a fresh process; it must succeed."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "bench", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, command
    wall = time.monotonic() - start
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def store(folder: Path, size: str) -> Path:
    """A generated store, made if it is not there."""
    root = folder / size
    if not root.exists():
        maker = Path(__file__).with_name("make_store.py")
        subprocess.run([sys.executable, maker, root, *SIZES[size]], check=True)
    return root


def cost_of(title: str, folder: Path, out: Path) -> Cost:
    """Of a command of `BARS`, with an index of all records where there is one."""
    command, size, _, _ = BARS[title]
    more = ["--store", str(store(folder, size))]
    if command[0] == "report":
        more += ["--out", str(out)]
    return measured(*command, *more)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Of the stores; the first command of each writes the index."""
    if pytestconfig.getoption("benchmark_disable"):
        pytest.skip("takes minutes and asserts seconds: run it with 'tox -e bench'")
    kept = os.environ.get("BENCH_BIG_STORES")
    chosen = Path(kept) if kept else tmp_path_factory.mktemp("stores")
    for size in SIZES:
        measured("status", "--store", str(store(chosen, size)))
    return chosen


@pytest.mark.parametrize("title", BARS)
def test_a_large_store_is_quick(title: str, folder: Path, tmp_path: Path) -> None:
    _, _, seconds, megabytes = BARS[title]
    cost = cost_of(title, folder, tmp_path)
    print(f"\n{title}: {cost}")
    assert seconds is None or cost.cpu_s <= seconds
    assert megabytes is None or cost.peak_mb <= megabytes


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name in sys.argv[2:] or BARS:
        print(f"{name}: {cost_of(name, root, root / 'report')}", flush=True)
