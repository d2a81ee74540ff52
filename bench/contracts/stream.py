"""The contract of a stream: a source and an ordered stream of target domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pydantic
from torch import Tensor

from bench.contracts.data import Inputs, batch_length
from bench.errors import BenchError


@dataclass(frozen=True)
class Split:
    """Inputs of n samples and their labels, a tensor as the task has them, samples first."""

    x: Inputs
    y: Tensor

    def __post_init__(self) -> None:
        if batch_length(self.x) != len(self.y):
            raise BenchError(f"split has {batch_length(self.x)} inputs and {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Domain:
    """One domain with its two disjoint splits; only the protocol and its evaluator hold it.

    Attributes
    ----------
    name : unique in the stream
    adaptation : what a method may adapt on (for the source: what the model is trained on)
    test : held out; its labels are read by the evaluator alone
    ordered : whether samples of ``adaptation`` arrive as they stand, in no drawn order
    """

    name: str
    adaptation: Split
    test: Split
    ordered: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class ApplicationFacts:
    """What one application of a stream of several tasks has: a ``task``, the shape of a sample, and
    a number of classes, which are numbered from 0.
    """

    task: str
    input_shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True)
class ShiftedSource:
    """Labelled source data under shifts that a stream does not have: its validation stream.

    ``key``: digest of all that the domains depend on; ``make`` builds them.
    """

    key: str
    make: Callable[[], list[Domain]]


class StreamConfig(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of a stream's settings; they are part of a cell's identity."""


class Stream(ABC):
    """Source domain plus an ordered stream of target domains, fixed by a seed.

    Attributes
    ----------
    task : what the model does, as "classification"; see `bench list tasks`
    supervised : whether every method may see the labels of adaptation splits
    shifts : what changes along the stream: "domain" (the inputs), "class" (new classes come)
    repeats_samples : whether samples of adaptation splits may stand in test splits too, as equal
        texts do in some data sets; else a run refuses such a stream
    classes : number of classes
    input_shape : one sample's shape; () where applications have samples of their own
    applications : of a stream whose applications have tasks of their own; else none
    preload : modules that are slow to import, loaded once for all runs that need them
    """

    Config: ClassVar[type[StreamConfig]] = StreamConfig
    task: ClassVar[str] = "classification"
    preload: ClassVar[tuple[str, ...]] = ()
    supervised: ClassVar[bool] = False
    shifts: ClassVar[tuple[str, ...]] = ("domain",)
    repeats_samples: ClassVar[bool] = False
    classes: int
    input_shape: tuple[int, ...]
    applications: Sequence[ApplicationFacts] = ()

    def __init__(self, config: Any, seed: int) -> None:
        self.config = config
        self.seed = seed

    @classmethod
    @abstractmethod
    def data_digest(cls, config: Any) -> str:
        """Digest of the data that ``config`` reads, cheap and without loading torch's data."""

    @classmethod
    def task_of(cls, config: Any) -> str:
        """The task under these settings; streams over any data set take that of the data."""
        return cls.task

    @classmethod
    def validation(cls, config: Any) -> Any:
        """Settings of this stream's validation stream for ``config``: made from source data alone,
        with shifts that the stream of ``config`` does not contain. Methods are tuned on it.
        """
        raise BenchError(
            f"stream {cls.__name__} has no validation stream: implement validation(config)"
        )

    @abstractmethod
    def source(self) -> Domain:
        """The source; its adaptation split is the same for every seed: a model is trained once."""

    def source_settings(self) -> dict[str, Any]:
        """The settings that the source depends on (all, by default): source models are shared
        between streams where these, the data and the code are equal.
        """
        return self.config.model_dump(mode="json")

    @abstractmethod
    def domain_names(self) -> Sequence[str]:
        """The target domains' names in the order of the stream."""

    @abstractmethod
    def domain(self, name: str) -> Domain:
        """Build one target domain; equal for equal (config, seed, name)."""
