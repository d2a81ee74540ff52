"""Which meter measures this machine: the widest that can be read, or every reason against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bench.errors import BenchError, did_you_mean
from bench.meters.base import EnergyMeter
from bench.meters.errors import MeterError, Unavailable
from bench.meters.external import ExternalMeter
from bench.meters.ina import InaMeter
from bench.meters.nvml import NvmlMeter
from bench.meters.rapl import RaplMeter
from bench.meters.zeus_adapter import ZeusMeter

METERS = ("external", "jetson", "nvml", "rapl", "zeus")
"""Names that can be asked for."""


def find_meter(
    only: str | None = None,
    *,
    processor: Literal["cpu", "gpu"] = "cpu",
    gpu: int | str | None = None,
    log: Path | None = None,
    root: Path = Path("/"),
) -> EnergyMeter | Unavailable:
    """The meter of this machine for work on ``processor``.

    In this order: the log of an external meter if one is given (it sees everything, and the user
    asked for it); a Jetson board's own sensors (the whole module); else NVML's counter for work on
    a GPU, or RAPL for work on the CPU. A GPU's work is never measured by RAPL, which does not see
    it, nor the CPU's by NVML. Zeus is used only by its name.

    Parameters
    ----------
    only : one of ``METERS``, which is then tried alone
    gpu : which GPU (see `NvmlMeter`)
    log : an external meter's CSV file (see `ExternalMeter`)
    root : where ``proc`` and ``sys`` lie

    Raises BenchError for an unknown name. A meter that cannot be used is no error: its reason is
    in what is returned.
    """
    makers: dict[str, Callable[[], EnergyMeter]] = {
        "external": lambda: _external(log),
        "jetson": lambda: InaMeter(root),
        "nvml": lambda: NvmlMeter(gpu),
        "rapl": lambda: RaplMeter(root),
        "zeus": ZeusMeter,
    }
    if only is not None and only not in makers:
        raise BenchError(f"unknown energy meter {only!r}: {did_you_mean(only, makers)}")
    order = ["external"] if log is not None else []
    order += ["jetson", "nvml" if processor == "gpu" else "rapl"]
    tried: dict[str, str] = {}
    for name in order if only is None else [only]:
        try:
            return makers[name]()
        except MeterError as error:
            tried[name] = str(error)
            if name == "external":  # the user named it: another meter would be a surprise
                break
    reasons = "; ".join(f"{name}: {reason}" for name, reason in tried.items())
    return Unavailable(f"no energy meter can be used ({reasons})", tried)


def _external(log: Path | None) -> EnergyMeter:
    if log is None:
        raise MeterError("no log is named; give the CSV file that the external meter writes")
    return ExternalMeter(log)
