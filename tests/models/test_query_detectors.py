"""YOLOS and Grounding DINO: their loss, their scores, the prompt of Grounding DINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.loss.loss_grounding_dino import GroundingDinoForObjectDetectionLoss

from bench import registry
from bench.errors import BenchError
from bench.models.vision.set_loss import assignment, logits_without_none

CLASSES = 3
TINY = registry.load("model", "grounding-dino").conformance_config["changes"]
WORDS = ["cat", "big dog", "bird"]
VOCABULARY = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY += [f"word{i}" for i in range(908)] + [".", "cat", "big", "dog", "bird"]
"""[CLS] is 101, [SEP] 102 and "." 1012, as transformers' code has them."""


def build(name: str, classes: int = CLASSES, **more: Any) -> Any:
    torch.manual_seed(0)
    found = registry.load("model", name)
    model = found.build(found.Config(**{**found.conformance_config, **more}), (3, 48, 48), classes)
    model.train(False)
    return model


def labels() -> torch.Tensor:
    """Of four images with 2, 1, 0 and 3 boxes."""
    y = torch.full((4, 3, 5), -1.0)
    y[0, 0] = torch.tensor([1, 0.1, 0.1, 0.4, 0.6])
    y[0, 2] = torch.tensor([0, 0.5, 0.2, 0.9, 0.4])
    y[1, 1] = torch.tensor([2, 0.0, 0.0, 1.0, 1.0])
    y[3] = torch.tensor([[0, 0.2, 0.2, 0.3, 0.3], [0, 0.6, 0.6, 0.8, 0.9], [1, 0.1, 0.5, 0.5, 0.7]])
    return y


