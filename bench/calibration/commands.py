"""``bench device calibrate`` and ``check``: a profile of this machine, and its error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.errors import BenchError
from bench.io.warn import warn

if TYPE_CHECKING:
    from bench.probe.profile import Power

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a calibrated profile may be called."""

Force = Annotated[bool, Option("--force", help="Measure although others are at work.")]
CpuTime = Annotated[bool, Option("--cpu-time", help="Process time: for a machine in use.")]


def calibrate(
    name: Annotated[
        str, Option(help="Of the profile, which becomes ./NAME.yaml.")
    ] = "this-machine",
    threads: Annotated[int, Option(help="Threads to compute with, as runs will.")] = 1,
    accelerator: Annotated[str, Option(help="cpu, cuda, or auto: cuda if there is one.")] = "auto",
    rounds: Annotated[int, Option(min=1, help="How often every operator is timed.")] = 5,
    quick: Annotated[bool, Option("--quick", help="Few small sizes: rough, in a minute.")] = False,
    idle_watts: Annotated[
        float | None, Option(min=0.001, help="Power of the idle machine, if you know it.")
    ] = None,
    busy_watts: Annotated[
        float | None, Option(min=0.001, help="Power while it computes; with --idle-watts.")
    ] = None,
    cpu_time: CpuTime = False,
    force: Force = False,
) -> None:
    """Measure this machine and write a profile of it."""
    path = _new_profile(name)
    power = _power(idle_watts, busy_watts)
    from bench.calibration import host as machine

    on = machine.accelerator(accelerator)
    machine.require_threads(threads, "give --threads from 1 to that")
    _ready(on, threads, cpu_time, force)
    from bench.calibration.calibrate import Settings, calibrated, to_yaml
    from bench.costs.device_profile import load_device

    content = calibrated(Settings(name, threads, on, rounds, quick, cpu_time, power), _log)
    try:
        path.write_text(to_yaml(content), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}; run it in another folder") from error
    load_device(str(path))
    peak, launch = content["flops"]["float32"]["value"], content["launch_overhead"]["value"]
    resident = {part: each["value"] for part, each in content["resident_memory"].items()}
    typer.echo(
        f"{path}: {peak / 1e9:.4g} GFLOP/s, {content['bandwidth']['value'] / 1e9:.4g} GB/s, "
        f"dispatch {launch * 1e6:.3g} µs, {len(content['curves']['kinds'])} kinds of operators\n"
        f"resident memory: {resident['stored']:.3g} x stored + {resident['step']:.3g} x step + "
        f"{resident['convolution']:.3g} x convolution + {resident['added'] / 1e6:.1f} MB\n"
        f"next: bench device check {name}"
    )


