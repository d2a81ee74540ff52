"""Detection: boxes around things, and the class of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score, Task
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.classification import NOT_NUMBERS

ABSENT = -1
"""The class of a row of labels that is no box."""

BOX = 4
"""Numbers of a box: left, upper, right and lower edge, as shares of width and height."""

CANDIDATES, DETECTIONS = 1000, 100
"""Most boxes of an image before those that overlap are dropped, and afterwards, as for COCO."""

LEAST_SCORE, CONFIDENT = 0.05, 0.5
"""Scores from which a box is a detection, and from which it is a pseudo-label."""

OVERLAP = 0.6
"""Of two boxes of a class with a larger intersection over union the one of lower score is dropped.
"""

TOP, SHARPNESS, BOX_WEIGHT = 13, 6, 2.0
"""Cells that learn a box, the power of the IoU in their choice, and the weight of the boxes' loss:
those of TOOD.
"""

PRIOR = 0.01
"""Score of a class that nothing is known of, as detectors are initialized with."""

MEAN_AP = MetricFacts("map-50-95", "mAP@[.5:.95]")


class MeanAveragePrecision(Score):
    """COCO's average precision of all images of the split, at most 100 detections an image.

    The mean over the classes that have boxes, as of COCO, and those that are detected: a class
    without a box in the labels that is detected nevertheless counts 0, where COCO's would leave it
    out and its false positives with it. Not a number where the labels have no box at all.
    """

    def __init__(self) -> None:
        self._metric: Any = None
        self._known: tuple[float, float] | None = None

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, cells, classes + 4); ``y``: (n, boxes, 5)."""
        if self._metric is None:
            self._metric = _torchmetrics()
        self._known = None
        labels = [rows[rows[:, 0] >= 0] for rows in y.cpu()]
        self._metric.update(
            [detections(each) for each in outputs.cpu().float()],
            [{"boxes": rows[:, 1:], "labels": rows[:, 0].long()} for rows in labels],
        )

    def compute(self) -> float:
        """With an intersection over union of at least 0.5."""
        return self.at_thresholds()[0]

    def further(self) -> dict[str, float]:
        mean = self.at_thresholds()[1]
        return {} if math.isnan(mean) else {MEAN_AP.name: mean}

    def at_thresholds(self) -> tuple[float, float]:
        """mAP@50, and mAP@[.5:.95]: the mean over the thresholds 0.5, 0.55, ..., 0.95."""
        if self._known is None:
            self._known = self._at_thresholds()
        return self._known

    def _at_thresholds(self) -> tuple[float, float]:
        if self._metric is None or not any(map(len, self._metric.groundtruth_labels)):
            return math.nan, math.nan
        found = self._metric.compute()
        # thresholds, recalls, classes, areas (first: all), most detections (last: 100)
        precision = found["precision"][:, :, :, 0, -1].double()
        precision = precision.clamp_min(0)  # -1: the class has no box
        return float(precision[0].mean()), float(precision.mean())


def _torchmetrics() -> Any:
    try:
        from torchmetrics.detection import MeanAveragePrecision as Metric

        return Metric(
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),  # the default is rounded to float32
            backend="faster_coco_eval",
            extended_summary=True,
        )
    except ImportError as error:
        raise BenchError(
            f"the metric of detection is computed by faster-coco-eval, which cannot be imported "
            f"({str(error).splitlines()[0]}): pip install faster-coco-eval"
        ) from error


@torch.no_grad()
def detections(outputs: Tensor) -> dict[str, Tensor]:
    """Boxes (k, 4) of an image with scores and labels (k,), k <= 100, by falling score.

    From outputs (cells, classes + 4): each class of a cell is a box if its score is high enough;
    of those of a class that overlap the best is kept.
    """
    from torchvision.ops import batched_nms

    scores, place = outputs[:, :-BOX].sigmoid().flatten().sort(descending=True, stable=True)
    place = place[: int((scores[:CANDIDATES] >= LEAST_SCORE).sum())]
    scores = scores[: len(place)]
    classes = outputs.shape[1] - BOX
    cells, labels = place // classes, place % classes
    boxes = outputs[cells, -BOX:].clamp(0, 1)
    kept = batched_nms(boxes, scores, labels, OVERLAP)[:DETECTIONS]
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


