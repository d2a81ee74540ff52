"""Measure this board and write a profile of it, for 'bench device' on another machine."""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from bench.errors import BenchError
from bench.meters.process_memory import (
    held_bytes,
    long_run,
    peak_bytes,
    reset_peak,
    settle,
    trim,
)
from bench.probe.cases import AutogradCall, Operand, Operator, OptimizerStep
from bench.probe.networks import Dispatch, Network, first_training_step, training_step
from bench.probe.profile import (
    MIN_LAUNCH_S,
    Curve,
    Footprint,
    Measurements,
    Power,
    content_of,
    fitted,
    measured,
)
from bench.probe.sensors import find_sensor
from bench.probe.timing import (
    LARGEST,
    MIN_BACKWARD_SHARE,
    POOL_BYTES,
    SHORT_ROUNDS,
    Call,
    Pool,
    Timer,
    cache_bytes,
    measure,
)

TOOL = "bench-probe"
WARM, REPEATS = 3, 7
"""Steps of a network before its peak is taken, and during it."""
FEWEST_NETWORKS = 4
"""Of which memory must be known: it is fitted with as many coefficients."""

Counted = Tuple[str, str, str, float, float, int]
"""A call as runs count it: kind, class, type, operations, bytes, and how many there are."""


def log(text: str) -> None:
    """Progress, a line at a time."""
    print(f"{TOOL}: {text}", file=sys.stderr, flush=True)


def to_case(row: Dict[str, Any]) -> Any:
    """The call of a row of the list."""
    if "optimizer" in row:
        return OptimizerStep(row["optimizer"], row["elements"], row["parameters"])
    operands = tuple(Operand(tuple(shape), *rest) for shape, *rest in row["operands"])
    about = row["backward"], row["dtype"], row["makes"], row["settings"]
    return Operator(row["name"], row["of"], operands, *about)


def usable(rows: Sequence[Dict[str, Any]], pool: Pool, limit: float) -> List[Dict[str, Any]]:
    """The rows that this torch and memory can run; others are logged with the reason."""
    found = []
    for row in rows:
        case = to_case(row)
        try:
            if case.bytes > limit:
                raise MemoryError(f"takes {case.bytes / 1e6:.0f} MB")
            case.calls(pool)[0]()
        except (RuntimeError, NotImplementedError, TypeError, MemoryError) as error:
            log(f"left out: {case.name}: {str(error).splitlines()[0]}")
            continue
        found.append(row)
    return found


