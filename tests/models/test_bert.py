"""BERT for classification: its size, its inputs, its weights from a file or folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.models.bert import Bert, BertConfig

SMALL: dict[str, Any] = {
    "hidden_size": 24, "layers": 2, "heads": 2, "intermediate_size": 40, "vocabulary": 30,
    "positions": 10,
}  # fmt: skip


def small(classes: int = 3, **changes: Any) -> Bert:
    model = Bert.build(BertConfig(**{**SMALL, **changes}), (8,), classes)
    model.train(False)
    return model


@pytest.fixture
def x() -> dict[str, torch.Tensor]:
    ids = torch.randint(30, (4, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_bert_base_has_12_blocks_and_109_5_million_parameters() -> None:
    with torch.device("meta"):
        model = Bert.build(BertConfig(), (128,), 2)
    assert sum(p.numel() for p in model.module.parameters()) == 109_483_778
    blocks = model.blocks()
    assert len(blocks) == 12
    for block in blocks:
        assert not block.fused
        assert block.heads == 12
        layers = [model.module.get_submodule(n) for n in (*block.qkv, block.out)]
        assert [tuple(layer.weight.shape) for layer in layers] == [(768, 768)] * 4
        assert model.module.get_submodule(block.ff_in).out_features == 3072
        assert model.module.get_submodule(block.ff_out).in_features == 3072


def test_outputs_are_logits_and_features_what_the_classifier_receives(x) -> None:
    model = small()
    outputs, features = model.with_features(x)
    assert outputs.shape == (4, 3)
    assert features.shape == (4, 24)
    assert torch.equal(model.head(features), outputs)


def test_what_the_mask_hides_does_not_count(x) -> None:
    model = small()
    x["attention_mask"][:, 5:] = 0
    other = {**x, "input_ids": x["input_ids"].clone()}
    other["input_ids"][:, 5:] = 1
    assert torch.allclose(model(other), model(x), atol=1e-6)
    shorter = {k: v[:, :5] for k, v in x.items()}
    assert torch.allclose(model(shorter), model(x), atol=1e-6)


@pytest.mark.parametrize("shape", [(11,), (1, 32, 32)])
def test_an_input_shape_that_is_no_short_text_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BenchError, match=r"bert-base: input shape \(.*at most 10 tokens; choose"):
        Bert.build(BertConfig(**SMALL), shape, 2)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(BenchError, match="hidden_size 24 is not divisible by heads 5"):
        small(heads=5)


def saved(model: Bert, where: Any, kind: str) -> str:
    if kind == "folder":
        model.module.save_pretrained(where / "w")  # type: ignore[operator]
        return str(where / "w")
    torch.save(model.module.state_dict(), where / "w.pt")
    return str(where / "w.pt")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("classes", [3, 6])
def test_weights_come_back_but_for_a_head_of_other_classes(tmp_path, kind, classes) -> None:
    model = small()
    loaded = small(classes, weights=saved(model, tmp_path, kind))
    assert loaded.head.weight.shape == (classes, 24)
    state = model.module.state_dict()
    for name, tensor in loaded.module.state_dict().items():
        if classes == 3 or not name.startswith("classifier."):
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("change", [{"intermediate_size": 48}, {"layers": 1}, {"layers": 3}])
def test_weights_of_other_sizes_are_refused(tmp_path, kind, change) -> None:
    where = saved(small(), tmp_path, kind)
    with pytest.raises(BenchError, match="do not fit"):
        small(weights=where, **change)


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        small(weights=str(tmp_path))
