"""``bench schedule``: sparsity and share of the device for each of several applications."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench import defaults
from bench.cli.options import warn
from bench.errors import BenchError
from bench.io.text_table import aligned

if TYPE_CHECKING:
    from bench.scheduling.problem import Plan, Problem


SolverName = StrEnum("SolverName", "exact genetic greedy uniform ekya recl")
"""How to decide."""


def command(
    apps: Annotated[Path, Option(help="YAML file of the applications.")],
    device: Annotated[str, Option(help="The device that they share.")],
    window: Annotated[float, Option(help="Seconds of the retraining window.")],
    solver: Annotated[SolverName | None, Option(help="Default: exact if fast, or genetic.")] = None,
    min_iterations: Annotated[
        int | None, Option(min=1, help="Of each application. Default: the file's.")
    ] = None,
    seed: Annotated[int, Option(min=0, max=2**31 - 1, help="Of genetic.")] = 0,
    out: Annotated[Path | None, Option(help="For plan.json and Kubernetes manifests.")] = None,
    image: Annotated[str | None, Option(help="Of the manifests. Default: a placeholder.")] = None,
    cpus: Annotated[float, Option(help="Cores of the device, for the manifests.")] = 4.0,
) -> None:
    """Plan which sparsity and which share of a device each application gets for one window.

    Memory: what the device leaves to applications, less the runtime of each one's process.
    """
    from bench.io.atomic_write import require_folder
    from bench.scheduling.application import load_applications
    from bench.scheduling.problem import Problem
    from bench.scheduling.solvers import solve, solve_best

    file = load_applications(apps)
    limit, runtime = _memory(device, len(file.applications))
    least = file.min_iterations if min_iterations is None else min_iterations
    problem = Problem(file.applications, window, limit, least, file.min_share)
    if out is not None:
        if out.is_file():
            raise BenchError(f"--out {out}: is a file; name a folder")
        require_folder(out, f"--out {out}")
    if solver is None:
        plan, why = solve_best(problem, seed)
    else:
        plan, why = solve(problem, solver, seed), ""
    typer.echo(
        f"device {device}: {_size(limit)} for {len(problem)} applications, besides a runtime of "
        f"{_size(runtime)} each; window {window:g} s"
    )
    typer.echo(_table(plan))
    memory = sum(a.memory_bytes for a in plan.assignments)
    share = sum(a.share for a in plan.assignments)
    typer.echo(
        f"mean accuracy {plan.mean_accuracy:.2%} predicted; shares {share:.3f} of 1, memory "
        f"{_size(memory)} of {_size(limit)}"
    )
    if plan.profiling_s:
        typer.echo(f"profiling takes the first {plan.profiling_s:.1f} s of the window")
    if plan.fallback:
        typer.echo(f"{plan.solver} could not profile as it should: {plan.fallback}")
    chosen = f", chosen: {why}" if solver is None else ""
    typer.echo(f"solver {plan.solver}{chosen}; {plan.cpu_s:.3f} s of CPU")
    if out is not None:
        _write(out, problem, plan, device, runtime, cpus, image)


def _memory(device: str, count: int) -> tuple[float, float]:
    """Bytes that are left to all applications together, and of the runtime of each."""
    from bench.costs.device_profile import ModelledDevice, load_device

    profile = load_device(device)
    if not isinstance(profile, ModelledDevice):
        raise BenchError(
            f"--device {device}: its profile states no memory; name a modelled device, "
            f"as {defaults.DEVICE} ('bench list devices')"
        )
    all_, runtime = profile.memory_for_applications.value, profile.runtime_memory.value
    if all_ <= count * runtime:
        raise BenchError(
            f"memory: the runtimes of {count} applications, {_size(runtime)} each, fill the "
            f"{_size(all_)} of device {device}; take fewer applications or a larger device"
        )
    return all_ - count * runtime, runtime


def _write(
    out: Path,
    problem: Problem,
    plan: Plan,
    device: str,
    runtime: float,
    cpus: float,
    image: str | None,
) -> None:
    """The manifests, then the plan: where it stands, all of them do."""
    import json

    from bench.io.atomic_write import write_atomically
    from bench.scheduling.manifests import DEFAULT_IMAGE, manifests, to_yaml

    image = DEFAULT_IMAGE if image is None else image
    jobs = manifests(plan, problem.window_s, runtime_bytes=runtime, cpus=cpus, image=image)
    content = {
        "device": device,
        "window_s": problem.window_s,
        "memory_bytes": problem.memory_bytes,
        "runtime_bytes": runtime,
        "min_iterations": problem.min_iterations,
        "min_share": problem.min_share,
        **plan.model_dump(mode="json"),
    }
    files = {f"{name}.yaml": to_yaml(job) for name, job in jobs.items()}
    files["plan.json"] = json.dumps(content, indent=2) + "\n"
    others = sorted(p.name for p in out.glob("*.yaml") if p.name not in files)
    for name, text in files.items():
        try:
            write_atomically(out / name, text.encode())
        except OSError as error:
            raise BenchError(
                f"--out {out}: {name} cannot be written: {error.strerror}; name another folder"
            ) from error
    typer.echo(f"wrote plan.json and {len(jobs)} manifests to {out}")
    if others:
        warn(
            f"--out {out} also holds {', '.join(others)}, which this plan does not name; 'kubectl "
            "apply' of the folder would start them too"
        )


def _table(plan: Plan) -> str:
    rows = [["application", "sparsity", "share", "iterations", "memory", "accuracy"]]
    for a in plan.assignments:
        numbers = [f"{a.sparsity:g}", f"{a.share:.3f}", str(a.iterations), _size(a.memory_bytes)]
        rows.append([a.name, *numbers, f"{a.accuracy:.1%}"])
    return aligned(rows, left=1, indent="  ")


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