def for_transformers(y: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The same as boxes by middle and size."""
    found = []
    for rows in y:
        rows = rows[rows[:, 0] >= 0]
        upper, lower = rows[:, 1:3], rows[:, 3:]
        boxes = torch.cat([(upper + lower) / 2, lower - upper], dim=1)
        found.append({"class_labels": rows[:, 0].long(), "boxes": boxes})
    return found


def images() -> torch.Tensor:
    return torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_the_loss_of_yolos_and_its_gradients_are_transformers_own() -> None:
    model, x, y = build("hf-detector"), images(), labels()
    plain = model.module
    outputs = model(x)
    found = model.loss(outputs, y)
    with torch.no_grad():
        pixels = model.prepared(x)
    wanted = plain(pixel_values=pixels, labels=for_transformers(y))
    torch.testing.assert_close(found, wanted.loss, rtol=1e-5, atol=1e-6)
    weights = list(plain.parameters())
    gradients = torch.autograd.grad(found, weights)
    for one, other in zip(gradients, torch.autograd.grad(wanted.loss, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    scores = wanted.logits.softmax(-1)[..., :-1]
    torch.testing.assert_close(outputs[..., :CLASSES].sigmoid(), scores)
    corners = outputs[..., CLASSES:].detach()
    half = wanted.pred_boxes[..., 2:] / 2
    torch.testing.assert_close(corners[..., :2], (wanted.pred_boxes[..., :2] - half).detach())


def test_scores_near_0_and_1_lose_nothing() -> None:
    raw = torch.tensor([[30.0, 0.0, 0.0], [-30.0, 0.0, 25.0], [0.0, 0.0, 0.0]])
    logits = logits_without_none(raw).double()
    wanted = raw.double().softmax(-1)[:, :2]
    torch.testing.assert_close(logits.sigmoid(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close((-logits).sigmoid(), 1 - wanted, rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("kind", ["mm-grounding-dino", "grounding-dino"])
def test_the_loss_of_grounding_dino_is_transformers_over_classes(tmp_path: Path, kind: str) -> None:
    sizes = transformers.AutoConfig.for_model(kind, **TINY)
    sizes.save_pretrained(tmp_path)
    model, x, y = build("grounding-dino", folder=str(tmp_path), changes={}), images(), labels()
    assert model.module.config.model_type == kind
    outputs = model(x)
    assert outputs.shape == (4, 6, CLASSES + 4)
    logits = outputs[..., :CLASSES]
    upper, lower = outputs[..., CLASSES : CLASSES + 2], outputs[..., CLASSES + 2 :]
    boxes = torch.cat([(upper + lower) / 2, lower - upper], dim=2)
    config = model.module.config
    config.two_stage = False  # its further term is of boxes that are not outputs
    wanted, _, _ = GroundingDinoForObjectDetectionLoss(
        logits, for_transformers(y), logits.device, boxes, config,
        (torch.eye(CLASSES),) * 4, torch.ones_like(logits, dtype=torch.bool),
    )  # fmt: skip
    torch.testing.assert_close(model.loss(outputs, y), wanted, rtol=1e-5, atol=1e-6)


def test_a_class_of_a_prompt_is_the_mean_over_its_tokens(tmp_path: Path) -> None:
    transformers.AutoConfig.for_model("mm-grounding-dino", **TINY).save_pretrained(tmp_path)
    plain = build("grounding-dino", folder=str(tmp_path), changes={}).module
    plain.save_pretrained(tmp_path)
    transformers.BertTokenizer(vocab={w: i for i, w in enumerate(VOCABULARY)}).save_pretrained(
        tmp_path
    )
    model = build("grounding-dino", folder=str(tmp_path), changes={}, names=WORDS)
    prompt = [101, 1013, 1012, 1014, 1015, 1012, 1016, 1012, 102]
    assert model.module.prompt.tolist() == [prompt]
    ids = torch.tensor([prompt] * 4)
    x = images()
    with torch.no_grad():
        found = model.module(pixel_values=model.prepared(x), input_ids=ids)
        outputs = model(x)
    tokens = found.logits
    wanted = torch.stack([tokens[..., 1], tokens[..., 3:5].mean(-1), tokens[..., 6]], dim=-1)
    torch.testing.assert_close(outputs[..., :CLASSES], wanted)
    for names, said in (
        (["cat", "dog"], "are not 3 different ones"),
        (["cat", "Cat", "dog"], "are not 3 different ones"),
        (["a. b", "c", "d"], "without full stops"),
        ([], "are not 3 different ones"),
    ):
        with pytest.raises(BenchError, match=said):
            build("grounding-dino", folder=str(tmp_path), changes={}, names=names)


def test_names_without_a_tokenizer_and_prompts_that_are_too_long_are_one_line() -> None:
    for more, classes, said in (
        ({"names": WORDS}, 3, r"no folder has no tokenizer"),
        ({}, 30, r"the prompt of 30 classes has 62 tokens .* the model takes 32"),
    ):
        with pytest.raises(BenchError, match=said) as told:
            build("grounding-dino", classes, **more)
        assert "\n" not in str(told.value)


def test_other_detectors_and_sides_are_refused(tmp_path: Path) -> None:
    transformers.DetrConfig().save_pretrained(tmp_path)
    for name, said in (("hf-detector", "detr is not YOLOS"), ("grounding-dino", "it is of detr")):
        with pytest.raises(BenchError, match=said):
            build(name, folder=str(tmp_path), changes={})
    with pytest.raises(BenchError, match="image_size 36 is not divisible by the patch of 8"):
        build("hf-detector", image_size=36)


def test_each_box_gets_the_query_of_least_total_cost() -> None:
    cost = torch.tensor([[[1.0, 5.0, 0.0], [0.5, 4.0, 0.0]], [[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]]])
    there = torch.tensor([[True, True, False], [True, False, False]])
    assert assignment(cost, there).tolist() == [[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]]
    more = assignment(cost[:1], torch.ones(1, 3, dtype=torch.bool))
    assert float(more.sum()) == 2  # of three boxes for two queries one gets none
    broken = assignment(cost * float("nan"), there)
    assert float(broken.sum()) == 3


@pytest.mark.parametrize("name", ["hf-detector", "grounding-dino"])
def test_a_batch_without_any_box_has_a_loss(name: str) -> None:
    model = build(name)
    loss = model.loss(model(images()), torch.full((4, 2, 5), -1.0))
    assert loss.isfinite()
    loss.backward()


def test_what_a_step_costs_is_told_without_values() -> None:
    from bench.estimate.fake_tensors import FakeMode, emptied, without_values

    fakes = FakeMode()
    model = emptied(build("hf-detector"), fakes)
    model.train(True)
    with without_values(fakes):
        x = torch.rand(4, 3, 48, 48)
        outputs = model(x)
        y = model.rules.sample_labels(outputs, x, CLASSES)
        model.loss(outputs, y).backward()
    assert model.module.vit.layernorm.weight.grad.shape == (32,)
