"""What the attention kernels of a GPU move, as the CPU's kernel would for the same attention.

They return more than the CPU's: states of random generators, and a log-sum-exp that is padded to
whole blocks of queries, or left out where no gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def is_gpu_attention(name: str) -> bool:
    """Whether an operator is an attention kernel of a GPU."""
    return name.startswith("_scaled_dot_product_") and "_for_cpu" not in name


def moved_tensors(tensors: Iterable[Tensor]) -> tuple[list[Tensor], float]:
    """Queries, keys, values, masks, outputs and gradients; and the bytes of the log-sum-exp.

    That has a single-precision number for each query of each head.
    """
    moved = [t for t in tensors if t.is_floating_point() and t.ndim == 4]
    return moved, 4.0 * moved[0][..., 0].numel()
