"""Detection: its metric against pycocotools, its loss by hand, and what it learns from."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import generalized_box_iou

from bench.contracts.data import join_labels
from bench.contracts.task import make_task
from bench.errors import BenchError
from bench.tasks import detection
from bench.tasks.detection import MeanAveragePrecision, detections, overlaps

CLASSES = 4


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn_boxes(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Boxes of a fifth to half of the image, as x1, y1, x2, y2."""
    size = 0.2 + 0.3 * torch.rand(*shape, 2, generator=draw)
    corner = (1 - size) * torch.rand(*shape, 2, generator=draw)
    return torch.cat([corner, corner + size], dim=-1)


def drawn(draw: torch.Generator, n: int = 12, cells: int = 40) -> tuple[Tensor, Tensor]:
    """Outputs, some of them near a true box and of its class, and labels."""
    y = torch.cat(
        [torch.randint(CLASSES, (n, 5, 1), generator=draw).float(), drawn_boxes((n, 5), draw)], 2
    )
    boxes = drawn_boxes((n, cells), draw)
    logits = 2 * torch.randn(n, cells, CLASSES, generator=draw) - 3
    boxes[:, :5] = y[..., 1:] + 0.03 * torch.randn(n, 5, 4, generator=draw)
    logits[:, :5] += 3 * torch.nn.functional.one_hot(y[..., 0].long(), CLASSES)
    y[torch.rand(n, 5, generator=draw) < 0.3] = -1
    return torch.cat([logits, boxes], dim=2), y


def coco_evaluated(outputs: Tensor, y: Tensor) -> np.ndarray[Any, Any]:
    """Average precision by threshold and class, -1 where it is undefined, by pycocotools."""

    def listed(boxes: Tensor) -> list[float]:
        x1, y1, x2, y2 = (1000 * boxes.double()).tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    truth, found = COCO(), []
    images, annotations = [], []
    for i, (each, rows) in enumerate(zip(outputs, y, strict=True), start=1):
        images.append({"id": i, "width": 1000, "height": 1000})
        for row in rows[rows[:, 0] >= 0]:
            box = listed(row[1:])
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": i, "category_id": 1 + int(row[0]),
                    "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                }
            )  # fmt: skip
        made = detections(each)
        for box, score, label in zip(made["boxes"], made["scores"], made["labels"], strict=True):
            found.append(
                {
                    "image_id": i, "category_id": 1 + int(label), "bbox": listed(box),
                    "score": float(score),
                }
            )  # fmt: skip
    categories = [{"id": 1 + c} for c in range(CLASSES)]
    truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)


def scored(outputs: Tensor, y: Tensor, batch: int = 5) -> tuple[float, float]:
    score = make_task("detection").score()
    assert isinstance(score, MeanAveragePrecision)
    for chosen in torch.arange(len(y)).split(batch):
        score.update(outputs[chosen], y[chosen])
    assert math.isnan(score.compute()) or score.compute() == score.at_thresholds()[0]
    known = {} if math.isnan(score.compute()) else {"map-50-95": score.at_thresholds()[1]}
    assert score.further() == known
    return score.at_thresholds()


def test_the_metrics_equal_those_of_pycocotools(draw: torch.Generator) -> None:
    outputs, y = drawn(draw)
    wanted = coco_evaluated(outputs, y)
    assert (wanted > -1).all()
    half, mean = scored(outputs, y)
    assert half == pytest.approx(wanted[0].mean(), abs=1e-6)
    assert mean == pytest.approx(wanted.mean(), abs=1e-6)
    assert 0.1 < mean < half < 0.9


def test_detections_of_a_class_without_boxes_are_not_hidden(draw: torch.Generator) -> None:
    """COCO's mean leaves the class out, here it counts 0; one that nothing detects does not."""
    outputs, y = drawn(draw)
    y[y[..., 0] == 2] = -1
    wanted = coco_evaluated(outputs, y)
    assert (wanted[:, 2] == -1).all()
    of_three = wanted[:, [0, 1, 3]]
    half, mean = scored(outputs, y)
    assert half == pytest.approx(of_three[0].sum() / 4, abs=1e-6)
    assert mean == pytest.approx(of_three.sum(axis=1).mean() / 4, abs=1e-6)
    outputs[..., 2] = -10.0
    assert scored(outputs, y)[0] == pytest.approx(coco_evaluated(outputs, y)[0, [0, 1, 3]].mean())


def test_without_a_box_in_the_labels_the_metric_is_not_defined(draw: torch.Generator) -> None:
    outputs, y = drawn(draw)
    assert np.isnan(scored(outputs, torch.full_like(y, -1))).all()
    outputs[..., :CLASSES] = -10.0
    assert scored(outputs, y) == (0.0, 0.0)  # boxes, and nothing detected


