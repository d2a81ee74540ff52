"""Where the layers of transformers' networks are: the blocks of each family by their names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from bench import Block, FoundationModel, Unsupported


@dataclass(frozen=True)
class Layout:
    """Names in one family of networks: of the list of layers in the body (which has a name of its
    own in each network), and relative to one of these layers.

    ``heads`` and ``width`` are attributes of the attention: how many heads, and how wide one is;
    ``scaled``: whether scores are divided by the root of that width.
    """

    layers: str
    qkv: tuple[str, ...]
    out: str
    ff_in: str
    ff_out: str
    attention: str
    heads: str
    width: str
    scaled: bool = True


BERT = Layout(
    layers="encoder.layer",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    ff_in="intermediate.dense",
    ff_out="output.dense",
    attention="attention.self",
    heads="num_attention_heads",
    width="attention_head_size",
)
"""Also of RoBERTa, ELECTRA, CamemBERT and XLM-RoBERTa."""
DISTILBERT = Layout(
    layers="transformer.layer",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out="attention.out_lin",
    ff_in="ffn.lin1",
    ff_out="ffn.lin2",
    attention="attention",
    heads="n_heads",
    width="attention_head_size",
)
OPT = Layout(
    layers="decoder.layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    ff_in="fc1",
    ff_out="fc2",
    attention="self_attn",
    heads="num_heads",
    width="head_dim",
)
GPT_NEO = Layout(
    layers="h",
    qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    out="attn.attention.out_proj",
    ff_in="mlp.c_fc",
    ff_out="mlp.c_proj",
    attention="attn.attention",
    heads="num_heads",
    width="head_dim",
    scaled=False,
)
VIT = Layout(
    layers="layers",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    out="attention.o_proj",
    ff_in="mlp.fc1",
    ff_out="mlp.fc2",
    attention="attention",
    heads="num_attention_heads",
    width="head_dim",
)
"""Also of DeiT."""
VILT = Layout(
    layers="encoder.layer",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    out="attention.output.dense",
    ff_in="intermediate.dense",
    ff_out="output.dense",
    attention="attention.attention",
    heads="num_attention_heads",
    width="attention_head_size",
)
"""Also of YOLOS."""
CLIP = Layout(
    layers="encoder.layers",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    ff_in="mlp.fc1",
    ff_out="mlp.fc2",
    attention="self_attn",
    heads="num_heads",
    width="head_dim",
)
SAM = Layout(
    layers="vision_encoder.layers",
    qkv=("attn.qkv",),
    out="attn.proj",
    ff_in="mlp.lin1",
    ff_out="mlp.lin2",
    attention="attn",
    heads="num_attention_heads",
    width="",
)
LAYOUTS = (BERT, DISTILBERT, GPT_NEO, OPT, VIT, VILT, CLIP, SAM)
"""Not those of BLOOM: the rows of its one layer for query, key and value alternate head by head,
and blocks have them one after another.
"""
T5_ENCODER = Layout(
    layers="encoder.block",
    qkv=("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"),
    out="layer.0.SelfAttention.o",
    ff_in="layer.1.DenseReluDense.wi",
    ff_out="layer.1.DenseReluDense.wo",
    attention="layer.0.SelfAttention",
    heads="n_heads",
    width="key_value_proj_dim",
    scaled=False,
)
T5_DECODER = replace(
    T5_ENCODER,
    layers="decoder.block",
    ff_in="layer.2.DenseReluDense.wi",
    ff_out="layer.2.DenseReluDense.wo",
)
"""Its attention to the encoder's outputs stays whole. Of FLAN-T5 and T5 1.1 there are no blocks:
each of their neurons is the product of two layers.
"""


_OWN_NORMS = ("RMSNorm", "LayerNorm")
"""How the names of transformers' own classes of normalization end: those of T5, Llama, ..."""


class TransformersModel(FoundationModel):
    """A model whose module is a network of transformers; those of known families have blocks."""

    def blocks(self) -> list[Block]:
        prefix = str(cast(Any, self.module).base_model_prefix)
        for layout in LAYOUTS:
            if found := self.blocks_in(f"{prefix}.{layout.layers}", layout):
                return found
        return []

    def blocks_in(self, layers: str, layout: Layout) -> list[Block]:
        """The blocks of a list of layers by its name; none if they are not of this layout."""
        names = dict(self.module.named_modules())
        parts = (*layout.qkv, layout.out, layout.ff_in, layout.ff_out, layout.attention)
        if not all(f"{layers}.0.{part}" in names for part in parts):
            return []
        if not hasattr(names[f"{layers}.0.{layout.attention}"], layout.heads):
            return []
        count = len(cast(Any, names[layers]))
        return [self._block(f"{layers}.{i}.", layout) for i in range(count)]

    def _block(self, layer: str, layout: Layout) -> Block:
        attention = self.module.get_submodule(layer + layout.attention)
        return Block(
            qkv=tuple(layer + part for part in layout.qkv),
            out=layer + layout.out,
            ff_in=layer + layout.ff_in,
            ff_out=layer + layout.ff_out,
            heads=cast(int, getattr(attention, layout.heads)),
            attention=layer + layout.attention,
            scaled=layout.scaled,
        )

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        """Set the geometry of one block's attention.

        Raises Unsupported where heads would go and one table of relative positions, with a bias
        for each head, serves all blocks (T5).
        """
        attention = cast(Any, self.module.get_submodule(block.attention))
        if hasattr(attention, "has_relative_attention_bias") and heads != block.heads:
            raise Unsupported(
                f"{block.attention}: one table of relative positions has a bias for each of its "
                f"{block.heads} heads in all blocks, so that none can go; narrow the heads instead"
            )
        width = heads * head_width
        sizes = {"all_head_size": width, "inner_dim": width}
        for layout in (*LAYOUTS, T5_ENCODER):
            sizes |= {layout.heads: heads, layout.width: head_width}
        for name, size in sizes.items():
            if hasattr(attention, name):
                setattr(attention, name, size)
        for name in ("scaling", "scale"):
            if block.scaled and hasattr(attention, name):
                setattr(attention, name, head_width**-0.5)

    def normalization_parameters(self) -> list[nn.Parameter]:
        own = (m for m in self.module.modules() if type(m).__name__.endswith(_OWN_NORMS))
        found = [p for m in own for p in m.parameters(recurse=False)]
        known = super().normalization_parameters()
        return [*known, *(p for p in found if all(p is not other for other in known))]
