"""The LoRA method: only the attention's projections change, and the model stays as small."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench import registry
from bench.contracts.data import DomainView
from bench.methods.lora import Lora, LoraConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig


def test_only_query_key_and_value_change_and_nothing_stays_behind(adapt):
    torch.manual_seed(0)
    model = DigitsViT.build(DigitsViTConfig(width=24, depth=2, heads=2), (1, 32, 32), 10)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    x, y = torch.rand(8, 1, 32, 32), torch.arange(8)
    view = DomainView("d", x, y, 4, torch.Generator().manual_seed(0))
    method = Lora(LoraConfig(rank=2, epochs=2))
    method.prepare(model, view)
    tracker = adapt(method, view)
    after = dict(model.module.named_parameters())
    assert tracker.counts == {"adapt": 4, "fuse": 1}
    assert set(after) == set(before)
    changed = {n for n in before if not torch.equal(before[n], after[n].detach())}
    assert changed == {"blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"}
    update = (after["blocks.0.attn.qkv.weight"] - before["blocks.0.attn.qkv.weight"]).detach()
    for part in update.split(24):
        assert torch.linalg.matrix_rank(part, rtol=1e-4) == 2


@pytest.mark.parametrize(
    ("shifts", "train_head", "skipped"),
    [
        (("domain",), False, False),
        (("class",), True, False),
        (("class",), False, True),
        (("domain", "class"), False, True),
    ],
)
def test_new_classes_need_the_head(monkeypatch, make_cell, shifts, train_head, skipped):
    monkeypatch.setattr(registry, "load", lambda kind, name: SimpleNamespace(shifts=shifts))
    config = LoraConfig(train_head=train_head).model_dump(mode="json")
    cell = make_cell(method={"name": "lora", "config": config, "code": "c0ffee"})
    reason = Lora.skip(cell)
    assert (reason is not None) == skipped
    if skipped:
        assert "train_head: true" in reason
