"""A model, a stream and two methods, small enough to follow what happens to them by hand."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.contracts.method import Method, MethodConfig, tunable
from bench.contracts.model import Block, FoundationModel, ModelConfig
from bench.contracts.stream import Domain, Split, Stream, StreamConfig
from bench.io.digest import digest
from bench.run.window import Window


class TinyModelConfig(ModelConfig):
    """Settings of `TinyModel`: ``width`` of its hidden layer."""

    width: int = pydantic.Field(8, ge=1)


class TinyNet(nn.Module):
    """head(tanh(norm(body(x)))): two linear layers and a LayerNorm, for x of shape (n, ...)."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, classes)."""
        logits: Tensor = self.head(torch.tanh(self.norm(self.body(x.flatten(1)))))
        return logits


class TinyModel(FoundationModel):
    """`TinyNet`, or any module that one wraps: ``TinyModel(module, head_name="2")``.

    Parameters
    ----------
    module : a network from inputs to logits
    head_name : the name of its head inside ``module``; "" if the module is all head
    blocks : its transformer blocks, if it has any
    """

    Config = TinyModelConfig

    def __init__(
        self, module: nn.Module, head_name: str = "head", blocks: Sequence[Block] = ()
    ) -> None:
        super().__init__(module)
        self.head_name = head_name
        self._blocks = list(blocks)

    @classmethod
    def build(
        cls, config: Any = None, input_shape: tuple[int, ...] = (2,), classes: int = 2
    ) -> TinyModel:
        """A fresh `TinyNet` of ``config`` (by default 8 wide)."""
        width = (config or TinyModelConfig()).width
        return cls(TinyNet(math.prod(input_shape), width, classes))

    def blocks(self) -> list[Block]:
        return self._blocks


class TinyStreamConfig(StreamConfig):
    """Settings of `TinyStream`: its target domains, and the samples in each of their splits."""

    domains: int = pydantic.Field(2, ge=1, le=3)
    samples: int = pydantic.Field(10, ge=1, le=100)
    tests: int = pydantic.Field(4, ge=1)


class TinyStream(Stream):
    """Inputs of shape (2,): the place of the domain in the stream, and the number of the sample.

    The source is at place 0, the targets follow from 1. Numbers count from 0 in adaptation splits
    and from ``TEST_MARK`` in test splits, so that a method can record what it is given. Target
    samples come in an order drawn by the seed. There is nothing to learn: labels alternate, and
    subclasses may change `labels` and `tests`.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("first", "second", "third")
    TEST_MARK: ClassVar[float] = 100.0

    Config = TinyStreamConfig
    classes = 2
    input_shape = (2,)

    def __init__(self, config: TinyStreamConfig | None = None, seed: int = 0) -> None:
        super().__init__(config or self.Config(), seed)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return digest(["tiny", config.samples, config.tests])

    def labels(self, place: int, number: Tensor) -> Tensor:
        """Labels of samples, int64 of shape (n,): ``number`` modulo 2, from 0 in both splits."""
        return number.long() % 2

    def tests(self, place: int) -> int:
        """The number of test samples of the domain at ``place``."""
        tests: int = self.config.tests
        return tests

    def source(self) -> Domain:
        return self._domain("source", 0)

    def domain_names(self) -> tuple[str, ...]:
        return self.NAMES[: self.config.domains]

    def domain(self, name: str) -> Domain:
        return self._domain(name, self.domain_names().index(name) + 1)

    def _domain(self, name: str, place: int) -> Domain:
        adaptation = self._split(name, place, self.config.samples, 0.0)
        return Domain(name, adaptation, self._split(name, place, self.tests(place), self.TEST_MARK))

    def _split(self, name: str, place: int, n: int, first: float) -> Split:
        seed = self.seed if place else 0  # a source is the same for every seed
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}/{first}".encode()))
        number = torch.randperm(n, generator=generator).float()
        x = torch.stack([torch.full((n,), float(place)), number + first], dim=1)
        return Split(x, self.labels(place, number))


class CountingMethod(Method):
    """Changes nothing and remembers the samples of each step.

    Attributes
    ----------
    given : (name of the domain, positions of the samples in their view) of every step
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config or self.Config())
        self.given: list[tuple[str, list[int]]] = []

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            batch.x.sum()  # a step without an operator would have no cost
            self.given.append((domain.name, batch.sample_ids.tolist()))


class LearningConfig(MethodConfig):
    """Settings of `LearningMethod`."""

    learning_rate: float = tunable(0.1, 1e-3, 1.0, log=True)
    epochs: int = tunable(1, 1, 5, ge=1, le=100)


class LearningMethod(Method):
    """One step of gradient descent a batch, on its labels or else on the model's own decisions."""

    Config = LearningConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config or self.Config())

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.optimizer = torch.optim.SGD(model.module.parameters(), self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            outputs = self.model(batch.x)
            y = batch.y if domain.labelled else outputs.detach().argmax(dim=1)
            loss = nn.functional.cross_entropy(outputs, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            window.log(loss=loss)
