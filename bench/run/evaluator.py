"""Score predictions; the only code that reads labels of test splits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.contracts.data import take
from bench.contracts.stream import Split
from bench.costs.tracker import CostTracker
from bench.errors import BenchError
from bench.operators.live_memory import live_tensors

if TYPE_CHECKING:
    from bench.contracts.method import Method
    from bench.contracts.model import FoundationModel


Scorer = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) -> the metric of each sample; labels pass through nothing else."""


def make_scorer(model: FoundationModel) -> Scorer:
    """The model's task metric, copied before a method could replace it."""
    return MethodType(type(model).correct, copy.copy(model))


def evaluate(
    method: Method,
    split: Split,
    batch_size: int,
    correct: Scorer,
    tracker: CostTracker | None = None,
) -> float:
    """Accuracy of ``method`` on a split.

    With a tracker, the last full batch (caches are warm by then) sets the cost of inference.
    Raises BenchError if predicting changes the method's tensors or gives another number of outputs.
    """
    held = _tensors(method)  # kept alive, so that no other tensor can get its identity
    before = _versions(held)
    batches = torch.arange(len(split)).split(batch_size)
    priced = max(len(split) // batch_size - 1, 0) if tracker is not None else -1
    hits = 0.0
    with torch.no_grad():
        for i, chosen in enumerate(batches):
            x = take(split.x, chosen)
            if tracker is not None and i == priced:
                outputs = tracker.inference(len(chosen), partial(method.predict, x))
            else:
                outputs = method.predict(x)
            if len(outputs) != len(chosen):
                raise BenchError(
                    f"predict of {type(method).__name__} gave {len(outputs)} outputs for "
                    f"{len(chosen)} samples"
                )
            plain = outputs.detach().as_subclass(Tensor)
            hits += float(correct(plain, split.y[chosen]).sum())
    if _versions(_tensors(method)) != before:
        raise BenchError(
            f"predict of {type(method).__name__} changes the method's state; this protocol "
            "evaluates what adapt has learned, so predict must only read"
        )
    return hits / len(split)


def _tensors(method: Method) -> list[Tensor]:
    """Every tensor that the method holds and whose changes are counted."""
    tensors = live_tensors([vars(method), method.stored()])
    return [t for t in tensors if not t.is_inference()]


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Identity and count of in-place changes of each."""
    return [(id(t), t._version) for t in tensors]
