"""The reference workloads of a check: models with random weights, and methods that adapt them.

Speed and memory depend on shapes alone. Models and methods come from the registry, so that a step
is the one that a run would take (`bench.defaults` names them).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from bench import defaults, registry
from bench.contracts.data import DomainView, Inputs
from bench.contracts.method import Method, MethodConfig
from bench.contracts.model import FoundationModel
from bench.errors import BenchError, did_you_mean
from bench.run.window import Window

CLASSES = 10


class LastHalf(Method):
    """Fine-tuning of the later half of the blocks (else of the layers) and all that follows."""

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        names = [name for name, _ in model.module.named_parameters()]
        first = next(i for i, name in enumerate(names) if name.startswith(later_half(model)))
        trained = list(model.module.parameters())[first:]
        model.freeze_except(trained)
        self.optimizer = torch.optim.AdamW(trained)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches()):
            loss = self.model.loss(self.model(batch.x), batch.y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def later_half(model: FoundationModel) -> str:
    """The prefix of the names of the later half's first parameters."""
    blocks = model.blocks()
    if blocks:
        block = blocks[len(blocks) // 2]
        parts = [n.split(".") for n in (*block.qkv, block.out, block.ff_in, block.ff_out)]
        common = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
        return "".join(f"{level[0]}." for level in common)
    layers = [n for n, m in model.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return f"{layers[len(layers) // 2]}."


@dataclass(frozen=True)
class ModelSpec:
    """A registered model: its ``name``, one sample's ``shape``, and ``settings``."""

    name: str
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def preload(self) -> None:
        """Import what building the model imports: it belongs to the runtime."""
        for module in registry.load("model", self.name).preload:
            importlib.import_module(module)

    def build(self) -> FoundationModel:
        """The model with fresh weights."""
        model_class = registry.load("model", self.name)
        config = model_class.Config.model_validate(self.settings)
        model: FoundationModel = model_class.build(config, self.shape, CLASSES)
        return model

    def inputs(self, samples: int) -> Inputs:
        """Random images, or texts without padding."""
        if len(self.shape) == 1:
            ids = torch.randint(1000, 20_000, (samples, *self.shape))
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return torch.rand(samples, *self.shape)


@dataclass(frozen=True)
class MethodSpec:
    """A registered method (without ``name`` `LastHalf`); whether it needs a model's ``blocks``."""

    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    blocks: bool = False

    def make(self) -> Method:
        """The method, not prepared yet."""
        if not self.name:
            return LastHalf(MethodConfig())
        method_class = registry.load("method", self.name)
        method: Method = method_class(method_class.Config.model_validate(self.settings))
        return method


MODELS = {name: ModelSpec(*given) for name, given in defaults.WORKLOAD_MODELS.items()}
METHODS = {name: MethodSpec(*given) for name, given in defaults.WORKLOAD_METHODS.items()}
INFERENCE = "inference"
"""The one of the methods that takes no training step."""


class Repeated(DomainView):
    """One batch of labelled samples, repeated a fixed number of times whatever the epochs."""

    def __init__(self, x: Inputs, y: Tensor, passes: int) -> None:
        super().__init__("check", x, y, len(y), torch.Generator().manual_seed(0))
        self._fixed = passes

    def max_passes(self, epochs: int) -> int:
        return self._fixed


def chosen(given: str | None, known: Sequence[str], what: str) -> list[str]:
    """The names in ``a,b``, or all; BenchError for an unknown name."""
    if given is None:
        return list(known)
    names = list(dict.fromkeys(n.strip() for n in given.split(",") if n.strip()))
    if not names:
        raise BenchError(f"--{what} {given!r}: names nothing; write a,b of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise BenchError(f"--{what}: unknown name {name!r}: {did_you_mean(name, known)}")
    return names
