"""Checks of models: that they build, answer in the right shapes, and are what they declare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import defaults, registry
from bench.conformance.base import CheckFailed, check_of, subject_of
from bench.contracts.data import Inputs
from bench.contracts.model import FoundationModel

CLASSES, BATCH = 5, 4

check = check_of("model")


@subject_of("model")
class ModelFixture:
    """A registered model with default settings, built as often as asked, and inputs for it.

    The shape of a sample is the model's declared ``input_shape``, else that of the embedded stream.
    """

    too_slow = "give Config defaults of a size that this machine computes in seconds"

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = registry.entry("model", name)
        self.model_class: type[FoundationModel] = registry.load("model", name)
        self.input_shape = self.model_class.input_shape or _embedded_shape()

    def build(self, classes: int = CLASSES, seed: int = 0) -> FoundationModel:
        """The model with fresh weights of ``seed``, in evaluation mode."""
        torch.manual_seed(seed)
        model = self.model_class.build(self.model_class.Config(), self.input_shape, classes)
        if not isinstance(model, FoundationModel):
            raise CheckFailed(f"build gave {type(model).__name__}: return a FoundationModel")
        model.train(False)
        return model

    def inputs(self, samples: int = BATCH) -> Inputs:
        """Inputs of some samples, the same at each call: images or tokens, as the shape says."""
        generator = torch.Generator().manual_seed(1)
        if len(self.input_shape) == 1:
            ids = torch.randint(0, 100, (samples, *self.input_shape), generator=generator)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return torch.rand(samples, *self.input_shape, generator=generator)


def _embedded_shape() -> tuple[int, ...]:
    stream: Any = registry.load("stream", defaults.STREAM)
    shape: tuple[int, ...] = stream(stream.Config(), 0).input_shape
    return shape


@check
def outputs(subject: ModelFixture) -> str:
    """Gives finite outputs of shape (n, classes) for as many classes as are asked for."""
    for classes in (2, CLASSES):
        found = subject.build(classes)(subject.inputs())
        if not isinstance(found, Tensor) or found.shape != (BATCH, classes):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CheckFailed(
                f"outputs are {shape} for {BATCH} samples and {classes} classes, not "
                f"{(BATCH, classes)}: return logits from __call__"
            )
        if not found.isfinite().all():
            raise CheckFailed("outputs are not finite: check the initial weights")
    return f"built it for 2 and for {CLASSES} classes and gave it {BATCH} samples"
