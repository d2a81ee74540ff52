"""Device profiles: what a board can do, number by number with its source."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import pydantic

from bench.digest import digest
from bench.errors import BenchError, did_you_mean
from bench.yaml_file import read_yaml

OPERATOR_CLASSES = (
    "matmul",
    "attention",
    "convolution",
    "normalisation",
    "elementwise",
    "reduction",
    "copy",
    "optimiser",
)
"""Classes of operators that reach different shares of a device's peak rates."""

PROFILES = Path(__file__).parent / "profiles"


class _Strict(pydantic.BaseModel, extra="forbid", frozen=True):
    pass


class Quantity(_Strict):
    """A number with where it comes from.

    ``confidence``: ``datasheet`` (the vendor's document), ``published`` (measured in a named
    paper), ``derived`` (arithmetic from other numbers), ``estimate`` (a judgement).
    """

    value: float = pydantic.Field(gt=0, allow_inf_nan=False)
    source: str = pydantic.Field(min_length=10)
    confidence: Literal["datasheet", "published", "derived", "estimate"]


class Efficiency(_Strict):
    """Shares of peak arithmetic and of peak bandwidth that a class of operators reaches."""

    flops: Quantity
    bandwidth: Quantity


class ModelledDevice(_Strict):
    """A board whose costs follow from counted steps and these numbers.

    Units: FLOP/s, bytes/s, bytes, seconds, watts, joules per operation and per byte.
    """

    name: str
    title: str
    cost: Literal["modelled"]
    flops: dict[str, Quantity]
    bandwidth: Quantity
    memory: Quantity
    memory_for_applications: Quantity
    runtime_memory: Quantity
    launch_overhead: Quantity
    power_idle: Quantity
    power_budget: Quantity
    energy_per_flop: dict[str, Quantity]
    energy_per_byte: Quantity
    efficiency: dict[str, Efficiency]

    @pydantic.model_validator(mode="after")
    def _complete(self) -> ModelledDevice:
        missing = set(OPERATOR_CLASSES) ^ set(self.efficiency)
        if missing:
            raise ValueError(f"efficiency must name exactly these classes: {OPERATOR_CLASSES}")
        for key in ("flops", "energy_per_flop"):
            if "float32" not in getattr(self, key):
                raise ValueError(f"{key} needs float32")
        return self


class MeasuredDevice(_Strict):
    """The machine that runs the benchmark: time and memory are measured, not modelled."""

    name: str
    title: str
    cost: Literal["measured"]


DeviceProfile = ModelledDevice | MeasuredDevice


def device_names() -> list[str]:
    """Names of the profiles that can be given to ``--device``."""
    return sorted(_files())


def load_device(name: str) -> DeviceProfile:
    """A profile by name, or from a ``.yaml`` file given by its path.

    Raises BenchError if there is none, or if the file is not a valid profile.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        # Cells and bills know a device by what the user called it.
        return _read(path).model_copy(update={"name": name})
    known = _files()
    if name not in known:
        raise BenchError(
            f"unknown device {name!r}: {did_you_mean(name, known)} "
            "(or give the path of a profile's .yaml file)"
        )
    return _read(known[name])


def profile_digest(profile: DeviceProfile) -> str:
    """Digest of a profile's numbers; names, titles and sources may change freely."""
    values = profile.model_dump(exclude={"name", "title"})
    return digest(_numbers_only(values))


def _numbers_only(value: object) -> object:
    if isinstance(value, dict):
        if set(value) == {"value", "source", "confidence"}:
            return value["value"]
        return {k: _numbers_only(v) for k, v in value.items()}
    return value


@cache
def _files() -> dict[str, Path]:
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    folders = [PROFILES]
    for point in entry_points(group="bench.devices"):
        spec = find_spec(point.value)
        if spec is None or not spec.submodule_search_locations:
            raise BenchError(
                f"entry point {point.name!r} of group 'bench.devices' must name a package folder "
                f"that holds profiles; {point.value!r} is none"
            )
        folders.extend(Path(p) for p in spec.submodule_search_locations)
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def _read(path: Path) -> DeviceProfile:
    content = read_yaml(path, "device profile")
    try:
        return pydantic.TypeAdapter(DeviceProfile).validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BenchError(f"device profile {path}: key {where}: {first['msg']}") from error
