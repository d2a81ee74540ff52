"""The embedded language model with two modalities: what its source training teaches whom."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
import torch

from bench import BenchError
from bench.models.digits_modal_lm import DigitsModalConfig, DigitsModalLM

SIZES = {"width": 16, "depth": 2, "heads": 2, "encoder_width": 8, "encoder_depth": 3, "tokens": 2}


@pytest.fixture
def made() -> DigitsModalLM:
    torch.manual_seed(0)
    return DigitsModalLM.build(DigitsModalConfig(**SIZES, vocabulary=20), (1, 16, 16), 5)


@pytest.fixture
def x() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    images = {name: torch.rand(4, 1, 16, 16, generator=draw) for name in ("image", "range")}
    words = {
        name: torch.randint(20, (4, n), generator=draw)
        for name, n in (("input_ids", 3), ("caption", 2))
    }
    return {**images, **words}


def test_source_training_teaches_the_decoder_by_captions_alone(made, x) -> None:
    """No gradient of what the projection's answers cost reaches the decoder or the encoder."""
    y = torch.tensor([0, 1, 2, 3])
    outputs = made(made.augment(x))
    assert outputs.shape == (8, 5 + 2)
    made.loss(outputs, y).backward()
    language = dict(made.net.language.named_parameters())
    found = {n: p.grad.clone() for n, p in language.items() if p.grad is not None}
    by_first = torch.autograd.grad(
        torch.nn.functional.cross_entropy(
            made.answered(x, made.net.projection(made.encoded("image", x).detach())), y
        ),
        made.net.projection.weight,
    )[0]
    torch.testing.assert_close(made.net.projection.weight.grad, by_first / 2)
    made.module.zero_grad()
    captions = made.answered(x, made.net.language.decoder.embed_tokens(x["caption"]))
    (torch.nn.functional.cross_entropy(captions, y) / 2).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, language[name].grad, rtol=1e-4, atol=1e-7)
    made.module.zero_grad()
    for name in made.modalities:
        tokens = made.encoded(name, x)[:, -1]
        cost = torch.nn.functional.cross_entropy(
            made.net.encoders[name].names(tokens), x["caption"][:, -1], label_smoothing=0.1
        )
        cost.backward()
    expected = {n: p.grad.clone() for n, p in made.net.encoders.named_parameters()
                if p.grad is not None}  # fmt: skip
    made.module.zero_grad()
    made.loss(made(made.augment(x)), y).backward()
    encoders = dict(made.net.encoders.named_parameters())
    for name, gradient in expected.items():
        torch.testing.assert_close(encoders[name].grad, gradient, rtol=1e-4, atol=1e-7)
    assert all(p.requires_grad for p in made.module.parameters())


def test_an_encoder_gives_the_class_token_of_each_of_its_last_blocks(made, x) -> None:
    made.train(False)
    kept: list[torch.Tensor] = []
    body = made.net.encoders["image"].body
    for block in body.blocks:
        block.register_forward_hook(lambda _, __, out: kept.append(out[:, 0]))
    with torch.no_grad():
        found = made.encoded("image", x)
        expected = body.norm(torch.stack(kept[-2:], dim=1))
        whole = body.forward_features(2 * x["image"] - 1)[:, 0]  # timm's own pass
    assert found.shape == (4, 2, 8)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[:, -1], whole)


def test_what_stands_before_a_question_has_the_places_of_a_caption(made, x) -> None:
    ids, soft = x["input_ids"], torch.zeros(4, 5, 16)
    places = made._given(ids, soft, None)["position_ids"]
    assert places[0].tolist() == [0, 1, 0, 1, 0, 2, 3, 4]
    assert made._given(ids, None, None)["position_ids"][0].tolist() == [2, 3, 4]


def test_what_does_not_fit_is_an_error(made, x) -> None:
    with pytest.raises(TypeError, match="samples are a Tensor, not a dict of modalities"):
        made(x["image"])
    with pytest.raises(BenchError, match="modality 'image' is missing: the samples have range"):
        made({"range": x["range"], "input_ids": x["input_ids"]})
    with pytest.raises(BenchError, match="word has the number 20, and the model's vocabulary is"):
        made({**x, "input_ids": x["input_ids"] * 0 + 20})
    with pytest.raises(BenchError, match=r"samples of shape \(1, 12, 16\) are no images of whole"):
        DigitsModalLM.build(DigitsModalConfig(), (1, 12, 16), 5)
    for wrong in ({"modalities": ("a", "a")}, {"heads": 3}, {"tokens": 4, **{"encoder_depth": 3}}):
        with pytest.raises(pydantic.ValidationError):
            DigitsModalConfig(**{**SIZES, **wrong})
