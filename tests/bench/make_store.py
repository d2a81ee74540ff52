"""Write a store of many valid records, as runs of a suite would have left them, without the runs.

``python tests/bench/make_store.py FOLDER RECORDS COMPARISONS [METHODS]``. The first comparison has
cells of the suite ``domain-shift`` as it is, so that ``bench plan`` and ``bench report --suite``
find them; the others differ in the device, or in a setting of the stream as records of an extended
suite would. Scores are drawn from a fixed seed; 1 record in 50 is a failure.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from bench.io.digest import digest
from bench.records.cell import Cell
from bench.records.reading import read_record
from bench.study.plan import make_cells
from bench.study.selection import Selection

SUITE = "domain-shift"
DEVICES = ("xavier-nx", "jetson-tx2", "orin-nano", "agx-orin", "agx-xavier", "raspberry-pi-5")
DOMAINS = 12


def main(folder: Path, records: int, comparisons: int, methods: int = 20) -> None:
    """Write so many records, each comparison with as many seeds of the methods as are needed."""
    folder = folder / "records"
    folder.mkdir(parents=True)
    for number, cell in enumerate(cells(records, comparisons, methods)):
        content = record(cell, number)
        path = folder / f"{content['identity']}.json"
        path.write_text(json.dumps(content, indent=1))
        if number % 5000 == 0:
            read_record(path)  # raises if it is none


def cells(records: int, comparisons: int, methods: int) -> Iterator[dict[str, Any]]:
    """Cells as JSON, comparison by comparison."""
    seeds = max(1, records // (comparisons * methods))
    suite, path = Selection(SUITE, seeds=(0,), devices=DEVICES, model="digits-vit").choose()
    made = [cell for cell in make_cells(suite, path) if cell.variant is None]
    by_device = {name: [c for c in made if c.device == name][:methods] for name in DEVICES}
    left = records
    for number, (extended, device) in zip(
        range(comparisons), product(range(comparisons), DEVICES), strict=False
    ):
        # What rounding left over are further seeds of the last comparison.
        last = number == comparisons - 1
        for seed, cell in product(range(seeds if not last else records), by_device[device]):
            if not left:
                return
            left -= 1
            content = cell.model_dump(mode="json")
            if extended:
                content["stream"]["config"]["extended"] = extended
            yield content | {"seed": seed}


def record(cell: dict[str, Any], number: int) -> dict[str, Any]:
    """A valid record of a cell."""
    draw = random.Random(number)
    identity = digest(Cell.model_validate(cell)._content())[:20]
    whole: dict[str, Any] = {
        "schema_version": 2, "identity": identity, "run": f"{number:032x}", "suite": SUITE,
        "status": "ok", "reason": "", "oom_on": None, "cell": copy.deepcopy(cell),
        "method": {
            "family": "test-time", "provenance": "reimplemented", "paper": "A paper, 2020",
            "needs": ["unlabelled batches"], "changed": {}, "settings_origin": "default",
        },
        "started": f"2026-01-{1 + number % 28:02}T00:00:{number % 60:02}.000000+00:00",
        "wall_s": round(draw.uniform(5, 60), 3), "attempt": 1, "log": f"logs/{number:032x}.log",
        "environment": {"python": "3.12.3", "torch": "2.9.0", "platform": "Linux", "cpus": 4},
        "source_model": "0" * 64, "results": None,
    }  # fmt: skip
    if number % 50 == 49:
        return whole | {"status": "failed", "reason": "RuntimeError: it did not converge"}
    return whole | {"results": results(draw)}


def results(draw: random.Random) -> dict[str, Any]:
    """Of `DOMAINS` domains."""

    def amount(value: float, unit: str) -> dict[str, Any]:
        return {"value": value, "unit": unit, "kind": "modelled", "how": "profile"}

    scores = [draw.uniform(0.3, 0.9) for _ in range(DOMAINS)]
    domains = [
        {
            "name": f"shift-{i}", "before": score - 0.1, "after": score, "final": score - 0.05,
            "online": None, "adapted": None, "adaptation_samples": 200, "test_samples": 360,
            "window_closed": draw.random() < 0.1, "steps": 4, "time_s": draw.uniform(1, 2),
            "energy_j": draw.uniform(10, 20),
        }
        for i, score in enumerate(scores)
    ]  # fmt: skip
    costs = {
        "adaptation_time": amount(draw.uniform(10, 20), "s"),
        "adaptation_energy": amount(draw.uniform(100, 200), "J"),
        "peak_memory": amount(4e7, "B"), "runtime_memory": amount(1e9, "B"),
        "resident_memory": amount(1.1e9, "B"), "source_storage": amount(0.0, "B"),
        "inference_time": amount(1e-4, "s/sample"), "inference_energy": amount(1e-3, "J/sample"),
        "steps": {"adapt": 48}, "flops": 1e12, "bytes": 1e11, "launches": 9000.0,
        "tracing_s": 0.1, "uncounted": [],
    }  # fmt: skip
    return {
        "metric": {
            "name": "accuracy", "title": "accuracy", "unit": "%", "higher_is_better": True,
            "lowest": 0.0, "highest": 1.0, "of_samples": True,
        },
        "further_metrics": [], "source_before": 0.97, "source_after": 0.96, "source_samples": 360,
        "matrix": None, "domains": domains, "costs": costs,
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
