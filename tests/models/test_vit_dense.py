"""Vision transformers of timm that segment and detect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from bench import registry
from bench.errors import BenchError


def build(name: str, classes: int = 3, **more: Any) -> Any:
    torch.manual_seed(0)
    found = registry.load("model", name)
    config = found.Config(**{"architecture": "test_vit", "image_size": 64, **more})
    model = found.build(config, (3, 48, 48), classes)
    model.train(False)
    return model


def test_a_segmenter_gives_each_patch_the_class_of_its_token() -> None:
    model, x = build("vit-segmenter"), torch.rand(2, 3, 64, 64)
    outputs, features = model.with_features(x)
    assert outputs.shape == (2, 3, 4, 4)
    body = model.module.body
    with torch.no_grad():
        tokens = body.forward_features((x - model.module.image_mean) / model.module.image_std)
    torch.testing.assert_close(features, tokens[:, body.num_prefix_tokens :])
    torch.testing.assert_close(outputs[:, :, 2, 1], model.head(features)[:, 2 * 4 + 1])


def test_a_detector_has_cells_of_three_scales_with_boxes_around_them() -> None:
    model = build("vit-detector", width=32)
    outputs, features = model.with_features(torch.rand(2, 3, 48, 48))
    cells = 8 * 8 + 4 * 4 + 2 * 2
    assert outputs.shape == (2, cells, 3 + 4)
    assert features.shape == (2, cells, 64)
    boxes = outputs[0, :, 3:].detach()
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(middles[0], torch.full((2,), 1 / 16), atol=0.03, rtol=0)
    torch.testing.assert_close(middles[8], torch.tensor([1 / 16, 3 / 16]), atol=0.03, rtol=0)
    torch.testing.assert_close(middles[64], torch.full((2,), 1 / 8), atol=0.06, rtol=0)
    sizes = (boxes[:, 2:] - boxes[:, :2]).mean(dim=1)
    for scale, side in ((slice(0, 64), 8), (slice(64, 80), 4), (slice(80, 84), 2)):
        torch.testing.assert_close(float(sizes[scale].mean()), 4 / side, rtol=0.2, atol=0)
    assert float(outputs[..., :3].detach().sigmoid().mean()) == pytest.approx(0.01, rel=0.5)


def test_a_detector_learns_where_a_square_is() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.zeros(8, 3, 64, 64), torch.zeros(8, 1, 5)
    for i in range(8):
        left, upper = torch.randint(0, 40, (2,), generator=draw).tolist()
        x[i, i % 2, upper : upper + 24, left : left + 24] = 1
        y[i, 0] = torch.tensor([i % 2, left / 64, upper / 64, (left + 24) / 64, (upper + 24) / 64])
    model = build("vit-detector", 2, width=32)
    optimizer = torch.optim.AdamW(model.module.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model(x), y).backward()
        optimizer.step()
    score = model.rules.score()
    with torch.no_grad():
        score.update(model(x), y)
    assert score.compute() > 0.8


@pytest.mark.parametrize("name", ["vit-segmenter", "vit-detector"])
def test_weights_of_a_classifier_are_taken_without_its_head(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    classifier = timm.create_model("test_vit", num_classes=7, img_size=64)
    torch.save(classifier.state_dict(), tmp_path / "w.pt")
    model = build(name, weights=str(tmp_path / "w.pt"))
    body = model.module.body.state_dict()
    assert "head.weight" not in body
    for key, tensor in body.items():
        assert torch.equal(tensor, classifier.state_dict()[key]), key
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["vit-segmenter", "vit-detector"])
def test_other_networks_than_plain_transformers_are_refused(name: str) -> None:
    with pytest.raises(BenchError, match="test_resnet is no plain vision transformer; give one"):
        build(name, architecture="test_resnet")
    assert registry.load("model", f"{name}:test_vit").Config().architecture == "test_vit"
    assert registry.load("model", name).Config().architecture == "vit_base_patch16_224"
