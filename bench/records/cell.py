"""A cell: one method on one model, stream, device, protocol and seed; its identity."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import pydantic

from bench.accelerator.choice import Kind
from bench.accelerator.precision import Precision
from bench.io.digest import digest
from bench.io.one_line import one_line

CORE_VERSION = 6
"""Raised when a change to the core changes results, so that old records are not taken for new."""


SettingsOrigin = Literal["default", "given", "tuned", "oracle"]
"""Where a method's settings come from: its own defaults, the suite, or a search (see
`bench.study.tuned_settings`).
"""


class Component(pydantic.BaseModel, extra="forbid", frozen=True, ser_json_inf_nan="constants"):
    """A registered component with its settings and the digest of its code.

    ``config``: all settings, defaults included. ``code``: digest of what the component computes.
    ``files``: digests of the contents of the files and folders that settings name
    (`bench.contracts.settings.LocalPath`), by setting. ``training``: of a model, what differs from
    its class's source training; left out where nothing does.
    """

    name: str
    config: dict[str, Any] = {}
    code: str
    files: dict[str, str] = {}
    training: dict[str, Any] = pydantic.Field({}, exclude_if=lambda given: not given)

    def content(self) -> dict[str, Any]:
        """What results depend on: a file counts with its content and not with its path."""
        content = self.model_dump(mode="json", exclude={"files"})
        content["config"] |= {name: f"sha256:{digest}" for name, digest in self.files.items()}
        return content


def variant_title(variant: Component | None) -> str:
    """A variant as suites write it, such as ``compressed:8``; empty for the full model."""
    return "" if variant is None else f"{variant.name}:{variant.config['ratio']}"


class Cell(pydantic.BaseModel, extra="forbid", frozen=True, ser_json_inf_nan="constants"):
    """Everything that a result depends on, and nothing else.

    ``data``: digest of the data that the stream reads. ``device``: name of the profile, or its
    path; ``device_digest``: of the profile's numbers. ``core``: version of the core's computation.
    ``target_labels``: the method sees labels of an unsupervised stream, as a marked reference.
    ``settings_origin``: where the method's settings come from; tuned settings support another
    claim than equal values that a suite gives. ``variant``: what is made of the model before it is
    deployed; None is the full model. ``accelerator``: where the arithmetic happens, which rounds
    otherwise; ``threads`` of a run on the CPU, whose number changes the order of sums;
    ``precision`` of matrix products; ``source_draw``: which draw of the source model, and of what
    is made of it before the stream, the run uses. They are left out where they are the default, so
    that records from before they were known keep their names. Records from before version 0.2 call
    ``stream`` "scenario" and ``settings_origin`` "settings".
    """

    method: Component
    model: Component
    stream: Component = pydantic.Field(validation_alias=pydantic.AliasChoices("stream", "scenario"))
    data: str
    device: str
    device_digest: str
    protocol: dict[str, Any]
    seed: Annotated[int, pydantic.Field(ge=-(2**63), lt=2**63)]
    target_labels: bool = False
    core: int = CORE_VERSION
    settings_origin: SettingsOrigin = pydantic.Field(
        "default", validation_alias=pydantic.AliasChoices("settings_origin", "settings")
    )
    variant: Component | None = None
    accelerator: Kind = pydantic.Field("cpu", exclude_if=lambda kind: kind == "cpu")
    threads: int = pydantic.Field(1, ge=1, exclude_if=lambda threads: threads == 1)
    precision: Precision = pydantic.Field("float32", exclude_if=lambda given: given == "float32")
    source_draw: int = pydantic.Field(0, ge=0, lt=2**31, exclude_if=lambda draw: draw == 0)

    @pydantic.model_validator(mode="after")
    def _named(self) -> Cell:
        """What titles are made of is there."""
        if self.variant is not None and "ratio" not in self.variant.config:
            raise ValueError("the variant has no setting 'ratio'")
        if not isinstance(self.protocol.get("name", ""), str):
            raise ValueError("the protocol's name is no text")
        return self

    @property
    def model_title(self) -> str:
        """The model's name, with its variant where it is not the full model."""
        return f"{self.model.name} {variant_title(self.variant)}".rstrip()

    @property
    def tuning_key(self) -> str:
        """What a file of tuned settings calls the method on this variant of the model."""
        name = self.method.name
        return name if self.variant is None else f"{name}@{variant_title(self.variant)}"

    @property
    def identity(self) -> str:
        """20 hexadecimal characters that name the cell's record."""
        return digest(self._content())[:20]

    @property
    def training_key(self) -> str:
        """Digest without the device; cells with equal keys can share one training run."""
        content = self._content()
        del content["device"], content["device_digest"]
        return digest(content)[:20]

    @property
    def title(self) -> str:
        """A short name for people, unique in a suite up to settings, on one line."""
        names = f"{self.method.name} · {self.model_title} · {self.device_title}"
        return one_line(f"{names}{self.computed_title}{self.draw_title} · seed {self.seed}")

    @property
    def device_title(self) -> str:
        """The device's name; of a profile given by its path, the file's name and the mode."""
        file = re.fullmatch(r"(.+)\.ya?ml(@[^@]+)?", PurePosixPath(self.device).name)
        return self.device if file is None else "".join(file.groups(""))

    @property
    def computed_title(self) -> str:
        """What to add to a title where a run is not one thread of the CPU, or not in float32."""
        where: list[str] = [] if self.accelerator == "cpu" else [self.accelerator]
        where += [f"{self.threads} threads"] if self.threads > 1 else []
        where += [self.precision] if self.precision != "float32" else []
        return "".join(f" · {part}" for part in where)

    @property
    def draw_title(self) -> str:
        """What to add to a title where the source model is not its first draw."""
        return f" · draw {self.source_draw}" if self.source_draw else ""

    def _content(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        for kind in ("method", "model", "stream", "variant"):
            component: Component | None = getattr(self, kind)
            if component is not None:
                content[kind] = component.content()
        if self.device_title != self.device:
            content["device"] = "file"  # the digest says which; its path differs by machine
        return content


class CellDigests:
    """`Cell.identity` and `Cell.training_key` of many cells, whose content is put together once for
    those that share their components: are made of the same objects, and differ in seed and draw.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Cell, dict[str, Any]]] = {}

    def identity(self, cell: Cell) -> str:
        """As the cell has it."""
        return digest(self._content(cell))[:20]

    def training_key(self, cell: Cell) -> str:
        """As the cell has it."""
        content = self._content(cell)
        del content["device"], content["device_digest"]
        return digest(content)[:20]

    def _content(self, cell: Cell) -> dict[str, Any]:
        own = vars(cell)
        shared = tuple(id(own[n]) if n in _OBJECTS else own[n] for n in own if n not in _OWN)
        if shared not in self._known:
            # The cell is kept too, so that no other object gets the identifier of one of its parts.
            self._known[shared] = cell, cell._content()
        content = self._known[shared][1] | {"seed": cell.seed, "source_draw": cell.source_draw}
        if not cell.source_draw:
            del content["source_draw"]
        return content


_OBJECTS = ("method", "model", "stream", "variant", "protocol")
_OWN = ("seed", "source_draw")
