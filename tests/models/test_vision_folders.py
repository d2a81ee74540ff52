"""CLIP and SAM from folders of transformers: their heads, their weights, their preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import transformers

from bench import registry
from bench.errors import BenchError

SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
VISION = {**SIZES, "image_size": 24, "patch_size": 8}
WORDS = ["cat", "dog", "bird"]
LETTERS = "abcdgiort"
TOKENS = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
VOCABULARY = {token: number for number, token in enumerate(TOKENS)}
TEXT = {**SIZES, "vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": 1,
        "max_position_embeddings": 16}  # fmt: skip
SAM: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 64,
    "image_size": 32, "patch_size": 4, "output_channels": 16, "window_size": 4,
    "global_attn_indexes": [1], "num_pos_feats": 8,
}  # fmt: skip
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def clip_folder(at: Path, kind: Any = transformers.CLIPModel) -> Any:
    """A folder with weights of this class; the network that they are of."""
    sizes = transformers.CLIPConfig(
        vision_config=VISION, text_config=TEXT, projection_dim=16, num_labels=3
    )
    torch.manual_seed(0)
    whole = kind._from_config(
        sizes.vision_config if kind is transformers.CLIPVisionModel else sizes,
        attn_implementation="eager",
    )
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.1 * torch.randn_like(p))
    whole.save_pretrained(at)
    return whole.eval()


def build(name: str, at: Path | str, classes: int = 3, **more: Any) -> Any:
    torch.manual_seed(1)
    found = registry.load("model", name)
    model = found.build(found.Config(folder=str(at), **more), (3, 24, 24), classes)
    model.train(False)
    return model


def images(side: int = 24) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "kind",
    [transformers.CLIPModel, transformers.CLIPVisionModel, transformers.CLIPForImageClassification],
)
def test_the_image_encoder_comes_from_a_folder_of_each_kind(tmp_path: Path, kind: Any) -> None:
    whole, x = clip_folder(tmp_path, kind), images()
    encoder = getattr(whole, "vision_model", whole)
    model = build("clip", tmp_path)
    outputs, features = model.with_features(x)
    with torch.no_grad():
        pooled = encoder((x - MEAN) / STD).pooler_output
    torch.testing.assert_close(features, pooled)
    assert torch.equal(model.head(features), outputs)
    assert outputs.shape == (2, 3)
    assert len(model.blocks()) == 2


def test_the_mean_of_patches_is_clips_own_classifier_with_its_head(tmp_path: Path) -> None:
    whole, x = clip_folder(tmp_path, transformers.CLIPForImageClassification), images()
    with torch.no_grad():
        wanted = whole((x - MEAN) / STD).logits
        torch.testing.assert_close(build("clip", tmp_path, head="patches")(x), wanted)
        assert not torch.allclose(build("clip", tmp_path)(x), wanted)


def with_tokenizer(at: Path) -> None:
    tokenizer = transformers.CLIPTokenizer(vocab=VOCABULARY, merges=[])
    tokenizer.save_pretrained(at)


def test_a_zero_shot_head_is_what_clip_says_of_prompts(tmp_path: Path) -> None:
    whole, x = clip_folder(tmp_path), images()
    with_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = build("clip", tmp_path, head="zero-shot", names=WORDS, prompt="a {}")
    texts = tokenizer([f"a {word}" for word in WORDS], padding=True, return_tensors="pt")
    assert len({tuple(ids) for ids in texts["input_ids"].tolist()}) == 3
    with torch.no_grad():
        wanted = whole(pixel_values=(x - MEAN) / STD, **texts).logits_per_image
        outputs, features = model.with_features(x)
    torch.testing.assert_close(outputs, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    assert len(model.head_parameters()) == 1
    assert not any("text" in name for name, _ in model.module.named_parameters())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"names": ["cat", "dog"]}, "2 names for 3 classes; give 'names' one for each"),
        ({"names": WORDS}, "has no tokenizer \\(none of tokenizer.json"),
    ],
)
def test_a_zero_shot_head_that_cannot_be_is_one_line(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    clip_folder(tmp_path)
    with pytest.raises(BenchError, match=said) as told:
        build("clip", tmp_path, head="zero-shot", **more)
    assert "\n" not in str(told.value)


def test_names_belong_to_zero_shot_alone() -> None:
    settings = registry.load("model", "clip").Config
    for wrong in ({"names": ["cat"]}, {"head": "zero-shot"}):
        with pytest.raises(pydantic.ValidationError, match="belong to head: zero-shot"):
            settings(**wrong)
    with pytest.raises(pydantic.ValidationError, match=r"no \{\} for the name"):
        settings(prompt="a photo")


def test_weights_of_other_sizes_and_other_networks_are_one_line(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip")
    transformers.BertConfig(**SIZES).save_pretrained(tmp_path / "bert")
    for at, more, said in (
        ("clip", {"changes": {"intermediate_size": 48}}, r"do not fit at vision_model\."),
        ("clip", {"changes": {"num_hidden_layers": 3}}, r"do not fit at vision_model\."),
        ("clip", {"changes": {"hidden_size": 30}}, "no model can be made of .*not a multiple"),
    ):
        with pytest.raises(BenchError, match=said) as told:
            build("clip", tmp_path / at, **more)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("whole", [False, True])
def test_sam_is_its_image_encoder_with_a_layer_on_the_neck(tmp_path: Path, whole: bool) -> None:
    torch.manual_seed(0)
    vision = transformers.SamVisionConfig(**SAM, initializer_range=0.02)
    if whole:
        sizes = transformers.SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config={"hidden_size": 16, "image_size": 32, "patch_size": 4,
                                   "mask_input_channels": 4},
            mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "iou_head_hidden_dim": 16},
        )  # fmt: skip
        network = transformers.SamModel(sizes)
        encoder: Any = network.vision_encoder
    else:
        network = encoder = transformers.SamVisionModel(vision)
    network.eval().save_pretrained(tmp_path)
    model, x = build("sam", tmp_path, 5), images()
    outputs, features = model.with_features(x)
    assert outputs.shape == (2, 5, 8, 8)
    with torch.no_grad():
        neck = encoder(model.prepared(x)).last_hidden_state
    torch.testing.assert_close(features, neck.flatten(2).transpose(1, 2))
    head = model.head(features)
    torch.testing.assert_close(outputs[:, :, 3, 1], head[:, 3 * 8 + 1])


def test_fresh_weights_of_sam_tell_images_apart() -> None:
    assert transformers.SamVisionConfig().initializer_range < 1e-6  # with it they would not
    model = build("sam", "", changes=SAM)
    first, second = model(images())
    assert float((first - second).detach().abs().max()) > 1e-2
    assert tuple(model.prepared(images()).shape[2:]) == (32, 32)
    spread = model.module.body.vision_encoder.layers[0].mlp.lin1.weight.detach().std()
    assert float(spread) == pytest.approx(0.02, rel=0.1)
