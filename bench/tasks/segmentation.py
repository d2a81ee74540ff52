"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score, Task
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.class_scores import COMMONEST_CLASS
from bench.tasks.classification import NOT_NUMBERS, require_classes, soft_cross_entropy

VOID = 255
PIXEL_ACCURACY = MetricFacts("pixel-accuracy", "pixel accuracy")


class MeanIoU(Score):
    """Mean over classes of intersection over union, of all pixels of the split, void left out.

    Classes that neither the labels nor the predictions have do not count. ``pixel-accuracy``: the
    share of pixels that the highest logit meets. ``commonest-class``: the metric of the most
    frequent class for every pixel.
    """

    def __init__(self) -> None:
        self._metric: Any = None

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, classes, h, w) of any size; ``y``: (n, height, width)."""
        if self._metric is None:
            from torchmetrics.classification import MulticlassJaccardIndex

            self._metric = MulticlassJaccardIndex(
                outputs.shape[1], average="none", ignore_index=VOID, validate_args=False
            )
        # The metric is on the CPU, and refuses tensors of a GPU.
        self._metric.update(enlarged(outputs, y).argmax(dim=1).cpu(), y.cpu())

    def compute(self) -> float:
        if self._metric is None:
            return float("nan")
        table = self._metric.confmat
        present = (table.sum(dim=0) + table.sum(dim=1)) > 0
        return float(self._metric.compute()[present].double().mean())

    def further(self) -> dict[str, float]:
        if self._metric is None:
            return {}
        table = self._metric.confmat
        total, of_class = table.sum(), table.sum(dim=1)
        return {
            PIXEL_ACCURACY.name: float(table.diagonal().sum() / total),
            # The others, of which no pixel is named, have an intersection of 0.
            COMMONEST_CLASS.name: float(of_class.max() / total / (of_class > 0).sum()),
        }


@register("task", "segmentation")
class Segmentation(Task):
    """Outputs (n, classes, h, w), labels int64 (n, height, width) with 255 for void.

    A split may keep its labels as uint8, an eighth of the size: batches and scores get int64.

    Outputs may be smaller than labels, as the patches of a transformer: loss and metric enlarge
    them (bilinear), and units are the places of the outputs, with void among them: which pixels
    are void is known from labels alone.
    """

    metric = MetricFacts("mean-iou", "mean IoU")
    further_metrics = (PIXEL_ACCURACY, COMMONEST_CLASS)
    dense = True
    ignore = VOID
    class_axis = 1
    preload = ("torchmetrics.classification",)

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        if classes > VOID:
            raise BenchError(f"{where}: {classes} classes, and {VOID} is void: give {VOID} at most")
        require_classes(y, (n, -1, -1), classes, where, VOID, (torch.int64, torch.uint8))

    def require_fit(self, y: Tensor, shape: tuple[int, ...], where: str) -> None:
        if tuple(y.shape[1:]) != tuple(shape[-2:]):
            raise BenchError(
                f"{where} has masks of {tuple(y.shape[1:])} pixels (height, width), and images of "
                f"{tuple(shape[-2:])}: make each mask as large as its image"
            )

    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        if len(shape) != 4 or shape[:2] != (n, classes):
            cure = "return logits" if len(shape) != 3 else NOT_NUMBERS
            raise BenchError(
                f"not ({n}, {classes}, *, *) = (samples, classes, height, width), on {where}; "
                f"{cure}"
            )

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return nn.functional.cross_entropy(
            enlarged(outputs, y), y, ignore_index=VOID, label_smoothing=label_smoothing
        )

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        return soft_cross_entropy(self.units(outputs, x), self.units(teacher, x))

    def score(self) -> Score:
        return MeanIoU()

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        return outputs.movedim(1, -1).flatten(0, 2)

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        """From (n, width, h, w), or (n, places, width)."""
        if features.ndim == 4:
            return features.movedim(1, -1).flatten(0, 2)
        return features.flatten(0, 1)

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features.mean(dim=1)

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        """The label in the middle of what each place covers."""
        _, (height, width) = places
        small = nn.functional.interpolate(
            y.unsqueeze(1).double(), size=(height, width), mode="nearest-exact"
        )
        return small.squeeze(1).long().flatten()

    def places(self, outputs: Tensor, x: Inputs) -> Any:
        """Size of the images, and of the outputs."""
        image = x["image"] if isinstance(x, dict) else x
        return tuple(image.shape[-2:]), tuple(outputs.shape[-2:])

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        size, (height, width) = places
        small = labels.view(-1, 1, height, width).double()
        large = nn.functional.interpolate(small, size=size, mode="nearest-exact")
        return large.squeeze(1).long()

    def aligned(self, features: Tensor, outputs: Tensor) -> bool:
        n, _, height, width = outputs.shape
        if features.ndim == 4:
            return (len(features), *features.shape[2:]) == (n, height, width)
        return features.ndim == 3 and features.shape[:2] == (n, height * width)


def enlarged(outputs: Tensor, y: Tensor) -> Tensor:
    """Outputs at the size of the labels."""
    if outputs.shape[-2:] == y.shape[-2:]:
        return outputs
    return nn.functional.interpolate(
        outputs, size=y.shape[-2:], mode="bilinear", align_corners=False
    )
