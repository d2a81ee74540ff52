"""SAM with a box as prompt: it computes what transformers' SamModel does, and names a wrong box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench import registry
from bench.errors import BenchError, Unsupported

TINY = registry.load("model", "sam-prompted").conformance_config
SIDE = TINY["changes"]["image_size"]


def build(folder: Path | str = "", classes: int = 2, **more: Any) -> Any:
    torch.manual_seed(0)
    found = registry.load("model", "sam-prompted")
    given = {"folder": str(folder)} if folder else TINY
    model = found.build(found.Config(**{**given, **more}), (3, 48, 24), classes)
    model.train(False)
    return model


def samples(height: int = SIDE, width: int = SIDE) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    box = torch.tensor([[3.0, 4, 15, 20], [0, 0, width, height], [7.5, 1, 9, 30]])
    return {"image": torch.rand(3, 3, height, width, generator=draw), "box": box}


def whole(at: Path) -> Any:
    """A folder with the weights of a SamModel, all of notable size; the model."""
    made = build().module
    torch.manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    made.save_pretrained(at)
    return transformers.SamModel.from_pretrained(at).eval()


@pytest.mark.parametrize("size", [(SIDE, SIDE), (48, 24)])
def test_masks_are_those_of_transformers_with_the_same_weights_and_boxes(
    size: tuple[int, int], tmp_path: Path
) -> None:
    plain, x = whole(tmp_path), samples(*size)
    model = build(tmp_path)
    scale = torch.tensor([SIDE / size[1], SIDE / size[0]]).repeat(2)
    with torch.no_grad():
        outputs = model(x)
        wanted = plain(
            pixel_values=model.prepared(x["image"]),
            input_boxes=(x["box"] * scale).unsqueeze(1),
            multimask_output=False,
        ).pred_masks[:, 0, 0]
    assert outputs.shape == (3, 2, SIDE, SIDE)
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(outputs[:, 1], wanted, rtol=0, atol=1e-5)
    assert not outputs[:, 0].any()
    torch.testing.assert_close(outputs.softmax(dim=1)[:, 1], wanted.sigmoid())
    assert torch.equal(outputs.argmax(dim=1) == 1, wanted > 0)  # SAM's threshold


def test_another_box_is_another_mask(tmp_path: Path) -> None:
    whole(tmp_path)
    model, x = build(tmp_path), samples()
    moved = {**x, "box": x["box"].flip(0)}
    with torch.no_grad():
        first, second = model(x), model(moved)
    assert float((first - second)[0].abs().max()) > 1e-2
    torch.testing.assert_close(first[1], second[1])


def test_features_are_what_the_heads_output_classifies() -> None:
    model, x = build(), samples()
    weights: list[torch.Tensor] = []
    model.head.register_forward_hook(lambda *call: weights.append(call[2]))
    outputs, features = model.with_features(x)
    assert model.rules.aligned(features, outputs)
    logits = torch.einsum("nw,nwhv->nhv", weights[-1].squeeze(1), features)
    torch.testing.assert_close(logits, outputs[:, 1])


def test_all_but_what_a_box_does_not_need_learns() -> None:
    model, x = build(), samples()
    y = torch.zeros(3, SIDE, SIDE, dtype=torch.int64)
    y[:, 5:20, 5:15] = 1
    y[:, :2] = 255
    model.loss(model(x), y).backward()
    learns = {n for n, p in model.module.named_parameters() if p.grad is not None and p.grad.any()}
    others = {n for n, _ in model.module.named_parameters()} - learns
    unused = ("mask_embed", "not_a_point", "point_embed.0", "point_embed.1", "iou_prediction")
    unused += tuple(f"output_hypernetworks_mlps.{i}" for i in (1, 2, 3))
    # Adding a constant to all keys of a query changes no attention.
    assert all(any(part in name for part in (*unused, "k_proj.bias")) for name in others)
    assert "vision_encoder.layers.0.attn.qkv.weight" in learns
    assert not any("positional" in name for name, _ in model.module.named_parameters())


def test_blocks_are_those_of_the_image_encoder_of_sam() -> None:
    sam = registry.load("model", "sam")
    other = sam.build(sam.Config(changes=TINY["changes"]), (3, 48, 24), 3)
    named = [str(block).replace("body.", "") for block in other.blocks()]
    assert [str(block) for block in build().blocks()] == named


def test_fresh_weights_tell_images_apart() -> None:
    spread = build().module.vision_encoder.layers[0].mlp.lin1.weight.detach().std()
    assert float(spread) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("box", "shown"),
    [
        ([3, 4, 33, 20], "3, 4, 33, 20"),
        ([-0.5, 4, 15, 20], "-0.5, 4, 15, 20"),
        ([3, 4, 3, 20], "3, 4, 3, 20"),
        ([3, 20, 15, 4], "3, 20, 15, 4"),
        ([3, 4, 15, float("nan")], "3, 4, 15, nan"),
    ],
)
def test_a_wrong_box_is_named(box: list[float], shown: str) -> None:
    x = samples()
    x["box"][1] = torch.tensor(box)
    with pytest.raises(BenchError, match=f"sample 1 of a batch has the box {shown} ") as told:
        build()(x)
    assert "empty or leaves its image of 32 x 32 pixels: give edges in pixels" in str(told.value)
    assert "\n" not in str(told.value)


def test_samples_without_boxes_and_other_classes_are_unsupported() -> None:
    model, x = build(), samples()
    for given, said in (
        (x["image"], "samples are one tensor, and it needs 'image' and 'box'"),
        ({"image": x["image"]}, "samples are image, and it needs"),
    ):
        with pytest.raises(Unsupported, match=f"{said}.*take the data set box-prompts"):
            model(given)
    with pytest.raises(BenchError, match=r"shape \(3, 2, 4\) for 3 images: give one a sample"):
        model({**x, "box": x["box"].unsqueeze(1).expand(-1, 2, -1)})
    with pytest.raises(Unsupported, match="3 classes are asked for, and it tells an object"):
        build(classes=3)


@pytest.mark.parametrize(
    ("changes", "decoder", "said"),
    [
        ({"output_channels": 48}, {}, "num_pos_feats is 16, and output_channels 48 need 24"),
        ({}, {"hidden_size": 64}, "hidden_size is 64, and output_channels 32 need 32"),
        ({}, {"num_attention_heads": 5}, "num_attention_heads must divide hidden_size"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(
    changes: dict[str, Any], decoder: dict[str, Any], said: str
) -> None:
    given = {"changes": {**TINY["changes"], **changes}, "decoder": {**TINY["decoder"], **decoder}}
    with pytest.raises(BenchError, match=f"sam-prompted: no model can be made of .*{said}") as told:
        build(**given)
    assert "\n" not in str(told.value)


def test_a_folder_without_decoder_and_weights_of_other_sizes_are_one_line(tmp_path: Path) -> None:
    vision = transformers.SamVisionConfig(**TINY["changes"])
    transformers.SamVisionModel(vision).save_pretrained(tmp_path / "vision")
    with pytest.raises(BenchError, match="sam_vision_model is no whole SAM"):
        build(tmp_path / "vision")
    whole(tmp_path / "whole")
    for more in ({"changes": {"mlp_dim": 48}}, {"decoder": {"mlp_dim": 48}}):
        with pytest.raises(BenchError, match="do not fit at ") as told:
            build(tmp_path / "whole", **more)
        assert "\n" not in str(told.value)
