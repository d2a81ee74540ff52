"""The adapters of transformers for images, questions on images and generated text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench import registry
from bench.errors import BenchError

SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "hf-images": transformers.ViTConfig(**SIZES, image_size=24, patch_size=8),
    "hf-segmenter": transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
    ),
    "hf-vqa": transformers.ViltConfig(**SIZES, image_size=24, patch_size=8, vocab_size=30),
    "hf-lm": transformers.GPTNeoConfig(
        vocab_size=7, hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]],
        num_heads=4, max_position_embeddings=16, bos_token_id=1, eos_token_id=1,
    ),
}  # fmt: skip
CLASSES, N = 7, 3


def build(name: str, folder: Path, shape: tuple[int, ...], **more: Any) -> Any:
    torch.manual_seed(0)
    found = registry.load("model", name)
    model = found.build(found.Config(folder=str(folder), **more), shape, CLASSES)
    model.train(False)
    return model


def inputs(name: str, side: int = 24) -> tuple[Any, tuple[int, ...]]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, CLASSES, (N, 6), generator=draw)
    mask = (torch.arange(6) < torch.tensor([[6], [4], [5]])).long()
    texts, images = {"input_ids": ids, "attention_mask": mask}, torch.rand(N, 3, side, side)
    if name == "hf-lm":
        return texts, (6,)
    return ({"image": images, **texts} if name == "hf-vqa" else images), tuple(images.shape[1:])


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_weights_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    CONFIGS[name].save_pretrained(tmp_path)
    x, shape = inputs(name, side=64 if name == "hf-segmenter" else 24)
    model = build(name, tmp_path, shape)
    model.module.save_pretrained(tmp_path)
    again = build(name, tmp_path, shape)
    kind = getattr(transformers, registry.load("model", name).network())
    plain = kind.from_pretrained(tmp_path, attn_implementation="eager")
    plain.eval()
    given = dict(x) if isinstance(x, dict) else {"image": x}
    if "image" in given:
        given["pixel_values"] = (given.pop("image") - 0.5) / 0.5
    with torch.no_grad():
        wanted = plain(**given).logits
        torch.testing.assert_close(again(x), wanted)
        assert torch.equal(again(x), model(x))
    outputs, features = again.with_features(x)
    assert outputs.shape[0 if name == "hf-lm" else 1] == (N if name == "hf-lm" else CLASSES)
    assert features.shape[0] == N


@pytest.mark.parametrize(("name", "heads"), [("hf-images", 4), ("hf-vqa", 4), ("hf-lm", 4)])
def test_known_families_can_be_narrowed(name: str, heads: int, tmp_path: Path) -> None:
    from bench.models.surgery.masking import require_prunable
    from bench.models.surgery.pruning import cut, strongest

    CONFIGS[name].save_pretrained(tmp_path)
    x, shape = inputs(name)
    model = build(name, tmp_path, shape)
    assert [block.heads for block in model.blocks()] == [heads] * 2
    assert all(block.scaled is (name != "hf-lm") for block in model.blocks())
    require_prunable(model, x, strongest, 2)
    size = sum(p.numel() for p in model.body_parameters())
    cut(model, strongest(model, 2))
    assert sum(p.numel() for p in model.body_parameters()) < size
    assert model(x).isfinite().all()


def test_a_family_without_blocks_says_so(tmp_path: Path) -> None:
    CONFIGS["hf-segmenter"].save_pretrained(tmp_path)
    model = build("hf-segmenter", tmp_path, (3, 32, 32))
    assert model.blocks() == []
    assert model.head_name == "decode_head.classifier"


def test_images_are_resized_and_normalized_as_the_folder_says(tmp_path: Path) -> None:
    CONFIGS["hf-images"].save_pretrained(tmp_path)
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 4.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model = build("hf-images", tmp_path, (3, 48, 48))
    seen = model.prepared(torch.full((1, 3, 48, 48), 0.5))
    assert seen.shape == (1, 3, 24, 24)
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([0.4, 0.15, 0.05]))


def test_a_processor_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    CONFIGS["hf-images"].save_pretrained(tmp_path)
    for text in ("{", '{"image_mean": [0.5]}', '{"image_mean": [1, 1, 1], "image_std": [0, 1, 1]}'):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(BenchError, match=r"has no image_mean and image_std of three") as told:
            build("hf-images", tmp_path, (3, 24, 24))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["hf-images", "hf-segmenter", "hf-vqa"])
def test_other_inputs_than_color_images_are_refused(name: str, tmp_path: Path) -> None:
    CONFIGS[name].save_pretrained(tmp_path)
    for shape in ((8,), (1, 24, 24)):
        with pytest.raises(BenchError, match="are no images"):
            build(name, tmp_path, shape)


def test_a_language_model_whose_vocabulary_is_not_the_datas_is_refused(tmp_path: Path) -> None:
    CONFIGS["hf-lm"].save_pretrained(tmp_path)
    build("hf-lm", tmp_path, (6,)).module.save_pretrained(tmp_path)
    found = registry.load("model", "hf-lm")
    with pytest.raises(BenchError, match="has 7 tokens, and the data 9: give the data"):
        found.build(found.Config(folder=str(tmp_path)), (6,), 9)
    with pytest.raises(BenchError, match="longer than the model's 16 positions"):
        found.build(found.Config(folder=str(tmp_path)), (17,), 7)


def test_dropout_of_vilt_differs_from_step_to_step(tmp_path: Path) -> None:
    CONFIGS["hf-vqa"].save_pretrained(tmp_path)
    x, shape = inputs("hf-vqa")
    model = build("hf-vqa", tmp_path, shape, changes={"hidden_dropout_prob": 0.5})
    assert torch.equal(model(x), model(x))
    model.train()
    torch.manual_seed(3)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)


def test_questions_longer_than_the_positions_are_one_line(tmp_path: Path) -> None:
    CONFIGS["hf-vqa"].save_pretrained(tmp_path)
    x, shape = inputs("hf-vqa")
    long = {name: torch.ones(N, 64, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    with pytest.raises(BenchError, match="texts of 64 tokens are longer than the model's 40") as e:
        build("hf-vqa", tmp_path, shape)({**x, **long})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["hf-images", "hf-segmenter", "hf-vqa"])
def test_images_come_in_the_type_of_the_weights(name: str, tmp_path: Path) -> None:
    CONFIGS[name].save_pretrained(tmp_path)
    x, shape = inputs(name, side=64 if name == "hf-segmenter" else 24)
    model = build(name, tmp_path, shape, dtype="bfloat16")
    assert model(x).dtype == torch.bfloat16


def test_vilt_draws_nothing_from_the_run(tmp_path: Path) -> None:
    CONFIGS["hf-vqa"].save_pretrained(tmp_path)
    x, shape = inputs("hf-vqa")
    model = build("hf-vqa", tmp_path, shape)
    before = torch.get_rng_state()
    first = model(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(model(x), first)
