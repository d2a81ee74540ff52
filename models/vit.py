"""What every vision transformer of timm has in common."""

from __future__ import annotations

from typing import cast

from torch import nn

from bench.model import Block


def vit_blocks(module: nn.Module) -> list[Block]:
    """The blocks of timm's ``VisionTransformer``: a fused qkv, a projection, two feed-forward."""
    blocks = cast(nn.Sequential, module.get_submodule("blocks"))
    return [
        Block(
            qkv=(f"blocks.{i}.attn.qkv",),
            out=f"blocks.{i}.attn.proj",
            ff_in=f"blocks.{i}.mlp.fc1",
            ff_out=f"blocks.{i}.mlp.fc2",
            heads=int(block.get_submodule("attn").num_heads),  # type: ignore[arg-type]
        )
        for i, block in enumerate(blocks)
    ]
