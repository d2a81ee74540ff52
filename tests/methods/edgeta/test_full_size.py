"""EdgeTA on the registered adapters of ViT-B/16 and BERT base: one step each, small and full."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.contracts.data import DomainView
from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.method import EdgeTA
from bench.methods.edgeta.offline import weights_of
from bench.models.bert import Bert, BertConfig
from bench.models.vit import ViTB16, ViTB16Config

SETTINGS: dict[str, Any] = {
    "lora_steps": 1, "kb_steps": 1, "index_steps": 1, "checkpoints": 1, "max_residual": None,
    "epochs": 1,
}  # fmt: skip


def count(weights: dict[str, torch.Tensor]) -> int:
    return sum(w.numel() for w in weights.values())


def one_step(model: Any, inputs: Any, adapt: Any, **settings: Any) -> EdgeTA:
    """Adapted by one step on 2 samples, of which the source has 4 more."""
    torch.manual_seed(0)

    def view(n: int, y: Any) -> DomainView:
        return DomainView("d", inputs(n), y, 2, torch.Generator().manual_seed(0))

    method = EdgeTA(EdgeTAConfig(**{**SETTINGS, **settings}))
    method.prepare(model, view(4, torch.tensor([0, 1, 1, 0])))
    fm, kb = ({n: p.clone() for n, p in weights_of(m).items()} for m in (method.fm, method.kb))
    tracker = adapt(method, view(2, None))
    assert tracker.counts == {"proxy": 1, "adapt": 1, "feedback": 1}
    for before, part in ((fm, method.fm), (kb, method.kb)):
        after = weights_of(part)
        assert all(w.isfinite().all() for w in after.values())
        for block in part.blocks():
            for name in (*block.qkv, block.ff_out):
                assert not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"]), name
        head = [n for n in after if n.startswith(f"{part.head_name}.")]
        assert all(torch.equal(after[n], before[n]) for n in head)
    with torch.no_grad():
        assert method.predict(inputs(2)).isfinite().all()
    return method


def images(n: int, size: int = 224) -> torch.Tensor:
    return torch.rand(n, 3, size, size)


def texts(n: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 40, (n, 16))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_a_shrunk_vit_b_16_is_adapted(adapt) -> None:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    small = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=48, depth=2, num_heads=4, num_classes=3
    )
    one_step(ViTB16(small), lambda n: images(n, 16), adapt)


def test_a_shrunk_bert_base_is_adapted(adapt) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, layers=2, heads=4, intermediate_size=64, vocabulary=40, positions=16
    )
    one_step(Bert.build(config, (16,), 3), texts, adapt)


def by_hand(fm: int, width: int = 768, inner: int = 3072, layers: int = 12) -> dict[str, int]:
    """Parameters with every inner width divided by 4, gates of a bottleneck of 48, sparsity 0.8."""
    quarter, ff = width // 4, inner // 4
    gone = 4 * width * (width - quarter) + 3 * (width - quarter)
    gone += 2 * width * (inner - ff) + inner - ff
    gates = (width + 1) * (ff // 16) + (ff // 16 + 1) * ff
    dropped = int(ff * 0.8)
    kb = fm - layers * gone
    return {"kb": kb + layers * gates, "proxy": kb - layers * dropped * (2 * width + 1)}


@pytest.mark.slow
def test_vit_b_16_is_adapted(adapt) -> None:
    torch.manual_seed(0)
    model = ViTB16.build(ViTB16Config(), (3, 224, 224), 3)
    fm = sum(p.numel() for p in model.module.parameters())
    method = one_step(model, images, adapt)
    expected = by_hand(fm)
    assert count(weights_of(method.kb)) == expected["kb"]
    assert count(weights_of(method.model)) == expected["proxy"]
    assert expected["proxy"] * 7.9 < fm < expected["proxy"] * 8.1


@pytest.mark.slow
def test_bert_base_is_adapted(adapt) -> None:
    torch.manual_seed(0)
    model = Bert.build(BertConfig(), (16,), 3)
    fm = sum(p.numel() for p in model.module.parameters())
    method = one_step(model, texts, adapt)
    expected = by_hand(fm)
    assert count(weights_of(method.kb)) == expected["kb"]
    assert count(weights_of(method.model)) == expected["proxy"]
