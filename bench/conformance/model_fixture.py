"""The model under check, built as often as asked, and inputs for it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from bench import defaults, registry
from bench.conformance.base import CheckFailed, subject_of
from bench.contracts.data import DomainView, Inputs, take
from bench.contracts.model import FoundationModel
from bench.study.suite import validated

CLASSES, SAMPLES = 3, 4
WORDS = 6
"""Of a text beside an image."""
TOKENS = 8
"""Ids of tokens are below it, so that small vocabularies have them."""


@subject_of("model")
class ModelFixture:
    """A registered model with default settings (or its ``conformance_config``) and random inputs.

    The shape of a sample is the model's declared ``input_shape``, else that of the embedded stream.
    """

    patience = 5  # the default network may be large, and surgery trains it
    too_slow = "set conformance_config to a network that this machine computes in seconds"

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = registry.entry("model", name)
        self.model_class: type[FoundationModel] = registry.load("model", name)
        self.settings: dict[str, Any] = self.model_class.conformance_config
        if ":" in name:  # what stands behind it is checked as it is
            self.settings = {}
            validated(self.model_class.Config, {}, f"model {name!r}")
        self.input_shape = tuple(self.model_class.input_shape or _embedded_shape())

    @property
    def classes(self) -> int:
        """How many it is built for where it does not matter."""
        return self.model_class.fixed_classes or CLASSES

    def build(self, classes: int | None = None, seed: int = 0) -> FoundationModel:
        """The model with fresh weights of ``seed``, in evaluation mode."""
        classes = classes or self.classes
        config = self.model_class.Config.model_validate(self.settings)
        torch.manual_seed(seed)
        model = self.model_class.build(config, self.input_shape, classes)
        if not isinstance(model, FoundationModel):
            raise CheckFailed(
                f"build gave {type(model).__name__}: return the FoundationModel, cls(module)"
            )
        model.train(False)
        return model

    @functools.cached_property
    def model(self) -> FoundationModel:
        """The model of seed 0, which no check may change."""
        return self.build()

    @functools.cached_property
    def x(self) -> Inputs:
        """Inputs of `SAMPLES` samples."""
        return self.inputs(SAMPLES)

    def inputs(self, samples: int) -> Inputs:
        """Random inputs: images, with a text or a box beside them if the model takes one, or tokens
        for a shape (length,) if it takes them.
        """
        generator = torch.Generator().manual_seed(1)
        reals = torch.rand(samples, *self.input_shape, generator=generator)
        images = len(self.input_shape) > 1
        shape = (samples, WORDS) if images else reals.shape
        # Classes of a language model are its tokens, and it is built for 2 as well.
        known = (0, 2) if self.model.rules.causal else (1, TOKENS)
        ids = torch.randint(*known, shape, generator=generator)
        texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.model_class.takes_boxes:
            return {"image": reals, "box": _boxes(self.input_shape, samples, generator)}
        tried: tuple[Inputs, ...] = (reals, {"image": reals, **texts}) if images else (texts, ids)
        for inputs in tried:
            try:
                with torch.no_grad():
                    self.model(inputs)
            except (TypeError, AttributeError, RuntimeError, LookupError):
                continue
            return inputs
        return reals

    @functools.cached_property
    def outputs(self) -> torch.Tensor:
        """The model's outputs for `x`."""
        with torch.no_grad():
            return self.model(self.x)

    @property
    def y(self) -> torch.Tensor:
        """Labels of `x`, with the classes in turn."""
        return self.model.rules.sample_labels(self.outputs, self.x, self.classes)

    def some(self, *samples: int) -> Inputs:
        """Some of the inputs, by their number."""
        return take(self.x, torch.tensor(samples))

    def source(self) -> DomainView:
        """The samples as a labelled domain, in batches of two."""
        return DomainView("source", self.x, self.y, 2, torch.Generator().manual_seed(0))

    def shortened(self) -> FoundationModel:
        """A copy that declares the first two of its blocks: surgery on those tells of all.

        Linear layers are drawn anew, as large as trained ones: small fresh weights would hide that
        scores are scaled wrongly.
        """
        model = self.model.clone()
        torch.manual_seed(2)
        for layer in model.module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=0.3)
        kind: Any = type(model)

        def blocks(own: Any) -> Any:
            return kind.blocks(own)[:2]

        model.__class__ = type(kind.__name__, (kind,), {"blocks": blocks, "__doc__": kind.__doc__})
        return model


def _boxes(shape: tuple[int, ...], n: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes inside images of a shape (channels, height, width): float32 (n, 4), edges in pixels.

    Left, upper, right and lower edge, the first two in the first half, the last two in the other.
    """
    size = torch.tensor([shape[-1], shape[-2]])
    upper, lower = 0.5 * torch.rand(2, n, 2, generator=generator) * size
    return torch.cat([upper, size - lower], dim=1)


def _embedded_shape() -> tuple[int, ...]:
    stream: Any = registry.load("stream", defaults.STREAM)
    shape: tuple[int, ...] = stream(stream.Config(), 0).input_shape
    return shape
