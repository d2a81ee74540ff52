"""``bench fit``: whether methods fit devices, and how many steps a window holds."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench.cli.options import Plugins, method_names
from bench.defaults import DEVICE
from bench.errors import BenchError
from bench.io.text_table import aligned

if TYPE_CHECKING:
    from bench.costs.device_profile import ModelledDevice
    from bench.estimate.fit import Estimate, Request

NOTE = """All modelled: device profile x counted step, from tensors without values, so with random
weights and the methods' default settings. MB: peak of adaptation and prediction with the runtime,
after two domains: live memory, or on a calibrated device what the process takes. Step: one of
adaptation as it is when the optimizer has its state, with what else a batch takes in one pass (a
pseudo-label, say). s/domain: work that a domain takes once besides (fusing weights, estimating
importances). Steps: as many as fit the window beside that work. ~: the method reads values, as to
select samples: counted as if every sample were selected and every condition held."""


def command(
    model: Annotated[str, Option(help="As in 'bench list models'.")],
    batch: Annotated[int, Option(min=1, help="Samples in a batch.")] = 8,
    window: Annotated[float, Option(help="Seconds in which methods may adapt to a domain.")] = 60.0,
    devices: Annotated[
        list[str] | None,
        Option("--device", help=f"As {DEVICE}@10w; repeatable. Default: all but the modes."),
    ] = None,
    methods: Annotated[
        str | None, Option("--methods", "--method", help="As tent,lora. Default: all for the task.")
    ] = None,
    shape: Annotated[str | None, Option(help="Of a sample: 3,224,224, or 128 for a text.")] = None,
    samples: Annotated[
        int | None, Option(min=1, help="Of a domain, up to whole batches. Default: 4 batches.")
    ] = None,
    classes: Annotated[int, Option(min=2, help="Of the task.")] = 10,
    plugins: Plugins = None,
) -> None:
    """Estimate memory, time and energy of methods on devices, without weights and in seconds."""
    from bench import registry
    from bench.estimate.fit import (
        Request,
        default_methods,
        default_shape,
        modelled,
    )

    if not 0 < window < math.inf:
        raise BenchError(f"--window {window:g}: give seconds above 0, as 60")
    for plugin in plugins or []:
        registry.add_plugin(plugin)
    names = default_methods(model) if methods is None else dict.fromkeys(method_names(methods))
    for name in names:
        registry.entry("method", name)
    request = Request(
        model=model,
        methods=tuple(names),
        devices=tuple(dict.fromkeys(devices or _all_devices())),
        shape=default_shape(model) if shape is None else _shape(shape),
        classes=classes,
        batch=batch,
        samples=math.ceil((samples or 4 * batch) / batch) * batch,
        plugins=tuple(str(path) for path in registry.plugins()),
    )
    profiles = {name: modelled(name) for name in request.devices}
    found = list(_watched(request))
    typer.echo(
        f"{model}: batches of {batch} samples of {'x'.join(map(str, request.shape))}, "
        f"{request.samples} samples in a domain, {classes} classes; window {window:g} s"
    )
    counted = [estimate for estimate in found if not estimate.unavailable]
    for name, profile in profiles.items():
        if counted:
            typer.echo(f"\n{name}: {profile.title}")
            rows = [HEADER, *(_row(each, profile, name, window) for each in counted)]
            typer.echo(aligned(rows, left=2, indent="  "))
    if len(counted) < len(found):
        typer.echo("\nunavailable on every device:")
        rows = [[each.method, each.unavailable] for each in found if each.unavailable]
        typer.echo(aligned(rows, indent="  "))
    typer.echo("\n" + textwrap.fill(" ".join(NOTE.split()), 100))


ASSUMES = "~"
HEADER = ["method", "fits", "MB", "of MB", "s/step", "J/step", "s/domain", "steps"]


def _row(estimate: Estimate, device: ModelledDevice, name: str, window_s: float) -> list[str]:
    price = estimate.prices[name]
    needed = price.memory_bytes + device.runtime_memory.value
    given = device.memory_for_applications.value
    # Of a microcontroller, whose memory is below a megabyte, more than whole ones.
    places = 0 if given >= 1e7 else 3
    memory = [f"{size / 1e6:.{places}f}" for size in (needed, given)]
    method = f"{estimate.method} {ASSUMES}" if estimate.assumes else estimate.method
    if needed > given:
        return [method, "no", *memory, *"----"]
    steps, times = price.steps_in(window_s), (price.step_s, price.step_j, price.domain_s or None)
    numbers = ["-" if value is None else f"{value:.3g}" for value in times]
    return [method, "yes", *memory, *numbers, "-" if steps is None else str(steps)]


def _watched(request: Request) -> Iterator[Estimate]:
    """The estimates, with progress on a terminal."""
    from bench.estimate.fit import estimates

    shown = sys.stderr.isatty()
    total = len(request.methods)

    def say(text: str) -> None:
        if shown:
            typer.echo(f"\r\033[K{text}", nl=False, err=True)

    say("building the model without values")
    try:
        for i, estimate in enumerate(estimates(request), 1):
            yield estimate
            say(f"counting: {i} of {total} methods")
    finally:
        say("")


def _all_devices() -> list[str]:
    from bench.costs.device_profile import ModelledDevice, device_names, load_device

    names = [name for name in device_names() if "@" not in name]
    return [name for name in names if isinstance(load_device(name), ModelledDevice)]


def _shape(given: str) -> tuple[int, ...]:
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BenchError(f"--shape {given!r}: give whole numbers above 0, as 3,224,224")
    return tuple(map(int, parts))
