"""Whether two stores hold the same results, cell by cell: for changes that must change nothing.

    python tests/tools/compare_stores.py BEFORE AFTER [BEFORE AFTER ...]

Cells meet by what a user chose (method, model, variant, stream, device, protocol, seed, settings
but those that only one side knows), not by identity, which also holds digests of code. Every
number of a result must be equal to the last bit: accuracies, counts of steps and samples, times,
energies, memory and operations; so must the status and the source model's weights. Not compared:
``tracing_s``, which is wall time of this machine, and texts.

Files are read as plain JSON, so that stores of different versions can be compared. Exit code 0 if
all is equal, 1 if not, 2 if a folder holds no records.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WALL_TIME = ("tracing_s",)
TEXTS = ("how", "unit", "kind", "name")
FACTS = ("metric",)
"""What records of an older schema do not have; not compared."""


def cells(store: Path) -> dict[str, dict[str, Any]]:
    """Records of a store by what their cells are for a user."""
    found = {}
    for path in sorted((store / "records").glob("*.json")):
        record = json.loads(path.read_text())
        cell = record["cell"]
        stream = cell.get("stream", cell.get("scenario"))
        variant = cell.get("variant")
        key = [
            cell["method"]["name"],
            cell["model"]["name"],
            "full" if variant is None else f"{variant['name']}:{variant['config']['ratio']}",
            stream["name"],
            json.dumps(stream["config"], sort_keys=True),
            cell["device"],
            cell["protocol"]["name"],
            f"seed {cell['seed']}",
            "with target labels" if cell["target_labels"] else "",
        ]
        name = " · ".join(k for k in key if k)
        if name in found:
            raise SystemExit(f"{store}: two records of {name}; compare stores of one version each")
        found[name] = record
    return found


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a result, and every absence of one, with where it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in (*WALL_TIME, *TEXTS, *FACTS):
                yield from numbers(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers(item, f"{path}[{i}]")
    elif not isinstance(value, str):
        yield path.removeprefix("."), value


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[int, list[str]]:
    """How many values of two records were compared, and a line for each that differs."""
    known = before["cell"]["method"]["config"], after["cell"]["method"]["config"]
    shared = known[0].keys() & known[1].keys()
    pairs = [
        *((f"setting {k}", known[0][k], known[1][k]) for k in sorted(shared)),
        ("status", before["status"], after["status"]),
        ("source model", before["source_model"], after["source_model"]),
    ]
    one, other = (dict(numbers(r["results"] or {})) for r in (before, after))
    pairs += [(k, one.get(k), other.get(k)) for k in {**one, **other}]
    return len(pairs), [f"{what}: {a!r} -> {b!r}" for what, a, b in pairs if a != b]


def compare(before: Path, after: Path) -> bool:
    """Print what differs between two stores; whether nothing does."""
    old, new = cells(before), cells(after)
    if not old or not new:
        print(f"{before if not old else after}: no records", file=sys.stderr)
        raise SystemExit(2)
    compared, wrong = 0, 0
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            print(f"{name}: only in {before if name in old else after}")
            wrong += 1
            continue
        count, lines = differences(old[name], new[name])
        compared += count
        wrong += bool(lines)
        for line in lines:
            print(f"{name}: {line}")
    print(
        f"{before} and {after}: {len(old)} and {len(new)} cells, {compared} values compared, "
        f"{wrong} cells differ"
    )
    return not wrong


def main(arguments: list[str]) -> int:
    """Compare the stores two by two."""
    if not arguments or len(arguments) % 2:
        print(__doc__, file=sys.stderr)
        return 2
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    equal = [compare(Path(a), Path(b)) for a, b in pairs]  # all of them are printed
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