def with_large_copy(rows: List[Dict[str, Any]], pool: Pool) -> List[Dict[str, Any]]:
    """The rows and a copy of more than twice the last-level cache, if none is as large."""
    copies = [row for row in rows if row.get("of") == "copy_"]
    largest = max(copies, key=lambda row: row["operands"][0][0][0])
    had, elements = largest["operands"][0][0][0], pool.cache_bytes // 4 + 2**10
    if had >= elements:
        return rows
    elements = min(elements, pool.size // 4)
    kind, of, dtype, flops, size, number = largest["counted"]
    scaled = kind, of, dtype, flops, size * elements / had, number
    operands = [[[elements]] + list(operand[1:]) for operand in largest["operands"]]
    return rows + [dict(largest, name=f"copy_ {elements}", operands=operands, counted=scaled)]


def curves_of(
    rows: Sequence[Dict[str, Any]], timer: Timer, rounds: int, autograd_s: float
) -> Dict[str, Curve]:
    """Time the rows; one speed curve for each kind of operator."""
    said = [time.monotonic()]

    def tell(done: int, of: int) -> None:
        if done == of or time.monotonic() - said[0] > 10:
            said[0] = time.monotonic()
            log(f"operators: {100 * done // of} %")

    found = {}  # type: Dict[str, Curve]
    timed = measure([to_case(row) for row in rows], timer, rounds, tell)
    for (_, seconds), row in zip(timed, rows):
        if row.get("backward", False):
            seconds = max(seconds - autograd_s, MIN_BACKWARD_SHARE * seconds)
        kind, of, dtype, flops, size, number = row["counted"]
        point = (flops, size, seconds / number)
        rounded = tuple(float(f"{value:.4g}") for value in point)  # type: Any
        found.setdefault(kind, Curve(of, {})).points.setdefault(dtype, []).append(rounded)
    for curve in found.values():
        for points in curve.points.values():
            points.sort()
    return dict(sorted(found.items()))


def launch_overhead(found: Measurements) -> float:
    """Seconds of dispatch per operator, less what the operators take alone on a processor.

    The networks are so small that each call takes what the smallest of its kind takes.
    """
    calls = sum(number for counted, _ in found.dispatches for *_, number in counted)
    seconds = sum(taken for _, taken in found.dispatches)
    if found.accelerator == "cpu":
        for counted, _ in found.dispatches:
            seconds -= sum(call[-1] * _shortest(found.curves, *call[:3]) for call in counted)
    return max(seconds / calls, MIN_LAUNCH_S)


def _shortest(curves: Dict[str, Curve], kind: str, of: str, dtype: str) -> float:
    """Of the kind, else of its relatives, which share the name up to a dot, else of its class."""
    parts = kind.split(".")
    groups = [
        [c for k, c in curves.items() if f"{k}.".startswith(".".join(parts[:length]) + ".")]
        for length in range(len(parts), 0, -1)
    ]
    for group in groups + [[c for c in curves.values() if c.of == of]]:
        points = [point for curve in group for point in curve.points.get(dtype, [])]
        if points:
            return min(seconds for _, _, seconds in points)
    return 0.0


def network_memory(row: Sequence[Any], accelerator: str) -> Dict[str, float]:
    """Bytes that the runtime and the steps of one network take, measured in this process."""
    torch.manual_seed(0)
    warm(accelerator)
    runtime = held_bytes(accelerator)
    network = Network(*row)
    module, x = network.build()
    step, _kept = training_step(network, module.to(accelerator), x.to(accelerator))
    for done in range(WARM):
        if done == WARM - 1:  # what was left behind must not count; the pages come back
            settle(accelerator)
        step()
    reset_peak(accelerator)
    for _ in range(REPEATS):
        step()
    return {"runtime": runtime, "resident": peak_bytes(accelerator) - runtime}


def warm(accelerator: str) -> None:
    """Load what a first step loads, and bring the allocator to where it is later."""
    first_training_step(accelerator)
    long_run()
    settle(accelerator)


def footprint_of(rows: Sequence[Dict[str, Any]], accelerator: str, threads: int) -> Footprint:
    """The footprint fitted to steps of the networks, each measured in its own process."""
    runtime, seen = [], []
    for i, row in enumerate(rows):
        name = Network(*row["network"]).name
        log(f"memory {i + 1}/{len(rows)}: {name}")
        asked = json.dumps(row["network"])
        command = [sys.executable, __file__, "--network", asked, "--accelerator", accelerator]
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = dict(os.environ, **dict.fromkeys(names, str(threads)))
        command += ["--threads", str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment)
        if done.returncode:
            log(f"left out: memory of {name}: the process ended with code {done.returncode}")
            continue
        answer = json.loads(done.stdout.decode().splitlines()[-1])
        runtime.append(answer["runtime"])
        seen.append((row["stored"], row["step"], row["convolution"], answer["resident"]))
    if len(seen) < FEWEST_NETWORKS:
        raise BenchError(f"memory of {len(seen)} networks is known, which is too few: see above")
    return fitted(min(runtime), seen)


def power_of(
    options: argparse.Namespace, table: Dict[str, Any], rows: List[Dict[str, Any]], timer: Timer
) -> Optional[Power]:
    """Watts by the board's own sensor: idle, in the largest matrix product, in a large copy."""
    sensor, why = find_sensor(table["boards"], options.rails, Path(options.root))
    if sensor is None:
        log(f"no energy: {why}")
        return None
    largest = partial(max, key=lambda row: row["counted"][3] + row["counted"][4])
    floats = [row for row in rows if row["counted"][2] == "float32"]
    watts = {"idle": 0.0}
    try:
        log(f"power of {sensor.covers}: idle")
        watts["idle"] = sensor.mean_watts(lambda: time.sleep(0.01), options.seconds)
        for name, of in (("arithmetic", "matmul"), ("traffic", "copy_")):
            log(f"power of {sensor.covers}: {name}")
            like = [row for row in floats if of in (row["counted"][1], row.get("of"))]
            calls = to_case(largest(like)).calls(timer.pool)  # type: List[Call]
            turn = iter(range(10**12))

            def work(calls: List[Call] = calls, turn: Any = turn) -> None:
                calls[next(turn) % len(calls)]()
                timer.synchronise()

            watts[name] = sensor.mean_watts(work, options.seconds)
    except (OSError, ValueError) as error:
        log(f"no energy: {error}")
        return None
    idle, arithmetic, traffic = (watts[name] for name in ("idle", "arithmetic", "traffic"))
    if idle <= 0 or min(arithmetic, traffic) <= idle:
        log(f"no energy: {idle:.3g} W idle is not below {arithmetic:.3g} and {traffic:.3g} W busy")
        return None
    source = f"{TOOL}: {sensor.covers}, mean of {options.seconds:g} s"
    above = arithmetic - idle, traffic - idle
    return Power(idle, max(arithmetic, traffic), source, True, above[0], above[1])


def memory_now(accelerator: str) -> Tuple[float, float]:
    """Bytes of the machine or the accelerator, and those free; boards share them."""
    text = Path("/proc/meminfo").read_text()
    known = {line.split(":")[0]: 1024.0 * int(line.split()[1]) for line in text.splitlines()}
    total, free = known["MemTotal"], min(known["MemAvailable"], known["MemTotal"])
    if accelerator == "cpu":
        return total, free
    if hasattr(torch.cuda, "mem_get_info"):
        free_there, all_there = torch.cuda.mem_get_info()
        return float(all_there), float(free_there)
    total_there = float(torch.cuda.get_device_properties(0).total_memory)
    return total_there, min(free, total_there)


def description(options: argparse.Namespace, timer: Timer) -> str:
    """The machine and how it was measured, as a sentence."""
    board = ""
    for file in ("/proc/device-tree/model", "/proc/cpuinfo"):
        for line in Path(file).read_text().strip("\0").splitlines() if Path(file).exists() else ():
            if not board and (file.endswith("model") or line.startswith("model name")):
                board = line.split(":")[-1].strip()
    on = f"{torch.cuda.get_device_name(0)} beside " if options.accelerator != "cpu" else ""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"Measured on {datetime.date.today()} on {on}{board or platform.machine()}, "
        f"{os.cpu_count()} cores, {options.threads} threads used, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.platform()}; load averages {load}; "
        f"{'processor' if options.cpu_time else 'wall'} time, lower quartile of {options.rounds} "
        f"interleaved rounds; each thread had a processor {timer.busy:.0%} of the time"
    )


