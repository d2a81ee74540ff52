"""The last blocks: which tensors move, one update written out, and where the pass ends."""

from __future__ import annotations

import pytest
import torch
from small_decoders import decoder, opt_loss, texts, weights

from bench import BenchError, Unsupported
from bench.contracts.data import DomainView
from bench.methods.fine_tune import FineTune, FineTuneConfig
from bench.methods.last_blocks import LastBlocks, LastBlocksConfig, block_names
from bench.models.digits_vit import DigitsViT, DigitsViTConfig

AT = "model.decoder."


def adapted(model, view, adapt, **settings):
    method = LastBlocks(LastBlocksConfig(**{"epochs": 1, "learning_rate": 0.01} | settings))
    method.prepare(model, view(*texts(4, seed=9)))
    return adapt(method, view(*texts(6)))


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"blocks": 1}, (f"{AT}layers.1.", f"{AT}final_layer_norm.")),
        ({"blocks": 0, "tied_head": "trained"},
         (f"{AT}final_layer_norm.", f"{AT}embed_tokens.weight")),
        ({"blocks": 0}, (f"{AT}final_layer_norm.",)),
        ({"blocks": 2}, (f"{AT}layers.", f"{AT}final_layer_norm.")),
    ],
)  # fmt: skip
def test_an_update_is_adam_on_the_formulas_written_out(
    view, adapt, adam_by_hand, settings, trained
):
    model = decoder()
    before = weights(model)
    x, y = texts(6)
    leaves = {n: t.clone().requires_grad_() for n, t in before.items()}
    chosen = [n for n in before if n.startswith(trained)]
    loss = opt_loss(leaves, x["input_ids"], y, [], 0)
    gradients = torch.autograd.grad(loss, [leaves[n] for n in chosen])
    adapted(model, view, adapt, **settings)
    after = weights(model)
    assert {n for n in after if not torch.equal(after[n], before[n])} == set(chosen)
    for name, g in zip(chosen, gradients, strict=True):
        expected = adam_by_hand(before[name], [g], lr=0.01, weight_decay=0.01)
        if name.endswith("k_proj.bias"):  # whose gradient is 0 but for rounding
            assert float(g.abs().max()) < 1e-12
            continue
        torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=1e-8, msg=name)


def test_blocks_and_head_of_a_vision_transformer(adapt):
    torch.manual_seed(0)
    model = DigitsViT.build(DigitsViTConfig(width=24, depth=3, heads=2), (1, 32, 32), 10)
    assert block_names(model) == ["blocks.0", "blocks.1", "blocks.2"]
    before = weights(model)
    x, y = torch.rand(8, 1, 32, 32), torch.arange(8)
    domain = DomainView("d", x, y, 8, torch.Generator().manual_seed(0))
    method = LastBlocks(LastBlocksConfig(blocks=1, epochs=1))
    method.prepare(model, domain)
    adapt(method, domain)
    changed = {n for n, t in weights(model).items() if not torch.equal(t, before[n])}
    expected = {n for n in before if n.startswith(("blocks.2.", "norm.", "head."))}
    assert changed == expected


def test_fewer_blocks_are_fewer_operations_and_a_tied_head_is_the_whole_way(view, adapt):
    costs = {}
    for name, settings in {
        "0": {"blocks": 0}, "1": {"blocks": 1}, "2": {"blocks": 2},
        "tied": {"blocks": 0, "tied_head": "trained"},
    }.items():  # fmt: skip
        costs[name] = adapted(decoder(), view, adapt, **settings).flops
    whole = FineTune(FineTuneConfig(epochs=1))
    whole.prepare(decoder(), view(*texts(4, seed=9)))
    costs["all"] = adapt(whole, view(*texts(6))).flops
    assert costs["0"] < costs["1"] < costs["2"] < costs["all"]
    assert costs["1"] < costs["tied"] < costs["all"]


def test_refusals(model, view, data, adapt):
    with pytest.raises(BenchError, match="blocks 3, and LanguageModel has 2; give 2 or fewer"):
        adapted(decoder(), view, adapt, blocks=3)
    with pytest.raises(Unsupported, match="last-blocks: LanguageModel declares no blocks"):
        adapted(decoder("bloom"), view, adapt)
    with pytest.raises(Unsupported, match="last-blocks: TinyModel declares no blocks"):
        LastBlocks(LastBlocksConfig()).prepare(model, view(*data(4)))
