"""Whether a source model is as good as the suite expects."""

from __future__ import annotations

import torch

from bench.contracts.data import batch_positions, take
from bench.contracts.model import FoundationModel
from bench.contracts.stream import Split
from bench.errors import BenchError
from bench.run.evaluator import Scorer

BATCH_SIZE = 64


def require_expected(
    model: FoundationModel, test: Split, score: Scorer, band: tuple[float, float], name: str
) -> None:
    """Raise BenchError unless the model's metric on the source's test split lies in ``band``.

    ``name`` of the model, for the error. Nothing is charged to the device.
    """
    total, low, high = 0.0, *band
    with torch.no_grad():
        for chosen in batch_positions(torch.arange(len(test)), BATCH_SIZE, model.least_batch):
            total += float(score(model(take(test.x, chosen)), test.y[chosen]).sum())
    metric = total / len(test)
    if not low <= metric <= high:
        raise BenchError(
            f"source model {name}: its metric on the test split of the source is {metric:.4f}, and "
            f"expected_source of the suite is {low:g} to {high:g}; look at its weights and its "
            "training, or state another band"
        )