def check(
    context: typer.Context,
    name: Annotated[str, Argument(help="As this-machine or my.yaml.")],
    models: Annotated[str | None, Option(help="Only these models, as a,b.")] = None,
    methods: Annotated[str | None, Option(help="Only these methods, as a,b.")] = None,
    batch: Annotated[int, Option(min=2, help="Samples in a batch.")] = 8,
    repeats: Annotated[int, Option(min=1, help="Steps to measure of each case.")] = 7,
    save: Annotated[Path | None, Option(help="JSON file for errors and measurements.")] = None,
    earlier: Annotated[
        Path | None,
        Option(
            "--from",
            help="Measure nothing: compare with what --save has kept; --models and --methods "
            "choose among its cases.",
        ),
    ] = None,
    state_error: Annotated[
        bool,
        Option(
            "--state-error",
            help="Write the median errors into the profile's file: runs "
            "record them, and tables say them.",
        ),
    ] = False,
    cpu_time: CpuTime = False,
    force: Force = False,
) -> None:
    """Predict adaptation steps with a profile, measure them, and print both with the errors.

    The exit code is 1 if an error is above its bar or a case fails.
    """
    from functools import partial
    from itertools import product

    from bench.calibration import host as machine
    from bench.calibration import validate as checks
    from bench.calibration.measure_case import measure_fresh
    from bench.calibration.reference_workloads import METHODS, MODELS, chosen
    from bench.calibration.stated_error import file_of
    from bench.calibration.stated_error import state_error as state

    if earlier is not None:
        for parameter in ("batch", "repeats", "cpu_time", "force"):
            source = context.get_parameter_source(parameter)
            if source is not None and source.name != "DEFAULT":
                option = parameter.replace("_", "-")
                raise BenchError(f"--{option}: nothing is measured with --from; leave one out")
    device = checks.find_device(name)
    if state_error:
        _require_writable(file_of(device), "--state-error", "free it for writing")
    if save is not None:
        _require_writable(save, f"--save {save}", "name another file")
    if earlier is not None:
        results = checks.read_check(earlier)
        checks.require_same(earlier, results, device)
        results = results.only(models, methods)
    else:
        named = (chosen(models, list(MODELS), "models"), chosen(methods, list(METHODS), "methods"))
        threads = device.threads or 1
        on = machine.accelerator(device.accelerator or "auto")
        machine.require_threads(threads, f"calibrate {name} with as many, or check it elsewhere")
        _ready(on, threads, cpu_time, force)
        clock = "cpu" if cpu_time else "wall"
        settings = {"batch": batch, "repeats": repeats, "accelerator": on, "clock": clock}
        run = partial(measure_fresh, threads=threads)
        facts = machine.facts(on, threads)
        results = checks.measure(list(product(*named)), settings, facts, run, _log)
    report = checks.report(results, device)
    typer.echo(report)
    if save is not None:
        checks.write_check(save, report, device)
    if state_error:
        typer.echo(f"{state(report, device)} states these errors; runs record them from now on")
    if not report.met:
        raise typer.Exit(1)


def probe(
    output: Annotated[Path, Option(help="The file to write.")] = Path("bench-probe.py"),
) -> None:
    """Write bench-probe.py: for boards with Python 3.6 and torch 1.8, where this cannot run."""
    from bench.calibration.probe_file import probe_text

    text = probe_text(_log)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--output {output}: {error.strerror}; name another file") from error
    typer.echo(f"{output}: copy it to the board; there: python3 {output.name} --name my-board")


def _log(text: str) -> None:
    typer.echo(f"bench: {text}", err=True)


def _ready(accelerator: str, threads: int, cpu_time: bool, force: bool) -> None:
    """Raise BenchError if the machine cannot be measured in this way, or not now."""
    from bench.calibration import host as machine

    if cpu_time and threads > 1:
        raise BenchError(f"--cpu-time: counts one thread, not {threads}; leave it out")
    if cpu_time and accelerator != "cpu":
        raise BenchError(f"--cpu-time: counts a processor's time, not that of {accelerator}")
    warnings = [machine.require_idle(machine.others_at_work(), force or cpu_time)]
    if accelerator != "cpu":
        warnings.append(machine.require_idle_accelerator(force))
    for warning in filter(None, warnings):
        warn(warning)


def _require_writable(path: Path, what: str, cure: str) -> None:
    """Raise BenchError with the cure if a file cannot be written there; creates none."""
    there = path.exists()
    try:
        with path.open("a"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise BenchError(f"{what}: {error.strerror}; {cure}") from error


def _new_profile(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise BenchError(f"--name {name!r}: use small letters, numbers and dashes, as my-board")
    path = Path(f"{name}.yaml")
    if path.exists():
        raise BenchError(f"{path} exists: give another --name, or remove it first")
    _require_writable(path, str(path.absolute()), "run it in another folder")
    return path


def _power(idle: float | None, busy: float | None) -> Power | None:
    from bench.probe.profile import Power

    if idle is None and busy is None:
        return None
    if idle is None or busy is None:
        raise BenchError("--idle-watts and --busy-watts: give both or neither")
    if idle >= busy:
        raise BenchError(f"--idle-watts {idle:g} is not below --busy-watts {busy:g}: correct one")
    return Power(idle, busy, "Given by the user of 'bench device calibrate'")
