"""Which numbers a device profile may hold: what no board has is most often in another unit.

The ranges are wide, from a small single-board computer of 2012 to a server's accelerator with
room above, and still narrower than a factor of 1000 around any board in them, so that a value in
pJ, us, MB or GB/s where the unit is J, s, bytes or bytes/s is outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic_core import PydanticCustomError

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
"""YAML 1.1 takes 1e-11, without a point, for text."""


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, bool | str):
        raise PydanticCustomError("float_parsing", "Input should be a valid number")
    return value


Number = Annotated[float, pydantic.BeforeValidator(_number), pydantic.Field(allow_inf_nan=False)]
"""A number as a profile writes it, and neither ``true`` nor words."""


@dataclass(frozen=True)
class Range:
    """What a quantity can be, in its ``unit``; ``others``: units it is often given in instead,
    with how many of ``unit`` make one.
    """

    low: float
    high: float
    unit: str
    others: tuple[tuple[str, float], ...] = ()

    def complaint(self, key: str, value: float) -> str:
        """What is wrong with a value, in one line; empty if nothing is."""
        if self.low <= value <= self.high:
            return ""
        cures = [
            f"if it is in {name}, write {value * factor:.4g}"
            for name, factor in self.others
            if self.low <= value * factor <= self.high
        ]
        unit = f" {self.unit}".rstrip()
        return f"key {key}: {value:g}{unit} is outside {self.low:g} to {self.high:g}{unit}: " + (
            "; ".join(cures) or f"give it in {self.unit or 'plain numbers'}"
        )


_BYTES = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9))
_WATTS = (("mW", 1e-3), ("kW", 1e3))
_JOULES = (("fJ", 1e-15), ("pJ", 1e-12), ("nJ", 1e-9), ("uJ", 1e-6), ("mJ", 1e-3))
RANGES = {
    "flops": Range(1e7, 1e18, "FLOP/s", (("MFLOP/s", 1e6), ("GFLOP/s", 1e9), ("TFLOP/s", 1e12))),
    "bandwidth": Range(1e8, 1e14, "bytes/s", (("MB/s", 1e6), ("GB/s", 1e9), ("TB/s", 1e12))),
    "memory": Range(1e8, 1e13, "bytes", _BYTES),
    "memory_for_applications": Range(5e7, 1e13, "bytes", _BYTES),
    "runtime_memory": Range(5e6, 1e12, "bytes", _BYTES),
    "launch_overhead": Range(1e-8, 5e-3, "s", (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))),
    "power_idle": Range(0.01, 1000.0, "W", _WATTS),
    "power_budget": Range(0.1, 1500.0, "W", _WATTS),
    "energy_per_flop": Range(1e-16, 1e-7, "J", _JOULES),
    "energy_per_byte": Range(1e-13, 5e-8, "J", _JOULES),
    "efficiency": Range(1e-6, math.inf, ""),  # its schema says that no share is above 1
    "resident_memory.stored": Range(1e-6, 1e3, ""),
    "resident_memory.step": Range(1e-6, 1e3, ""),
    "resident_memory.convolution": Range(1e-6, 1e3, ""),
    "resident_memory.added": Range(1e-6, 1e12, "bytes"),
}
"""By key of a profile; each holds for all numbers below its key."""

MICROCONTROLLER = {
    "memory": Range(1e4, 4e6, "bytes", _BYTES),
    "memory_for_applications": Range(1e4, 4e6, "bytes", _BYTES),
    "runtime_memory": Range(100, 1e6, "bytes", _BYTES),
}
"""In the place of those above, for a profile whose ``memory`` is within its range here. A board's
memory in kB would be taken for one: that its other numbers are a board's tells.
"""

SECONDS_OF_A_CALL = Range(1e-10, 1e5, "s", RANGES["launch_overhead"].others)
"""In a curve of measured speeds."""


def out_of_range(content: Mapping[Any, Any]) -> str:
    """The first number in the content of a profile's file that no board has, with the cure.

    Empty if there is none. What is no positive number is left to the profile's own schema.
    """
    memory = content.get("memory")
    size = _positive(memory.get("value")) if isinstance(memory, Mapping) else None
    small = size is not None and not MICROCONTROLLER["memory"].complaint("memory", size)
    return _out_of(RANGES | MICROCONTROLLER if small else RANGES, content)


def _out_of(ranges: Mapping[str, Range], content: Mapping[Any, Any], at: str = "") -> str:
    """As `out_of_range`, below the key ``at``."""
    for key, part in content.items():
        if not isinstance(part, Mapping):
            continue
        path = f"{at}{key}"
        value = _positive(part.get("value"))
        place = re.sub(r"^modes\.[^.]*\.", "", path)
        known = next((r for k, r in ranges.items() if f"{place}.".startswith(f"{k}.")), None)
        if known is not None and value is not None:
            told = known.complaint(path, value)
        else:
            told = _out_of(ranges, part, f"{path}.")
        if told:
            return told
    return ""


def _positive(value: Any) -> float | None:
    """What a profile's schema reads as a positive number, else None."""
    try:
        number = float(_number(value))
    except (PydanticCustomError, TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < math.inf else None
