"""Keys and values before those of a decoder's blocks: against the formulas, written out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bench.methods.mpnp.connection import Aligner, Gates, prefix_cache, without_prefix


def plain_attention(
    attention: Any, hidden: Tensor, key: Tensor | None, value: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Causal attention head by head over [prefix; words]; the outputs and the weights."""
    n, words, width = hidden.shape
    heads, size = attention.num_heads, width // attention.num_heads
    q, k, v = (
        hidden @ layer.weight.T + layer.bias
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    k = k if key is None else torch.cat([key, k], dim=1)
    v = v if value is None else torch.cat([value, v], dim=1)
    before = k.shape[1] - words
    mixed, weights = torch.zeros_like(hidden), torch.zeros(n, heads, words, k.shape[1])
    for i in range(n):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(words):
                seen = before + t + 1
                scores = k[i, :seen, part] @ q[i, t, part] / math.sqrt(size)
                p = scores.exp() / scores.exp().sum()
                mixed[i, t, part] = p @ v[i, :seen, part]
                weights[i, h, t, :seen] = p
    return mixed @ attention.out_proj.weight.T + attention.out_proj.bias, weights


def normed(layer: nn.LayerNorm, hidden: Tensor) -> Tensor:
    away = hidden - hidden.mean(dim=-1, keepdim=True)
    return away / (away.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt() * layer.weight + (
        layer.bias
    )


def plain_decoder(model: Any, ids: Tensor, prefixes: list[Any]) -> tuple[Tensor, list[Tensor]]:
    """Logits of the last word, and the attention weights of each block."""
    decoder = model.net.language.decoder
    places = torch.arange(ids.shape[1]) + model.tokens_each + 2  # OPT counts positions from 2
    hidden = decoder.embed_tokens.weight[ids] + decoder.embed_positions.weight[places]
    every = []
    for layer, (key, value) in zip(decoder.layers, prefixes, strict=True):
        mixed, weights = plain_attention(
            layer.self_attn, normed(layer.self_attn_layer_norm, hidden), key, value
        )
        hidden = hidden + mixed
        inner = normed(layer.final_layer_norm, hidden) @ layer.fc1.weight.T + layer.fc1.bias
        hidden = hidden + inner.clamp_min(0) @ layer.fc2.weight.T + layer.fc2.bias
        every.append(weights)
    last = normed(decoder.final_layer_norm, hidden)[:, -1]
    return last @ model.net.head.weight.T + model.net.head.bias, every


def drawn(n: int, tokens: int, width: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    shape = (n, tokens, width)
    return tuple(torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def watched(model: Any) -> list[Tensor]:
    """Filled with the attention weights of each block as the model answers."""
    found: list[Tensor] = []
    for layer in model.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: found.append(out[1].detach()))
    return found


def test_linked_blocks_attend_to_the_prefix_times_their_gate(modal, samples) -> None:
    x, _ = samples(2)
    key, value = drawn(2, 4, 16)
    gates = torch.tensor([0.3, 0.8], dtype=torch.float64)
    with torch.no_grad():
        cache = prefix_cache(key, value, gates, heads=2, blocks=3)
        with without_prefix(list(modal.layers[:1]), 4):
            found = modal.answered(x, cache=cache)
        prefixes = [(None, None), *((g * key, g * value) for g in gates)]
        expected, _ = plain_decoder(modal, x["input_ids"], prefixes)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_zero_keys_draw_attention_and_corrected_blocks_have_none(modal, samples) -> None:
    x, _ = samples(2)
    key, value = drawn(2, 4, 16)
    gates = torch.tensor([0.5], dtype=torch.float64)
    nothing = torch.zeros_like(key)
    shown = watched(modal)
    with torch.no_grad():
        modal.answered(x, cache=prefix_cache(key, value, gates, 2, 3))
        faithful = [weights[..., :4].sum(dim=-1) for weights in shown[:2]]
        expected, by_hand = plain_decoder(
            modal, x["input_ids"], [(nothing, nothing)] * 2 + [(0.5 * key, 0.5 * value)]
        )
        shown.clear()
        found = modal.answered(x, cache=prefix_cache(key, value, gates, 2, 3))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        for weights, plain in zip(shown, by_hand, strict=True):
            torch.testing.assert_close(weights, plain.to(weights), rtol=1e-5, atol=1e-6)
        shown.clear()
        with without_prefix(list(modal.layers[:2]), 4):
            modal.answered(x, cache=prefix_cache(key, value, gates, 2, 3))
    assert min(float(mass.min()) for mass in faithful) > 0.3  # 4 zero keys beside 3 words
    assert [weights.shape[-1] for weights in shown] == [3, 3, 7]
    assert float((shown[0].sum(dim=-1) - 1).abs().max()) < 1e-6


def test_blocks_without_a_prefix_compute_what_the_decoder_alone_does(modal, samples) -> None:
    x, _ = samples(3)
    key, value = drawn(3, 4, 16)
    kept: list[Tensor] = []
    handle = modal.layers[1].register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        modal.answered(x)
        with without_prefix(list(modal.layers[:2]), 4):
            modal.answered(x, cache=prefix_cache(key, value, torch.ones(1).double(), 2, 3))
        handle.remove()
        modal.answered(x)  # the hooks are gone
    assert torch.equal(kept[0], kept[1])
    assert not any(layer._forward_pre_hooks for layer in modal.layers)


def test_an_aligner_is_two_layers_with_a_gelu_between() -> None:
    torch.manual_seed(1)
    made = Aligner(3, 5).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    inner = x @ made.inner.weight.T + made.inner.bias
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    torch.testing.assert_close(made(x), inner @ made.outer.weight.T + made.outer.bias)
    assert made.inner.out_features == 12  # as 384 to 1536


def test_gates_are_sigmoids_of_numbers_between_minus_1_and_1() -> None:
    torch.manual_seed(0)
    gates = Gates(1000)
    w = gates.w.detach()
    assert -1 <= float(w.min()) < -0.98
    assert 0.98 < float(w.max()) <= 1
    torch.testing.assert_close(gates().detach(), 1 / (1 + (-w).exp()))