def test_what_is_detected_has_a_score_and_overlaps_no_better_of_its_class() -> None:
    a, near, away = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.55], [0.6, 0.6, 1.2, 0.9]
    rows = [[2.0, -9, *a], [3.0, -9, *near], [-9, 1.0, *a], [-9, -4.0, *away], [-2.0, -9, *away]]
    found = detections(torch.tensor(rows))
    assert found["labels"].tolist() == [0, 1, 0]
    assert found["scores"].tolist() == pytest.approx([0.952574, 0.731059, 0.119203], abs=1e-6)
    assert torch.allclose(found["boxes"], torch.tensor([near, a, [0.6, 0.6, 1.0, 0.9]]))
    many = torch.cat([torch.ones(150, 1), torch.rand(150, 4).sort(dim=1).values], dim=1)
    assert len(detections(many.repeat(10, 1))["boxes"]) <= 100


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchmetrics.detection

    def broken(**_: Any) -> None:
        raise ModuleNotFoundError("no faster-coco-eval")

    monkeypatch.setattr(torchmetrics.detection, "MeanAveragePrecision", broken)
    with pytest.raises(BenchError, match="pip install faster-coco-eval"):
        detection.MeanAveragePrecision().update(torch.zeros(1, 2, 5), torch.zeros(1, 1, 5))


def test_overlaps_are_torchvisions(draw: torch.Generator) -> None:
    boxes, others = drawn_boxes((3, 7), draw), drawn_boxes((3, 5), draw)
    wanted = torch.stack([generalized_box_iou(*each) for each in zip(boxes, others, strict=True)])
    assert torch.allclose(overlaps(boxes, others)[1], wanted, atol=1e-6)
    swapped = boxes[..., [2, 3, 0, 1]]
    for pair in ((swapped, others), (swapped, swapped)):
        iou, generalized = overlaps(*pair)
        assert (iou == 0).all()
        assert ((generalized >= -1) & (generalized <= 0)).all()
    assert overlaps(boxes, boxes)[0].diagonal(dim1=1, dim2=2).allclose(torch.ones(3, 7))


def test_the_loss_of_one_box_by_hand() -> None:
    """Two cells, one box: of IoU 1/2 and 1/4, scores 0.5 and 0.2, so that t = s u^6."""
    truth = [0.0, 0.0, 0.5, 0.5]
    cells = [[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.25, 0.25]]
    logits = torch.tensor([[0.0, -1.0], [math.log(0.25), 1.0]])
    outputs = torch.cat([logits, torch.tensor(cells)], dim=1).unsqueeze(0)
    y = torch.tensor([[[0.0, *truth], [-1] * 5]])
    fits = 0.5 * 0.5**6, 0.2 * 0.25**6
    targets = torch.zeros(2, 2)
    targets[:, 0] = torch.tensor([0.5, 0.5 * fits[1] / fits[0]])
    p = logits.sigmoid()
    bce = -(targets * p.log() + (1 - targets) * (1 - p).log())
    focal = ((targets - p) ** 2 * bce).sum()
    weights = targets[:, 0]
    boxes = 2 * (weights * (1 - torch.tensor([0.5, 0.25]))).sum()  # inside: GIoU is IoU
    wanted = (focal + boxes) / max(float(weights.sum()), 1)
    task = make_task("detection")
    assert float(task.loss(outputs, y)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(task.loss(outputs, y, 0.1)) == pytest.approx(float(wanted), rel=1e-5)


def test_rows_of_no_box_and_images_without_one_add_nothing(draw: torch.Generator) -> None:
    outputs, y = drawn(draw)
    task = make_task("detection")
    longer = join_labels([y, torch.full((1, 9, 5), -1.0)])
    assert longer.shape == (13, 9, 5)
    assert torch.equal(longer[:12, :5], y)
    assert (longer[:, 5:] == -1).all()
    assert float(task.loss(outputs, longer[:12])) == pytest.approx(float(task.loss(outputs, y)))
    outputs.requires_grad_()
    task.loss(outputs, torch.full_like(y, -1)).backward()
    assert outputs.grad is not None
    assert (outputs.grad[..., :CLASSES] > 0).all()  # every score goes down
    assert (outputs.grad[..., CLASSES:] == 0).all()


def test_a_cell_learns_one_box_and_a_box_has_few_cells(draw: torch.Generator) -> None:
    boxes, true = drawn_boxes((2, 60), draw), drawn_boxes((2, 6), draw)
    iou, _ = overlaps(boxes, true)
    learned = detection._learned(iou.pow(6), iou)
    assert ((learned > 0).sum(dim=2) <= 1).all()
    assert ((learned > 0).sum(dim=1) <= 13).all()
    best = learned.amax(dim=1)
    assert ((best == 0) | (iou == best.unsqueeze(1)).any(dim=1)).all()


def test_pseudo_labels_are_confident_boxes_without_their_doubles() -> None:
    a, near, away = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.55], [0.6, 0.6, 1.0, 0.9]
    rows = [[2.0, -9, *a], [3.0, -9, *near], [-9, 1.0, *a], [-9, -1.0, *away]]
    task, outputs = make_task("detection"), torch.tensor([rows])
    places = task.places(outputs, None)
    assert places[1].tolist() == [[1, 0, 2, 3]]  # by score
    assert places[2].tolist() == [[True, False, True, False]]
    packed = task.packed(task.units(outputs, None).argmax(dim=1), places)
    assert torch.allclose(packed[0, [0, 2]], torch.tensor([[0, *near], [1, *a]]))
    assert (packed[0, [1, 3]] == -1).all()
    # Read back, a cell has the class of the box that it overlaps most.
    assert task.unit_labels(packed, places).tolist() == [1, 0, 1, -1]
    assert task.present(packed) == {0, 1}
    assert task.packed(
        torch.zeros(400).long(), task.places(outputs.repeat(1, 100, 1), None)
    ).shape == (1, 100, 5)
