"""The loss of detectors whose queries each give one box: one query for one box (DETR).

Its work depends on the shapes alone, so that what a step costs can be told without values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.tasks.detection import BOX, overlaps


def set_loss(
    outputs: Tensor,
    y: Tensor,
    class_cost: Callable[[Tensor], Tensor],
    class_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    weights: tuple[float, float, float],
    costs: tuple[float, float, float],
) -> Tensor:
    """Mean loss over the boxes of a batch, a scalar, of outputs and labels as the task has them.

    The assignment of least cost (Kuhn; Carion et al., ECCV 2020) gives each box a query. ``costs``
    and ``weights``: of class, distance of edges (L1 of middle and size) and generalized IoU.
    ``class_cost``: of logits (n, queries, classes) to be of each class, the same shape;
    ``class_loss``: of logits, given the classes that queries shall have (n, queries, classes), all
    0 for none, and the number of boxes.
    """
    logits, boxes = outputs[..., :-BOX], outputs[..., -BOX:]
    there = y[..., 0] >= 0
    labels = y[..., 0].clamp_min(0).long()
    # Rows without a box get the whole image, so that nothing is divided by an area of zero.
    true = torch.where(there.unsqueeze(2), y[..., 1:], y.new_tensor([0.0, 0.0, 1.0, 1.0]))
    away = (_middles(boxes).unsqueeze(2) - _middles(true).unsqueeze(1)).abs().sum(dim=3)
    giou = overlaps(boxes, true)[1]
    with torch.no_grad():
        of_label = labels.unsqueeze(1).expand(-1, boxes.shape[1], -1)
        of_classes = class_cost(logits).gather(2, of_label)
        total = costs[0] * of_classes + costs[1] * away - costs[2] * giou
        matched = assignment(total, there)
        of_class = labels.unsqueeze(2) == torch.arange(logits.shape[2], device=labels.device)
        wanted = matched @ of_class.to(logits.dtype)
    count = there.sum().clamp_min(1)
    of_boxes = weights[1] * away + weights[2] * (1 - giou)
    return weights[0] * class_loss(logits, wanted, count) + (of_boxes * matched).sum() / count


@torch.library.custom_op("bench::assignment", mutates_args=())
def assignment(cost: Tensor, there: Tensor) -> Tensor:
    """Which query each box gets at least total cost, 0 or 1 (n, queries, boxes), on the CPU.

    ``cost``: (n, queries, boxes); ``there``: which rows are boxes, bool (n, boxes). Of more boxes
    than queries some get none.
    """
    from scipy.optimize import linear_sum_assignment

    found = torch.zeros_like(cost)
    large = torch.finfo(cost.dtype).max
    finite = cost.nan_to_num(nan=large, posinf=large, neginf=-large).cpu().double().numpy()
    for i, real in enumerate(there.cpu().numpy()):
        columns = real.nonzero()[0]
        queries, which = linear_sum_assignment(finite[i][:, columns])
        found[i, torch.from_numpy(queries), torch.from_numpy(columns[which])] = 1
    return found


@assignment.register_fake
def _(cost: Tensor, there: Tensor) -> Tensor:
    return torch.empty_like(cost)


def corners(boxes: Tensor) -> Tensor:
    """Boxes by middle and size (..., 4) as boxes by their edges."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def _middles(boxes: Tensor) -> Tensor:
    """The inverse of `corners`."""
    upper, lower = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(upper + lower) / 2, lower - upper], dim=-1)


# --- classes that exclude each other and "none", by one softmax (DETR, YOLOS)


def logits_without_none(logits: Tensor) -> Tensor:
    """Logits (..., classes) whose sigmoid is what a softmax over classes and none, which is last,
    gives the classes: scores as the task has them.
    """
    log = logits.double().log_softmax(dim=-1)[..., :-1]
    return (log - (-log.expm1()).clamp_min(1e-30).log()).to(logits.dtype)


def softmax_cost(logits: Tensor) -> Tensor:
    """Minus the score of each class."""
    return -logits.sigmoid()


def softmax_loss(none_weight: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Cross-entropy over classes and none, mean over queries with a weight for those of none."""

    def loss(logits: Tensor, wanted: Tensor, _: Tensor) -> Tensor:
        none = 1 - wanted.sum(dim=2)
        nothing = (1 - logits.double().sigmoid().sum(dim=2)).clamp_min(1e-12).log()
        log = nn.functional.logsigmoid(logits)
        each = (wanted * log).sum(dim=2) + none_weight * none * nothing.to(log.dtype)
        return -each.sum() / (wanted.sum() + none_weight * none.sum())

    return loss


# --- classes each by itself (Deformable DETR, Grounding DINO)


def focal_cost(logits: Tensor) -> Tensor:
    """Focal loss of a class that is there minus that of one that is not."""
    p = logits.sigmoid()
    there = -0.25 * (1 - p) ** 2 * (p + 1e-8).log()
    return there + 0.75 * p**2 * (1 - p + 1e-8).log()


def focal_loss(alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Sum over queries and classes, divided by the number of boxes (Lin et al., ICCV 2017)."""

    def loss(logits: Tensor, wanted: Tensor, count: Tensor) -> Tensor:
        bce = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        p = logits.sigmoid()
        away = p + wanted - 2 * p * wanted
        share = alpha * wanted + (1 - alpha) * (1 - wanted)
        return (share * away**2 * bce).sum() / count

    return loss
