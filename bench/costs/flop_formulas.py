"""How many arithmetic operations an operator does, beyond what torch's own counter knows.

`torch.utils.flop_counter` overcounts the backward pass of grouped convolutions, leaves out products
with vectors, and has formulas for attention on a CPU in some versions alone. An operator that does
products and that neither knows is an error: taken for elementwise work it would be almost free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import flop_registry

from bench.errors import BenchError

_FUSED = ("_transformer_encoder_layer_fwd", "_native_multi_head_attention", "mkldnn_rnn_layer")
"""Operators that hold whole layers."""


def products(packet: Any, kind: str, args: Any, kwargs: Any, out: Any) -> float | None:
    """Operations by a formula; None without products, BenchError for products without a formula."""
    name = packet.__name__
    if name in _OWN:
        return float(_OWN[name](args))
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=out))
    if kind in ("matmul", "attention", "convolution") or name in _FUSED:
        raise BenchError(
            f"operator {name}: there is no formula for its operations, so that its cost is not "
            "known; build the layer from matrix products and convolutions, or add a formula to "
            "bench/costs/flop_formulas.py"
        )
    return None


def _convolution_backward(args: Any) -> float:
    """Those of the forward, once for each gradient made."""
    gradient, x, weight = args[:3]
    transposed, mask = args[7], args[-1]
    through = x if transposed else gradient
    forward = 2.0 * through.numel() * weight[0].numel()
    return forward * (bool(mask[0]) + bool(mask[1]))


def _vector(index: int) -> Callable[[Any], float]:
    """A product with a vector; the input at ``index`` has an entry for each multiply-add."""
    return lambda args: 2.0 * args[index].numel()


def _attention(parts: Any, per_width: int, per_value: int) -> float:
    """So many products of a score for each entry of a query, and of a value."""
    query, key, value = parts
    scores = query[..., 0].numel() * key.shape[-2]
    return 2.0 * scores * (per_width * query.shape[-1] + per_value * value.shape[-1])


_OWN: dict[str, Callable[[Any], float]] = {
    "convolution_backward": _convolution_backward,
    "mv": _vector(0),
    "dot": _vector(0),
    "vdot": _vector(0),
    "addmv": _vector(1),
    "addbmm": lambda args: 2.0 * args[1].numel() * args[2].shape[-1],
    "_int_mm": lambda args: 2.0 * args[0].numel() * args[1].shape[-1],
    # Forward: scores, and their mean of values. Backward: scores again; gradients of values and
    # weights, of queries and keys.
    "_scaled_dot_product_flash_attention_for_cpu": lambda args: _attention(args[:3], 1, 1),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (
        lambda args: _attention(args[1:4], 3, 2)
    ),
}
