"""What a scheduler knows of one application: costs and accuracies of its proxy by sparsity."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import ArrayLike, NDArray

from bench.errors import BenchError
from bench.io.safe_yaml import read_yaml
from bench.study.suite import explain

Sparsity = Annotated[float, pydantic.Field(ge=0, lt=1)]
Accuracy = Annotated[float, pydantic.Field(ge=0, le=1)]
Seconds = Annotated[float, pydantic.Field(ge=1e-6)]
Bytes = Annotated[float, pydantic.Field(gt=0)]


class Strict(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Data from outside: checked, and never changed."""


class Probe(Strict):
    """An accuracy that was measured online, on labelled samples of the new domain."""

    sparsity: Sparsity
    accuracy: Accuracy


class Application(Strict):
    """One foundation model with its stream, as its scheduler sees it.

    The tuples have one entry for each level of ``sparsities`` (the share of neurons that the proxy
    leaves out), in its order.

    seconds_per_iteration : of retraining with the whole device
    memory_bytes : while retraining, without the runtime's own share
    accuracy : in [0, 1], expected after enough retraining; from offline validation
    start : in [0, 1], expected before any retraining on the new domain
    half_iterations : iterations after which half of the gain from start to accuracy is reached
    probe : if given, `load_applications` shifts ``start`` by it
    """

    name: str = pydantic.Field(min_length=1, max_length=200)
    sparsities: tuple[Sparsity, ...] = pydantic.Field(min_length=1)
    seconds_per_iteration: tuple[Seconds, ...]
    memory_bytes: tuple[Bytes, ...]
    accuracy: tuple[Accuracy, ...]
    start: tuple[Accuracy, ...]
    half_iterations: float = pydantic.Field(gt=0)
    probe: Probe | None = None

    @pydantic.field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("use printable characters on one line")
        return value

    @pydantic.field_validator("sparsities")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(b <= a for a, b in pairwise(value)):
            raise ValueError("sparsities must rise, each given once")
        return value

    @pydantic.field_validator("seconds_per_iteration", "memory_bytes", "accuracy", "start")
    @classmethod
    def _one_a_level(cls, value: tuple[float, ...], info: Any) -> tuple[float, ...]:
        levels = len(info.data.get("sparsities", value))
        if len(value) != levels:
            raise ValueError(f"give one number for each of the {levels} sparsities")
        return value

    @pydantic.model_validator(mode="after")
    def _probed_on_the_grid(self) -> Application:
        if self.probe is not None and self.probe.sparsity not in self.sparsities:
            raise ValueError(f"probe: its sparsity must be one of {list(self.sparsities)}")
        return self

    def accuracy_after(self, level: int, iterations: ArrayLike) -> NDArray[np.float64]:
        """Predicted accuracies after numbers of iterations, of any shape; same shape.

        ``start + (ceiling - start) * T / (T + half)``: our model, chosen here. It rises steeply,
        then saturates, with one parameter. Where the ceiling is below the start, retraining
        brings nothing and costs nothing: the proxy from before is kept.
        """
        done = np.asarray(iterations, dtype=float)
        start, ceiling = self.start[level], self.accuracy[level]
        return np.asarray(saturating(start, ceiling, self.half_iterations, done))

    def corrected(self, probed_accuracy: float, probed_sparsity: float) -> Application:
        """The application with ``start`` shifted so that it meets a measured accuracy.

        All levels shift by the offset that one of them shows, and stay in [0, 1]. Raises
        BenchError if the sparsity is none of the application's or the accuracy is no share.
        """
        if probed_sparsity not in self.sparsities:
            raise BenchError(
                f"application {self.name!r}: probed at sparsity {probed_sparsity}, which is none "
                f"of its levels; probe one of {', '.join(map(str, self.sparsities))}"
            )
        if not 0 <= probed_accuracy <= 1:
            raise BenchError(
                f"application {self.name!r}: probed accuracy {probed_accuracy}; give it in [0, 1]"
            )
        offset = probed_accuracy - self.start[self.sparsities.index(probed_sparsity)]
        shifted = tuple(min(max(value + offset, 0.0), 1.0) for value in self.start)
        return self.model_copy(update={"start": shifted, "probe": None})


def saturating(start: Any, ceiling: Any, half: Any, iterations: Any) -> Any:
    """The accuracy model of `Application.accuracy_after`; numbers or arrays that broadcast."""
    return start + np.maximum(ceiling - start, 0.0) * (iterations / (iterations + half))


class Applications(Strict):
    """A file of applications that share a device.

    min_iterations : that every application does in each window
    min_share : of the device, that every application gets
    """

    applications: tuple[Application, ...] = pydantic.Field(min_length=1)
    min_iterations: int = pydantic.Field(default=1, ge=1, le=10**9)
    min_share: float = pydantic.Field(default=0.05, gt=0, le=1)

    @pydantic.field_validator("applications")
    @classmethod
    def _named_once(cls, value: tuple[Application, ...]) -> tuple[Application, ...]:
        names = [application.name for application in value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two applications are called {twice[0]!r}")
        return value


def load_applications(path: Path) -> Applications:
    """The applications of a YAML file, each corrected by its probe if it has one.

    Raises BenchError, one line that names the file, the key and the cure.
    """
    content = read_yaml(path, "applications")
    if not isinstance(content, dict):
        keys = ", ".join(Applications.model_fields)
        raise BenchError(f"applications {path}: such a file is a mapping with keys {keys}")
    try:
        file = Applications.model_validate(content)
    except pydantic.ValidationError as error:
        raise BenchError(f"applications {path}: {_explained(error)}") from error
    corrected = tuple(
        a if a.probe is None else a.corrected(a.probe.accuracy, a.probe.sparsity)
        for a in file.applications
    )
    return file.model_copy(update={"applications": corrected})


def _explained(error: pydantic.ValidationError) -> str:
    """As `explain`, without repeating a whole list of applications as the value."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    if isinstance(first.get("input"), (dict, list, tuple)) and first["type"] == "value_error":
        key = ".".join(map(str, first["loc"])) or "(whole)"
        return f"key {key!r}: {first['msg'].removeprefix('Value error, ')}"
    return explain(error, Applications)