def profile(options: argparse.Namespace, table: Dict[str, Any]) -> Dict[str, Any]:
    """Measure everything; the content of the profile's file."""
    torch.set_num_threads(options.threads)
    on = options.accelerator
    total, free = memory_now(on)
    footprint = footprint_of(table["networks"], on, options.threads)
    pool = Pool(on, int(min(POOL_BYTES, LARGEST * free)), cache_bytes(on))
    long_run()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if on == "cpu":
        timer = Timer(pool, clock, options.threads, trim=trim)
    else:
        timer = Timer(pool, clock, options.threads, torch.cuda.synchronize)
    few = max(options.rounds, SHORT_ROUNDS)
    with torch.no_grad():
        log(f"operators: trying {len(table['operators'])}")
        rows = with_large_copy(usable(table["operators"], pool, LARGEST * free), pool)
        # On an accelerator autograd's own time overlaps with the kernels.
        autograd_s = measure([AutogradCall()], timer, few)[0][1] if on == "cpu" else 0.0
        found = curves_of(rows, timer, options.rounds, autograd_s)
        dispatches = [
            (row["counted"], measure([Dispatch(*row["dispatch"])], timer, few)[0][1])
            for row in table["dispatches"]
        ]
        power = power_of(options, table, rows, timer)
    made = Measurements(
        found, dispatches, footprint, total, free, on, options.threads,
        str(datetime.date.today()), description(options, timer), pool.cache_bytes,
        table["classes"], TOOL,
    )  # fmt: skip
    content = content_of(options.name, made, power)
    what = "passes of networks too small to compute, for each operator"
    content["launch_overhead"] = measured(launch_overhead(made), made, what)
    return content


def to_text(value: Any, indent: str = "") -> str:
    """YAML of nested mappings; points and texts on one line each."""
    if isinstance(value, dict) and value:
        lines = [f"\n{indent}{json.dumps(k)}:{to_text(v, indent + '  ')}" for k, v in value.items()]
        return "".join(lines)
    if isinstance(value, list):
        return "".join(f"\n{indent}- {_scalar(each)}" for each in value)
    return f" {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6e}"  # a point and a sign, as YAML's numbers need
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return json.dumps(value)


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=TOOL, description=__doc__)
    add = parser.add_argument
    add("--name", default="this-board", help="of the profile, which becomes ./NAME.yaml")
    add("--threads", type=int, default=1, help="to compute with, as runs will")
    add("--accelerator", choices=("cpu", "cuda"), help="by default cuda where torch finds it")
    add("--rounds", type=int, default=5, help="how often every operator is timed")
    add("--cpu-time", action="store_true", help="process time: for a processor in use")
    add("--rails", action="append", default=[], help="power rail to add up; repeatable")
    add("--seconds", type=float, default=20.0, help="of each of three measurements of power")
    add("--root", default="/", help=argparse.SUPPRESS)  # where proc and sys lie, for tests
    add("--network", help=argparse.SUPPRESS)  # what a process of its own measures
    options = parser.parse_args(arguments)
    options.accelerator = options.accelerator or ("cuda" if torch.cuda.is_available() else "cpu")
    return options


def main(arguments: Sequence[str], table: Dict[str, Any]) -> int:
    """The exit code: 0 the profile is written, 2 it cannot be."""
    options = options_of(arguments)
    if options.network:
        torch.set_num_threads(options.threads)
        print(json.dumps(network_memory(json.loads(options.network), options.accelerator)))
        return 0
    path = Path(f"{options.name}.yaml")
    try:
        if path.exists():
            raise BenchError(f"{path} exists: give another --name, or remove it first")
        if options.cpu_time and (options.threads > 1 or options.accelerator != "cpu"):
            raise BenchError("--cpu-time: counts one thread of a processor; give --threads 1")
        content = profile(options, table)
        path.write_text(f"# Written by {TOOL}: points are [operations, bytes, seconds] of a call."
                        f"{to_text(content)}\n")  # fmt: skip
    except (BenchError, OSError) as error:
        log(str(error))
        return 2
    print(f"{path}: copy it to where 'bench' is; there: bench device show {path}")
    return 0
