"""Which meter measures this machine: the one that was asked for, or the widest that can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bench.errors import BenchError, did_you_mean
from bench.meters.base import EnergyMeter, MeterError, Unavailable
from bench.meters.external import ExternalMeter
from bench.meters.ina import InaMeter
from bench.meters.nvml import NvmlMeter
from bench.meters.rapl import RaplMeter
from bench.meters.zeus_adapter import ZeusMeter

AUTO = "auto"
LOG = "csv:"
"""What a meter's name begins with that is an external meter's log: ``csv:FILE``."""


def find_meter(
    name: str = AUTO, *, processor: Literal["cpu", "gpu"] = "cpu", root: Path = Path("/")
) -> EnergyMeter | Unavailable:
    """The meter of this machine, by name: ``rapl``, ``nvml``, ``ina``, ``csv:FILE`` or ``zeus``.

    ``auto`` takes the first that can be read: a Jetson board's own sensors (``ina``, the whole
    module), then NVML's counter for work on a GPU, or RAPL for work on the CPU; neither covers the
    other's work. ``csv:FILE`` is the log of an external meter (see `ExternalMeter`). ``proc`` and
    ``sys`` lie under ``root``.

    Raises BenchError for an unknown name. If a meter cannot be used, the reason is returned.
    """
    makers: dict[str, Callable[[], EnergyMeter]] = {
        "ina": lambda: InaMeter(root),
        "nvml": NvmlMeter,
        "rapl": lambda: RaplMeter(root),
        "zeus": ZeusMeter,
    }
    if name.startswith(LOG):
        makers[name] = lambda: ExternalMeter(Path(name.removeprefix(LOG)))
    elif name != AUTO and name not in makers:
        raise BenchError(
            f"unknown energy meter {name!r}: {did_you_mean(name, [AUTO, *makers, f'{LOG}FILE'])}"
        )
    by_processor = ["ina", "nvml" if processor == "gpu" else "rapl"]
    tried: dict[str, str] = {}
    for each in by_processor if name == AUTO else [name]:
        try:
            return makers[each]()
        except MeterError as error:
            tried[each] = str(error)
    reasons = "; ".join(f"{each}: {reason}" for each, reason in tried.items())
    return Unavailable(f"no energy meter can be used ({reasons})", tried)


def require_meter(name: str) -> str:
    """The name for `find_meter` in any working folder, if the meter that it names can be used.

    ``auto`` always passes: where it finds no meter, records say why there is no energy. Raises
    BenchError with the cure for an unknown name, and for a named meter that cannot be used.
    """
    if name.startswith(LOG):
        file = name.removeprefix(LOG)
        if not file:
            raise BenchError(f"--meter {name}: names no file; give it as csv:FILE")
        name = f"{LOG}{Path(file).resolve()}"
    found = find_meter(name)
    if name != AUTO and isinstance(found, Unavailable):
        raise BenchError(f"--meter {name}: {found.tried[name]}")
    return name
