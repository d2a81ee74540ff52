"""ViT-B/16: its size, its input, its weights from a file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from bench.errors import BenchError
from bench.models.vit import ViTB16, ViTB16Config
from bench.models.weights import load_weights


@pytest.fixture(scope="module")
def full() -> ViTB16:
    with torch.device("meta"):
        return ViTB16.build(ViTB16Config(), (3, 224, 224), 20)


def small(classes: int, **changes: Any) -> VisionTransformer:
    return VisionTransformer(
        **{"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2,
           "num_classes": classes, **changes}
    )  # fmt: skip


def test_it_has_12_blocks_and_85_8_million_parameters(full: ViTB16) -> None:
    assert sum(p.numel() for p in full.body_parameters()) == 85_798_656
    assert sum(p.numel() for p in full.head_parameters()) == 768 * 20 + 20
    blocks = full.blocks()
    assert len(blocks) == 12
    for block in blocks:
        assert block.fused
        assert block.heads == 12
        assert full.module.get_submodule(block.attention).get_submodule("qkv").out_features == 2304
        assert full.module.get_submodule(block.ff_in).out_features == 3072


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 224), (9,)])
def test_another_input_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BenchError, match=r"input shape \(.*is not \(3, 224, 224\); choose"):
        ViTB16.build(ViTB16Config(), shape, 20)


def test_the_configured_file_is_read(tmp_path) -> None:
    with pytest.raises(BenchError, match=r"weights .*none\.pt cannot be read"):
        ViTB16.build(ViTB16Config(weights=str(tmp_path / "none.pt")), (3, 224, 224), 20)


@pytest.mark.parametrize("classes", [7, 3])
def test_weights_come_back_and_a_head_of_other_classes_stays_fresh(tmp_path, classes) -> None:
    saved, fresh = small(7), small(classes)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    head = {n: t.clone() for n, t in fresh.state_dict().items() if n.startswith("head.")}
    load_weights(fresh, tmp_path / "w.pt", "head")
    for name, tensor in fresh.state_dict().items():
        own = name in head and classes != 7
        assert torch.equal(tensor, head[name] if own else saved.state_dict()[name]), name


def test_weights_of_another_architecture_are_refused(tmp_path) -> None:
    torch.save(small(7, depth=3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(BenchError, match=r"w\.pt do not fit the model.*blocks\.2") as caught:
        load_weights(small(7), tmp_path / "w.pt", "head")
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_or_holds_something_else_is_refused(tmp_path) -> None:
    torch.save(small(2), tmp_path / "module.pt")
    with pytest.raises(BenchError, match=r"module\.pt cannot be read"):
        load_weights(small(2), tmp_path / "module.pt", "head")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BenchError, match=r"list\.pt are not a state dict"):
        load_weights(small(2), tmp_path / "list.pt", "head")


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"qk_norm": True}, "q_norm"), ({"scale_attn_norm": True}, "norm")],
)
def test_attention_with_weights_of_its_width_is_not_resized(changes, part) -> None:
    model = ViTB16(small(2, **changes))
    with pytest.raises(BenchError, match=rf"blocks\.0\.attn\.{part} is LayerNorm"):
        model.resize_attention(model.blocks()[0], 2, 6)


def test_gated_attention_is_not_resized() -> None:
    model = ViTB16(small(2))
    model.module.get_submodule("blocks.0.attn").gate = torch.nn.Linear(24, 24)
    with pytest.raises(BenchError, match=r"blocks\.0\.attn\.gate is Linear"):
        model.resize_attention(model.blocks()[0], 2, 6)
