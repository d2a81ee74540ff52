"""``bench device``: the devices there are, the numbers of one, calibration and its check."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.calibration import commands as calibration
from bench.defaults import DEVICE
from bench.errors import BenchError
from bench.io.text_table import aligned

if TYPE_CHECKING:
    from bench.costs.device_profile import DeviceProfile, ModelledDevice, Quantity

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

UNITS = {
    "flops": "FLOP/s",
    "bandwidth": "B/s",
    "memory": "B",
    "memory_for_applications": "B",
    "runtime_memory": "B",
    "launch_overhead": "s",
    "power_idle": "W",
    "power_budget": "W",
    "energy_per_flop": "J/FLOP",
    "energy_per_byte": "J/B",
    "efficiency": "",
}
"""Unit of each key of a profile; an efficiency is a share."""

PREFIXES = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "µ", -9: "n", -12: "p"}


@app.callback()
def _default(context: typer.Context) -> None:
    """Device profiles: list them, show one's numbers with their sources, check a file."""
    if context.invoked_subcommand is None:
        list_()
        typer.echo("\n'bench device --help' names the commands")


@app.command("list")
def list_() -> None:
    """List the devices and their power modes with the main numbers of each."""
    from bench.costs.device_profile import device_names, load_device

    profiles = {name: load_device(name) for name in device_names()}
    rows = [[name, *_figures(profile), profile.title] for name, profile in profiles.items()]
    typer.echo(aligned([["name", *FIGURES, "title"], *rows]))


@app.command("show")
def show(
    name: Annotated[str, Argument(help=f"As {DEVICE}, {DEVICE}@15w or my.yaml.")],
    sources: Annotated[bool, Option("--sources", help="Each number's source in full.")] = False,
) -> None:
    """Show every number of a device with unit, confidence and source."""
    from bench.costs.device_profile import ModelledDevice, load_device, profile_digest

    profile = load_device(name)
    typer.echo(f"{name}: {profile.title}")
    typer.echo(f"digest {profile_digest(profile)}")
    if not isinstance(profile, ModelledDevice):
        typer.echo("its costs are measured where the benchmark runs: there are no numbers to show")
        return
    modes = profile.mode_names
    if modes:
        others = ", ".join(f"{name}@{mode}" for mode in modes[1:])
        typer.echo(f"power mode {modes[0]}" + (f"; others: {others}" if others else ""))
    if profile.curves is not None:
        typer.echo(
            f"calibrated on {profile.accelerator or 'cpu'} with {profile.threads or 1} threads: "
            f"curves of {len(profile.curves.kinds)} kinds of operators go before the shares; "
            f"dispatch is {profile.dispatch}"
        )
    numbers = list(_numbers(profile))
    kinds = Counter(quantity.confidence for _, _, quantity in numbers)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    typer.echo(f"{len(numbers)} numbers: {counted}")
    if profile.error is not None:
        shares = profile.error.model_dump(exclude={"source"}, exclude_none=True)
        told = ", ".join(f"{name} {100 * value:.3g} %" for name, value in shares.items())
        typer.echo(f"off by in the median: {told} ({profile.error.source})")
    if profile.energy_unavailable:
        typer.echo(f"energy unavailable: {profile.energy_unavailable}")
    typer.echo()
    rows = [["key", "value", "confidence", "" if sources else "source"]]
    for key, unit, quantity in numbers:
        short = "" if sources else textwrap.shorten(quantity.source, 56, placeholder=" ...")
        rows.append([key, _size(quantity.value, unit), quantity.confidence, short])
    head, *lines = aligned(rows).splitlines()
    typer.echo(head)
    for line, (_, _, quantity) in zip(lines, numbers, strict=True):
        typer.echo(line)
        if sources:
            typer.echo(textwrap.indent(textwrap.fill(quantity.source, 90), " " * 6))


@app.command("validate")
def validate(file: Annotated[str, Argument(metavar="FILE", help="A profile, as my.yaml.")]) -> None:
    """Check a profile and its power modes; print the main numbers, or what is wrong."""
    from bench.costs.device_profile import ModelledDevice, load_device

    if Path(file).suffix not in (".yaml", ".yml"):
        raise BenchError(f"device validate {file}: name a .yaml file ('device show' takes names)")
    profile = load_device(file)
    typer.echo(f"ok  {file}: {profile.title}")
    rows = [["", *FIGURES], [file, *_figures(profile)]]
    if isinstance(profile, ModelledDevice):
        variants = map(profile.in_mode, profile.modes)
        rows += [[variant.name, *_figures(variant)] for variant in variants]
    typer.echo(aligned(rows))
    typer.echo(f"next: bench run --device {file}")


app.command("calibrate")(calibration.calibrate)
app.command("probe")(calibration.probe)
app.command("check")(calibration.check)

FIGURES = ("mode", "float32", "bandwidth", "for applications", "idle", "budget")


def _figures(profile: DeviceProfile) -> list[str]:
    """The main numbers of a device, in the order of FIGURES."""
    from bench.costs.device_profile import ModelledDevice

    if not isinstance(profile, ModelledDevice):
        return ["-", *["measured"] * 2, *["-"] * 3]
    keys = ("bandwidth", "memory_for_applications", "power_idle", "power_budget")
    peak = _size(profile.flops["float32"].value, UNITS["flops"])
    sizes = (_size(getattr(profile, key).value, UNITS[key]) for key in keys)
    return [profile.default_mode or "-", peak, *sizes]


def _numbers(profile: ModelledDevice) -> Iterator[tuple[str, str, Quantity]]:
    """Key, unit and quantity of every number, in the order of the file."""
    if profile.resident_memory is not None:
        for part in type(profile.resident_memory).model_fields:
            unit = UNITS["memory"] if part == "added" else ""
            yield f"resident_memory.{part}", unit, getattr(profile.resident_memory, part)
    for key, unit in UNITS.items():
        value = getattr(profile, key)
        if key == "efficiency":
            for part, share in value.items():
                yield f"{key}.{part}.flops", unit, share.flops
                yield f"{key}.{part}.bandwidth", unit, share.bandwidth
        elif isinstance(value, dict):
            yield from ((f"{key}.{part}", unit, inner) for part, inner in value.items())
        else:
            yield key, unit, value


def _size(value: float, unit: str) -> str:
    """A number for people: ``844.8 GFLOP/s``, ``50 µs``, ``0.75``."""
    if not unit:
        return f"{value:g}"
    power = next((power for power in PREFIXES if value >= 10.0**power), min(PREFIXES))
    return f"{value / 10.0**power:.4g} {PREFIXES[power]}{unit}"
