"""The small transformers of the tasks: what they give, do not look at, and refuse."""

from __future__ import annotations

import pytest
import torch

from bench import registry
from bench.contracts.data import Inputs
from bench.contracts.model import FoundationModel
from bench.errors import BenchError

N, TOKENS, CLASSES = 3, 6, 5
IMAGES, TEXTS = (3, 16, 24), (TOKENS,)
SHAPES = {
    "small-classifier": [(IMAGES, (N, CLASSES)), (TEXTS, (N, CLASSES))],
    "small-tagger": [(TEXTS, (N, TOKENS, CLASSES))],
    "small-segmenter": [(IMAGES, (N, CLASSES, 2, 3))],
    "small-detector": [(IMAGES, (N, 6, CLASSES + 4))],
    "small-vqa": [(IMAGES, (N, CLASSES))],
    "small-lm": [(TEXTS, (N, TOKENS, CLASSES))],
}
CASES = [(name, *case) for name, cases in SHAPES.items() for case in cases]


def make(name: str, shape: tuple[int, ...], **sizes: int) -> FoundationModel:
    torch.manual_seed(0)
    model_class = registry.load("model", name)
    model: FoundationModel = model_class.build(model_class.Config(**sizes), shape, CLASSES)
    model.train(False)
    return model


def inputs(name: str, shape: tuple[int, ...]) -> Inputs:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(8192, (N, TOKENS), generator=draw)
    mask = (torch.arange(TOKENS) < torch.tensor([[6], [3], [0]])).long()
    texts = {"input_ids": ids, "attention_mask": mask}
    images = torch.rand(N, *IMAGES, generator=draw)
    if name == "small-vqa":
        return {"image": images, **texts}
    return images if shape == IMAGES else texts


@pytest.mark.parametrize(("name", "shape", "wanted"), CASES)
def test_outputs_and_features_are_those_of_the_task(
    name: str, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    model, x = make(name, shape), inputs(name, shape)
    with torch.no_grad():
        outputs, features = model.with_features(x)
        again = model.head(model.unit_features(features, x))
    assert outputs.shape == wanted
    assert outputs.isfinite().all()
    model.rules.require_outputs(tuple(outputs.shape), N, CLASSES, "here")
    # The head's units are the task's, in one order; what stands behind the logits is decoded.
    assert torch.allclose(again[:, :CLASSES], model.units(outputs, x), atol=1e-6)


def test_a_fresh_detector_gives_each_patch_a_quarter_of_the_image_around_it() -> None:
    model, x = make("small-detector", IMAGES), inputs("small-detector", IMAGES)
    with torch.no_grad():
        model.head.weight.zero_()  # type: ignore[union-attr,operator]
        outputs = model(x)
    scores, boxes = outputs[..., :CLASSES].sigmoid(), outputs[..., CLASSES:]
    assert scores.max() < 0.011
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    wanted = [[across / 6, down / 4] for down in (1, 3) for across in (1, 3, 5)]
    assert torch.allclose(middles, torch.tensor(wanted).expand(N, 6, 2), atol=1e-6)
    assert torch.allclose(boxes[..., 2:] - boxes[..., :2], torch.tensor(0.2384), atol=1e-4)


@pytest.mark.parametrize("name", ["small-classifier", "small-tagger", "small-lm", "small-vqa"])
def test_padding_is_not_looked_at(name: str) -> None:
    shape = IMAGES if name == "small-vqa" else TEXTS
    model, x = make(name, shape), inputs(name, shape)
    other = dict(x)
    other["input_ids"] = torch.where(x["attention_mask"].bool(), x["input_ids"], 7)
    other["input_ids"][2, 0] = x["input_ids"][2, 0]  # of an empty text the first token counts
    with torch.no_grad():
        a, b = (model.units(model(each), each) for each in (x, other))
    assert torch.allclose(a, b, atol=1e-6)


def test_a_language_model_sees_no_later_word_and_a_tagger_does() -> None:
    for name, sees in (("small-lm", False), ("small-tagger", True)):
        model, x = make(name, TEXTS), inputs(name, TEXTS)
        other = {**x, "input_ids": x["input_ids"].clone()}
        other["input_ids"][0, -1] += 1
        with torch.no_grad():
            before = torch.equal(model(x)[0, :-1], model(other)[0, :-1])
        assert before is not sees


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "complaint"),
    [
        ("small-classifier", (3, 16, 20), {}, "16 x 20 are no whole number of patches of 8"),
        ("small-tagger", (200,), {}, "200 tokens are longer than 'words' = 128"),
        ("small-lm", (4, 4), {}, "neither"),
        ("small-vqa", IMAGES, {"width": 30}, "width 30 is not divisible by heads 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    name: str, shape: tuple[int, ...], sizes: dict[str, int], complaint: str
) -> None:
    with pytest.raises(BenchError, match=f"{name}.*{complaint}"):
        make(name, shape, **sizes)


def test_a_word_outside_the_vocabulary_is_named() -> None:
    model, x = make("small-tagger", TEXTS), inputs("small-tagger", TEXTS)
    x["input_ids"][0, 0] = 9000
    with pytest.raises(BenchError, match="has the number 9000, and the model's vocabulary is 8192"):
        model(x)
