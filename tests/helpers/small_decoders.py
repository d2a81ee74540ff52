"""Small decoders of transformers in double precision, their texts, and OPT written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import load

WORDS, LENGTH = 30, 9
SIZES: dict[str, dict[str, Any]] = {
    "opt": {
        "hidden_size": 8, "word_embed_proj_dim": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "ffn_dim": 12, "max_position_embeddings": 32, "dropout": 0.0,
    },
    "bloom": {"hidden_size": 8, "n_layer": 2, "n_head": 2},
    "gpt-neo": {
        "hidden_size": 8, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 32,
        "attention_types": [[["global", "local"], 1]],
    },
    "t5": {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2},
}  # fmt: skip


def decoder(name: str = "opt", **changes: Any) -> Any:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(0)
    kind = load("model", name)
    attention = {"attention": "sdpa"} if name == "opt" else {}  # eager: softmax in float32
    made = kind.build(kind.Config(changes=SIZES[name] | changes, **attention), (LENGTH,), WORDS)
    made.module.double().eval()
    with torch.no_grad():
        for p in made.module.parameters():  # biases are made 0, and scales 1
            p.add_(0.1 * torch.randn_like(p))
    return made


def texts(n: int, seed: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs without padding, and labels of the second half of the tokens."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(WORDS, (n, LENGTH + 1), generator=draw)
    y = ids[:, 1:].clone()
    y[:, : LENGTH // 2] = -100
    x = {"input_ids": ids[:, :-1], "attention_mask": torch.ones(n, LENGTH, dtype=torch.int64)}
    return x, y


def weights(model: Any) -> dict[str, Tensor]:
    """Copies of all parameters by their names."""
    return {n: p.detach().clone() for n, p in model.module.named_parameters()}


def opt_loss(
    w: dict[str, Tensor], ids: Tensor, y: Tensor, prefix: list[tuple[Tensor, Tensor]], first: int
) -> Tensor:
    """Mean cross-entropy of `decoder` written out, with keys and values (heads, k, width) before.

    ``first``: the position of the first token.
    """
    n, length = ids.shape
    heads = SIZES["opt"]["num_attention_heads"]

    def norm(h: Tensor, name: str) -> Tensor:
        centred = h - h.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(h: Tensor, name: str) -> Tensor:
        return h @ w[f"{name}.weight"].t() + w[f"{name}.bias"]

    at = "model.decoder."
    places = torch.arange(length) + first + 2  # OPT's table begins at 2
    h = w[f"{at}embed_tokens.weight"][ids] + w[f"{at}embed_positions.weight"][places]
    for i in range(SIZES["opt"]["num_hidden_layers"]):
        layer = f"{at}layers.{i}."
        inside = norm(h, f"{layer}self_attn_layer_norm")
        q, k, v = (
            linear(inside, f"{layer}self_attn.{part}_proj").view(n, length, heads, -1)
            for part in "qkv"
        )
        before = 0
        if prefix:
            before = prefix[i][0].shape[1]
            k, v = (
                torch.cat([p.transpose(0, 1).expand(n, -1, -1, -1), part], dim=1)
                for p, part in zip(prefix[i], (k, v), strict=True)
            )
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / q.shape[-1] ** 0.5
        later = torch.arange(length + before)[None] > torch.arange(length)[:, None] + before
        share = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        mixed = torch.einsum("nhqk,nkhd->nqhd", share, v).reshape(n, length, -1)
        h = h + linear(mixed, f"{layer}self_attn.out_proj")
        inside = linear(norm(h, f"{layer}final_layer_norm"), f"{layer}fc1").relu()
        h = h + linear(inside, f"{layer}fc2")
    logits = norm(h, f"{at}final_layer_norm") @ w[f"{at}embed_tokens.weight"].t()
    told = logits.log_softmax(dim=-1)
    counted = y >= 0
    return -told[counted].gather(1, y[counted].unsqueeze(1)).mean()
