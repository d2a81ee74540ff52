"""Device profiles: what a board can do, number by number with its source."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bench.costs.plausible_numbers import Number, out_of_range
from bench.costs.speed_curves import Curves
from bench.errors import BenchError, did_you_mean, shown
from bench.io.digest import digest
from bench.io.safe_yaml import read_yaml
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.registry.discovery import installed_points

FULL_LOAD = 100.0
"""Times the power budget that arithmetic or memory traffic at their peaks may seem to draw."""

PROFILES = Path(__file__).parent / "profiles"


class _Strict(pydantic.BaseModel, extra="forbid", frozen=True):
    pass


class Quantity(_Strict):
    """A number with where it comes from.

    ``confidence``: ``datasheet`` (the vendor's document), ``published`` (measured in a named
    paper), ``measured`` (on the device itself, by ``bench device calibrate``), ``derived``
    (arithmetic from other numbers), ``estimate`` (a judgement).
    """

    value: Number = pydantic.Field(gt=0)
    source: str = pydantic.Field(min_length=10)
    confidence: Literal["datasheet", "published", "measured", "derived", "estimate"]


class Share(Quantity):
    """A part of a peak rate, above 0 and at most 1."""

    value: Number = pydantic.Field(gt=0, le=1)


class Efficiency(_Strict):
    """Shares of peak arithmetic and of peak bandwidth that a class of operators reaches."""

    flops: Share
    bandwidth: Share


class Resident(_Strict):
    """What a process holds at its peak, above ``runtime_memory``: allocators keep slack.

    ``stored`` x live memory when the step begins + ``step`` x what the step adds to it
    + ``convolution`` x the bytes of its largest convolution, for scratch space + ``added`` bytes.
    """

    stored: Quantity
    step: Quantity
    convolution: Quantity
    added: Quantity


class ModelError(_Strict):
    """How far modelled costs were off where they could be measured.

    ``time``, ``memory`` (of the process), ``energy``: absolute errors as shares of what was
    measured, in the median; None where they are not known. ``source``: of what, where and when, as
    ``bench device check --state-error`` writes it.
    """

    time: Number | None = pydantic.Field(None, ge=0)
    memory: Number | None = pydantic.Field(None, ge=0)
    energy: Number | None = pydantic.Field(None, ge=0)
    source: str = pydantic.Field(min_length=10)

    @pydantic.model_validator(mode="after")
    def _some(self) -> ModelError:
        if self.time is None and self.memory is None and self.energy is None:
            raise ValueError("error: give time, memory or energy, or leave the key out")
        return self


class Mode(_Strict):
    """What a power mode of a device changes; the rest stays as in the default mode.

    Units are those of ModelledDevice. ``flops``, ``energy_per_flop`` and ``efficiency`` need
    name only the types and classes that change.
    """

    title: str
    flops: dict[str, Quantity] | None = None
    bandwidth: Quantity | None = None
    memory_for_applications: Quantity | None = None
    runtime_memory: Quantity | None = None
    launch_overhead: Quantity | None = None
    power_idle: Quantity | None = None
    power_budget: Quantity | None = None
    energy_per_flop: dict[str, Quantity] | None = None
    energy_per_byte: Quantity | None = None
    efficiency: dict[str, Efficiency] | None = None


ModeName = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]


class ModelledDevice(_Strict):
    """A board whose costs follow from counted steps and these numbers.

    Units: FLOP/s, bytes/s, bytes, seconds, watts, joules per operation and per byte.
    The numbers are those of ``default_mode``; ``modes`` holds what each other one changes.

    A calibrated device has more: ``curves`` of measured speeds, which take the place of the
    shares in ``efficiency``; ``resident_memory``; the ``accelerator`` and ``threads`` with which
    they hold; and ``dispatch``: whether an operator's ``launch_overhead`` is ``overlapped`` with
    the work of the device, as on an accelerator, or ``added``, as on a processor that does both.

    ``error``: how far the costs are off in the default mode, if somebody measured it.

    ``energy_unavailable``: why the watts say nothing about the device, if they do not; runs then
    record no energy.
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
    default_mode: ModeName | None = None
    modes: dict[ModeName, Mode] = {}
    dispatch: Literal["overlapped", "added"] = "overlapped"
    accelerator: Literal["cpu", "cuda"] | None = None
    threads: int | None = pydantic.Field(None, ge=1, le=100_000, strict=True)
    resident_memory: Resident | None = None
    curves: Curves | None = None
    energy_unavailable: str = ""
    error: ModelError | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> ModelledDevice:
        missing = set(OPERATOR_CLASSES) ^ set(self.efficiency)
        if missing:
            raise ValueError(f"efficiency must name exactly these classes: {OPERATOR_CLASSES}")
        for key in ("flops", "energy_per_flop"):
            if "float32" not in getattr(self, key):
                raise ValueError(f"{key} needs float32")
        for kind, curve in ({} if self.curves is None else self.curves.kinds).items():
            if curve.of not in OPERATOR_CLASSES:
                raise ValueError(
                    f"curves.kinds.{kind}.of: {curve.of!r} is no class of operators: "
                    f"{did_you_mean(curve.of, OPERATOR_CLASSES)}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _possible(self) -> ModelledDevice:
        """No board has less than it gives away."""
        for less, more in (
            ("memory_for_applications", "memory"),
            ("runtime_memory", "memory_for_applications"),
            ("power_idle", "power_budget"),
        ):
            low, high = getattr(self, less).value, getattr(self, more).value
            if low > high or (low == high and more != "memory"):
                raise ValueError(f"{less} {low:g} is not below {more} {high:g}: correct one")
        return self

    @pydantic.model_validator(mode="after")
    def _sound_modes(self) -> ModelledDevice:
        if self.modes and self.default_mode is None:
            raise ValueError("default_mode is missing: name the mode that the numbers describe")
        if self.default_mode in self.modes:
            raise ValueError(
                f"modes.{self.default_mode} is the default_mode, whose numbers stand above: "
                "remove it or rename one"
            )
        for name, mode in self.modes.items():
            if self.curves is not None:
                raise ValueError(
                    f"modes.{name}: curves were measured in one mode and say nothing of others: "
                    "calibrate each mode into a file of its own"
                )
            for key in ("flops", "energy_per_flop"):
                for dtype in set(getattr(mode, key) or ()) - set(getattr(self, key)):
                    raise ValueError(
                        f"modes.{name}.{key}.{dtype}: the device has no such type: "
                        f"{did_you_mean(dtype, getattr(self, key))}"
                    )
            try:
                self._changed(mode, self.name)
            except pydantic.ValidationError as error:
                raise ValueError(f"modes.{name}: {_complaint(error)}") from error
        return self

    @property
    def mode_names(self) -> list[str]:
        """The power modes, the default one first; empty for a device that has none."""
        return [] if self.default_mode is None else [self.default_mode, *self.modes]

    def in_mode(self, mode: str, name: str | None = None) -> ModelledDevice:
        """The device in one of its power modes, called ``name`` (default: ``device@mode``).

        Raises BenchError with the known modes if ``mode`` is none of them.
        """
        called = name or f"{self.name}@{mode}"
        if mode == self.default_mode:
            return self.model_copy(update={"name": called, "modes": {}})
        if mode not in self.modes:
            raise _unknown_mode(self.name, mode, self.mode_names)
        return self._changed(self.modes[mode], called).model_copy(update={"default_mode": mode})

    def _changed(self, mode: Mode, name: str) -> ModelledDevice:
        values = self.model_dump(exclude={"modes", "default_mode", "error"})
        changed = _merged(values, mode.model_dump(exclude_none=True))
        return ModelledDevice.model_validate({**changed, "name": name})


class MeasuredDevice(_Strict):
    """The machine that runs the benchmark: time and memory are measured, not modelled."""

    name: str
    title: str
    cost: Literal["measured"]


DeviceProfile = ModelledDevice | MeasuredDevice


def device_names() -> list[str]:
    """Names that can be given to ``--device``: each profile, then its further power modes.

    The default mode is the profile itself; ``name@mode`` of it is accepted, and left out here.
    Raises BenchError if an installed profile is not valid.
    """
    names = []
    for name, file in sorted(_files().items()):
        profile = _read(file)
        names.append(name)
        if isinstance(profile, ModelledDevice):
            names += [f"{name}@{mode}" for mode in profile.modes]
    return names


def load_device(name: str) -> DeviceProfile:
    """A profile by name, or from a ``.yaml`` file given by its path; ``@mode`` may follow.

    Raises BenchError if there is none, if the file is not a valid profile, or if it has no
    such power mode.
    """
    known = _files()
    whole = name in known or _is_path(name)
    base, _, mode = (name, "", "") if whole else name.rpartition("@")
    profile: DeviceProfile
    if _is_path(base):
        # Cells and devices know a device by what the user called it.
        profile = _read(Path(base)).model_copy(update={"name": base})
    elif base in known:
        profile = _read(known[base])
    else:
        raise BenchError(
            f"unknown device {name!r}: {did_you_mean(base or name, known)} "
            "(or give the path of a profile's .yaml file)"
        )
    if whole:
        return profile
    if not isinstance(profile, ModelledDevice):
        raise _unknown_mode(base, mode, [])
    return profile.in_mode(mode, name)


def absolute_name(name: str) -> str:
    """A device's name for use in another folder: that of a file by its path becomes absolute."""
    base, at, mode = (name, "", "") if _is_path(name) else name.rpartition("@")
    if not _is_path(base):
        return name
    return Path(base).resolve().as_posix() + at + mode


def profile_digest(profile: DeviceProfile) -> str:
    """Digest of a profile's numbers; names, titles, sources, other modes and the stated error may
    change freely.
    """
    values = profile.model_dump(exclude={"name", "title", "default_mode", "modes", "error"})
    if isinstance(profile, ModelledDevice):
        for key in _OPTIONAL:  # a device that has none keeps the digest it always had
            if values[key] == ModelledDevice.model_fields[key].default:
                del values[key]
        if profile.curves is not None:
            values["curves"] = values["curves"]["kinds"]
        if profile.energy_unavailable:  # that it is unknown counts, not the words
            values["energy_unavailable"] = True
    return digest(_numbers_only(values))


_OPTIONAL = (
    "dispatch", "accelerator", "threads", "resident_memory", "curves", "energy_unavailable",
)  # fmt: skip


def _numbers_only(value: object) -> object:
    if isinstance(value, dict):
        if set(value) == {"value", "source", "confidence"}:
            return value["value"]
        return {k: _numbers_only(v) for k, v in value.items()}
    return value


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with what ``changes`` names put in its place, at any depth."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        deeper = isinstance(old, dict) and isinstance(change, dict)
        merged[key] = _merged(old or {}, change) if deeper else change
    return merged


def _unknown_mode(device: str, mode: str, known: list[str]) -> BenchError:
    if not known:
        return BenchError(f"device {device!r} has no power modes: leave '@{mode}' out")
    listed = did_you_mean(mode, known)
    if not listed.startswith("known:"):
        listed += f" (known: {', '.join(known)})"
    return BenchError(f"unknown power mode {mode!r} of device {device!r}: {listed}")


def _is_path(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


@cache
def _files() -> dict[str, Path]:
    from importlib.util import find_spec

    folders = [PROFILES]
    for point in installed_points().select(group="bench.devices"):
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
    if not isinstance(content, dict):
        raise BenchError(f"device profile {path}: is no mapping; start it with 'name: ...'")
    try:
        profile = _SCHEMA.validate_python(content)
    except pydantic.ValidationError as error:
        # A number in another unit is the likely cause of one that contradicts others.
        contradicts = error.errors()[0]["type"] == "value_error"
        told = out_of_range(content) if contradicts else ""
        raise BenchError(f"device profile {path}: {told or _complaint(error)}") from error
    if told := out_of_range(content):
        raise BenchError(f"device profile {path}: {told}")
    if isinstance(profile, ModelledDevice):
        for mode in profile.mode_names or [""]:
            if told := _inconsistent(profile.in_mode(mode) if mode else profile):
                where = "" if mode in ("", profile.default_mode) else f"modes.{mode}: "
                raise BenchError(f"device profile {path}: {where}{told}")
    return profile


def _inconsistent(device: ModelledDevice) -> str:
    """Whether energies and rates fit the power budget, as far as a unit could be wrong."""
    budget = device.power_budget.value
    full_load = {
        f"energy_per_flop.{dtype}": (device.flops.get(dtype, device.flops["float32"]), energy)
        for dtype, energy in device.energy_per_flop.items()
    } | {"energy_per_byte": (device.bandwidth, device.energy_per_byte)}
    for key, (rate, energy) in full_load.items():
        watts = rate.value * energy.value
        if watts > FULL_LOAD * budget:
            return (
                f"key {key}: {energy.value:g} J, {rate.value:g} times a second, would draw "
                f"{watts:.3g} W, and power_budget is {budget:g} W: check their units"
            )
    return "" if device.curves is None else device.curves.implausible()


_SCHEMA: pydantic.TypeAdapter[DeviceProfile] = pydantic.TypeAdapter(
    Annotated[DeviceProfile, pydantic.Field(discriminator="cost")]
)


def _keys_beside(path: list[str]) -> list[str]:
    """The keys that may stand where the last one of ``path`` does."""
    schema = ModelledDevice.model_json_schema()
    place: dict[str, Any] = schema
    for key in path[:-1]:
        place = place.get("properties", {}).get(key) or place.get("additionalProperties", {})
        for choice in place.get("anyOf", [place]):  # a part that may be left out
            if choice.get("type") != "null":
                place = choice
        if "$ref" in place:
            place = schema["$defs"][place["$ref"].rpartition("/")[2]]
    return list(place.get("properties", {}))


def _complaint(error: pydantic.ValidationError) -> str:
    """The first error of a profile: its key, its value and the cure."""
    first = error.errors(include_url=False)[0]
    # A validated union puts its tag before the key.
    path = [str(p) for p in first["loc"] if p != "[key]"]
    if path and path[0] in ("modelled", "measured"):
        path = path[1:]
    where, kind = ".".join(path), first["type"]
    if kind == "value_error":
        return str(first["ctx"]["error"])
    if kind.startswith("union_tag"):
        given = f": {first['input']['cost']!r}" if "cost" in first["input"] else " is missing"
        return f"key cost{given}: write 'modelled' for a board with numbers"
    if kind == "missing":
        return f"key {where} is missing: add it"
    if kind == "extra_forbidden":
        return f"key {where} is unknown: {did_you_mean(path[-1], _keys_beside(path))}"
    given = "" if isinstance(first["input"], dict | list) else f": {shown(first['input'])}"
    if kind == "string_pattern_mismatch":
        return f"key {where}{given}: name a mode with small letters, numbers and dashes, as 15w"
    return f"key {where}{given}: {first['msg']}"