@register("task", "detection")
class Detection(Task):
    """Outputs (n, cells, classes + 4), labels float32 (n, boxes, 5) with rows of -1 for no box.

    A cell is one of the boxes that a dense one-stage detector gives, whatever its levels and
    anchors: the logits of the classes, each by itself (sigmoid), then the box x1, y1, x2, y2 as
    shares of width and height, decoded by the model. A row of labels is a class and such a box.

    Units are all cells, most of them on no thing, which no class says: a softmax over classes means
    nothing, and methods that need one do not declare this task. Loss and assignment are those of
    TOOD (Feng et al., ICCV 2021), which look at boxes alone: a box is learned by the cells with
    the highest score * IoU^6, whose classes shall have that as score, scaled to the best IoU;
    that IoU is above 0 takes the place of the rule that a cell's centre lies inside the box.
    Label smoothing has no meaning for such targets, and does nothing.
    """

    metric = MetricFacts("map-50", "mAP@50")
    further_metrics = (MEAN_AP,)
    dense = True
    ignore = ABSENT
    preload = ("torchmetrics.detection", "torchvision.ops")
    unknown_logit = math.log(PRIOR / (1 - PRIOR))
    further_outputs = BOX

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.float32:
            kind = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
            raise BenchError(
                f"{where} has labels of type {kind}; give classes and boxes as torch.float32"
            )
        if y.ndim != 3 or len(y) != n or y.shape[2] != 1 + BOX:
            raise BenchError(
                f"{where} has labels of shape {tuple(y.shape)}, not ({n}, *, 5) = (samples, boxes, "
                "class and edges)"
            )
        rows = y[y[..., 0] != ABSENT]
        if not len(rows):
            raise BenchError(f"{where} has no label that counts: no sample has a box")
        number, edges = rows[:, 0], rows[:, 1:]
        if not ((number >= 0) & (number < classes) & (number == number.round())).all():
            raise BenchError(
                f"{where} has labels from {float(number.min()):g} to {float(number.max()):g}; "
                f"{classes} classes are numbered from 0 to {classes - 1}, and -1 is no box"
            )
        if not ((edges >= 0) & (edges <= 1)).all() or not (edges[:, :2] < edges[:, 2:]).all():
            raise BenchError(
                f"{where} has boxes that are empty or leave their image; give x1, y1, x2, y2 as "
                "shares of width and height, x1 < x2 and y1 < y2"
            )

    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        if len(shape) != 3 or shape[0] != n or shape[2] != classes + BOX:
            cure = "return logits and boxes" if len(shape) != 2 else NOT_NUMBERS
            raise BenchError(
                f"not ({n}, *, {classes + BOX}) = (samples, cells, classes and 4 edges), on "
                f"{where}; {cure}"
            )

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        logits, boxes = outputs[..., :-BOX], outputs[..., -BOX:]
        there = y[..., 0] >= 0
        labels = y[..., 0].clamp_min(0).long()
        # Rows without a box get the whole image, so that nothing is divided by an area of zero.
        true = torch.where(there.unsqueeze(2), y[..., 1:], y.new_tensor([0.0, 0.0, 1.0, 1.0]))
        iou, giou = overlaps(boxes, true)
        with torch.no_grad():
            of_label = labels.unsqueeze(1).expand(-1, boxes.shape[1], -1)
            fit = logits.sigmoid().gather(2, of_label) * iou.pow(SHARPNESS) * there.unsqueeze(1)
            learned = _learned(fit, iou)
            classes = nn.functional.one_hot(labels, logits.shape[2]).to(logits.dtype)
            targets = learned @ classes
        return _total(logits, targets, (1 - giou) * learned, learned.sum())

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        """As `loss`, each cell with the scores and the box of the teacher's, by its best score."""
        targets = teacher[..., :-BOX].sigmoid()
        weights = targets.amax(dim=2).flatten()
        boxes = (each[..., -BOX:].reshape(-1, 1, BOX) for each in (outputs, teacher))
        giou = overlaps(*boxes)[1].flatten()
        return _total(outputs[..., :-BOX], targets, (1 - giou) * weights, weights.sum())

    def score(self) -> MeanAveragePrecision:
        return MeanAveragePrecision()

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        return outputs[..., :-BOX].flatten(0, 1)

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        return features.flatten(0, 1)

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        return features.mean(dim=1)

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        """The class of the box that a cell's overlaps most, if by half at least, else -1."""
        boxes, _, _ = places
        best, which = overlaps(boxes, y[..., 1:])[0].masked_fill(
            (y[..., 0] < 0).unsqueeze(1), ABSENT
        ).max(dim=2)  # fmt: skip
        labels = y[..., 0].gather(1, which).long()
        return labels.masked_fill(best < 0.5, ABSENT).flatten()

    def places(self, outputs: Tensor, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of all cells, (n, cells, 4), the best cells, (n, k), and whether a pseudo-label is
        made of each of these, bool (n, k), with k <= 100.

        It is of those that are confident, and that no box of a higher score and the same class
        overlaps. Unlike in `detections` boxes that are dropped drop others: this (the Fast NMS of
        YOLACT, Bolya et al., ICCV 2019) is the same work for all data.
        """
        boxes = outputs[..., -BOX:].clamp(0, 1)
        scores, classes = outputs[..., :-BOX].sigmoid().max(dim=2)
        scores, best = scores.topk(min(DETECTIONS, scores.shape[1]), dim=1)
        classes, near = classes.gather(1, best), _rows(boxes, best)
        better = scores.unsqueeze(1) > scores.unsqueeze(2)
        same = classes.unsqueeze(1) == classes.unsqueeze(2)
        beaten = (better & same & (overlaps(near, near)[0] > OVERLAP)).any(dim=2)
        return boxes, best, (scores >= CONFIDENT) & ~beaten

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        """A row for each of the best cells, of -1 where it makes no pseudo-label."""
        boxes, best, chosen = places
        of_best = labels.view(boxes.shape[:2]).gather(1, best).unsqueeze(2)
        rows = torch.cat([of_best.to(boxes.dtype), _rows(boxes, best)], dim=2)
        return rows.masked_fill(~chosen.unsqueeze(2), ABSENT)

    def sample_labels(self, outputs: Tensor, x: Inputs, classes: int) -> Tensor:
        """A box of each class in each sample, the same for all samples."""
        edges = (torch.arange(classes).unsqueeze(1) + torch.tensor([0, 0, 1, 1])) / classes
        rows = torch.cat([torch.arange(classes).unsqueeze(1), edges], dim=1)
        return rows.to(outputs).repeat(len(outputs), 1, 1)

    def present(self, y: Tensor) -> set[int]:
        return super().present(y[..., 0])


def overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and generalized (Rezatofighi et al., CVPR 2019), of all pairs.

    (n, a, 4) and (n, b, 4) give two tensors (n, a, b). As torchvision's, but for a batch, and with
    work that does not depend on the boxes. A box whose edges are in the wrong order has no area.
    """
    a, b = boxes.unsqueeze(2), others.unsqueeze(1)
    shared = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    iou = shared / union.clamp_min(1e-9)
    return iou, iou - (hull - union) / hull.clamp_min(1e-9)


def _rows(boxes: Tensor, cells: Tensor) -> Tensor:
    """The boxes (n, k, 4) of some cells (n, k)."""
    return boxes.gather(1, cells.unsqueeze(2).expand(-1, -1, BOX))


def _area(upper: Tensor, lower: Tensor) -> Tensor:
    """Of boxes by their corners (..., 2)."""
    size = (lower - upper).clamp_min(0)
    return size[..., 0] * size[..., 1]


def _learned(fit: Tensor, iou: Tensor) -> Tensor:
    """The score that each cell shall have for each box, (n, cells, boxes): 0 but for a few cells.

    A cell learns one box at most, that which it overlaps most.
    """
    least = fit.topk(min(TOP, fit.shape[1]), dim=1).values[:, -1:]
    chosen = (fit >= least) & (fit > 0)
    best = (iou * chosen).argmax(dim=2, keepdim=True)
    chosen = chosen & torch.zeros_like(chosen).scatter(2, best, True)
    fit, iou = fit * chosen, iou * chosen
    highest = fit.amax(dim=1, keepdim=True)
    # Divided by the smallest normal number at least: where no cell is chosen both are zero.
    scaled = fit / highest.clamp_min(torch.finfo(fit.dtype).tiny)
    return scaled * iou.amax(dim=1, keepdim=True)


def _total(logits: Tensor, targets: Tensor, boxes: Tensor, weight: Tensor) -> Tensor:
    """Quality focal loss (Li et al., NeurIPS 2020) of the scores, and the boxes' loss, a scalar."""
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = (targets - logits.sigmoid()).pow(2) * bce
    return (focal.sum() + BOX_WEIGHT * boxes.sum()) / weight.clamp_min(1)
