"""``bench-probe``: the one file that measures a board which cannot install this project.

It joins the modules of `bench.probe`, which a calibration here runs too, and holds the calls to
time, each as the tracer of runs counts it here. So a board's profile has the kinds, operations and
bytes of `bench.calibration.calibrate`, though its torch can count nothing.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.calibration.calibrate import traced
from bench.calibration.memory_fit import NETWORKS
from bench.calibration.operators import SMALLEST, Sizes, convolutions, operators, optimizer_steps
from bench.costs.pricing import MemoryFootprint
from bench.costs.step_tracer import StepTracer
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.probe.cases import Operator, OptimizerStep
from bench.probe.networks import DISPATCHES, Network, training_step
from bench.probe.timing import CACHE_BYTES, POOL_BYTES, Pool

PARTS = (
    "meters/process_memory", "probe/timing", "probe/cases", "probe/networks", "probe/profile",
    "probe/sensors", "probe/main",
)  # fmt: skip
"""Modules to join, each after those that it imports."""

HEAD = '''\
#!/usr/bin/env python3
"""bench-probe: measure this board and write a profile of it for 'bench device'.

Made by 'bench device probe'. Needs Python 3.6.1 and torch 1.8, nothing else:

    python3 bench-probe.py --name my-board
"""

{imports}


class BenchError(Exception):
    """Bad input, or a machine on which this cannot be measured."""

'''
TAIL = """

TABLE = json.loads(
    r'''
{table}
'''
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TABLE))
"""

Log = Callable[[str], None]


def probe_text(log: Log, sizes: Sequence[Sizes] | None = None, networks: Any = NETWORKS) -> str:
    """The file's content; ``sizes`` and ``networks`` are those of a whole calibration."""
    folder = Path(__file__).parents[1]
    imports: dict[str, set[str]] = {}
    bodies = []
    for part in PARTS:
        bodies.append(_body((folder / f"{part}.py").read_text(encoding="utf-8"), imports))
    lines = [f"import {name}" for name in imports.pop("")]
    lines += [f"from {name} import {', '.join(sorted(p))}" for name, p in imports.items()]
    head = HEAD.format(imports="\n".join(sorted(lines)))
    text = "\n".join([head, *bodies])
    return text + TAIL.format(table=_to_json(table(log, sizes, networks)))


def table(log: Log, sizes: Sequence[Sizes] | None = None, networks: Any = NETWORKS) -> Any:
    """What a board measures, as JSON, with what this torch counts of each call."""
    pool = Pool("cpu", POOL_BYTES, 1)  # one set of operands: nothing is timed
    cases: list[Operator | OptimizerStep] = []
    for each in sizes or (SMALLEST, Sizes()):
        cases += [*operators(each), *convolutions(each), *optimizer_steps(each)]
    log(f"counting {len(cases)} calls of operators and {len(networks)} networks; a minute or two")
    with torch.no_grad():
        rows = [row for case in cases for row in _row(case, pool, log)]
        dispatches = [
            {
                "dispatch": tuple(case),
                "counted": [[*call, n] for call, n in traced(case, pool).details.items()],
            }
            for case in DISPATCHES
        ]
    return {
        "classes": OPERATOR_CLASSES,
        "boards": _boards(),
        "dispatches": dispatches,
        "networks": [_live(network) for network in networks],
        "operators": rows,
    }


def _row(case: Operator | OptimizerStep, pool: Pool, log: Log) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = case._asdict()
    if isinstance(case, OptimizerStep):
        case = case._replace(parameters=case.tensors(2 * CACHE_BYTES))
        about = case._asdict()
    calls = traced(case, pool).details
    if len({call[0] for call in calls}) != 1:
        log(f"left out: {case.name} is {' and '.join(sorted({call[0] for call in calls}))} here")
        return
    number = calls.total()
    kind, of, dtype, *_ = next(iter(calls))
    flops = float(f"{sum(call[3] * n for call, n in calls.items()) / number:.4g}")
    size = float(f"{sum(call[4] * n for call, n in calls.items()) / number:.4g}")
    yield {**about, "counted": (kind, of, dtype, flops, size, number)}


def _live(network: Network) -> dict[str, Any]:
    """The live memory of a network's step, whose resident memory the board measures."""
    torch.manual_seed(0)
    step, kept = training_step(network, *network.build())
    step()
    with StepTracer(kept) as tracer:
        step()
    live = MemoryFootprint.of(tracer.trace)
    sizes = {"stored": live.stored, "step": live.step, "convolution": live.convolution}
    return {"network": tuple(network), **sizes}


def _boards() -> dict[str, Any]:
    """The rail tables of `bench.meters`, as far as a sensor is found by them."""
    from bench.meters.ina import boards

    keys = ("parts", "models", "total", "covers")
    return {board.name: {key: getattr(board, key) for key in keys} for board in boards()}


def _to_json(found: dict[str, Any]) -> str:
    """One row a line, so that people can read it."""
    rows = {k: ",\n".join(map(json.dumps, v)) for k, v in found.items() if isinstance(v, list)}
    parts = [
        f'"{key}": [\n{rows[key]}\n]' if key in rows else f'"{key}": {json.dumps(value)}'
        for key, value in found.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}"


def _body(source: str, imports: dict[str, set[str]]) -> str:
    """A module without its docstring and imports; those of Python and torch join ``imports``.

    They are names by module; under "" whole modules.
    """
    lines = source.splitlines()
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and node.lineno == 1
        if isinstance(node, ast.Import):
            imports.setdefault("", set()).update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not str(node.module).startswith("bench"):
                names = {f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names}
                imports.setdefault(str(node.module), set()).update(names)
        elif not docstring:
            continue
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = ""
    return "\n".join(lines).strip("\n") + "\n\n"
