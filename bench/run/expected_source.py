"""Whether a source model is as good as the suite expects."""

from __future__ import annotations

import torch

from bench.contracts.data import batch_positions, take, take_labels
from bench.contracts.model import FoundationModel
from bench.contracts.stream import Split
from bench.contracts.task import Score
from bench.errors import BenchError

BATCH_SIZE = 64


def require_expected(
    model: FoundationModel, test: Split, score: Score, band: tuple[float, float], name: str
) -> None:
    """Raise BenchError unless the model's metric on the source's test split lies in ``band``.

    ``score``: the metric, empty; ``name`` of the model, for the error. Nothing is charged to the
    device.
    """
    low, high = band
    with torch.no_grad():
        for chosen in batch_positions(torch.arange(len(test)), BATCH_SIZE, model.least_batch):
            score.update(model(take(test.x, chosen)).cpu(), take_labels(test.y, chosen))
    metric = score.compute()
    if not low <= metric <= high:
        raise BenchError(
            f"source model {name}: its metric on the test split of the source is {metric:.4f}, and "
            f"expected_source of the suite is {low:g} to {high:g}; look at its weights and its "
            "training, or state another band"
        )
