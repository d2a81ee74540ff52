"""How many arithmetic operations an operator does, beyond what torch's own counter knows.

`torch.utils.flop_counter` overcounts the backward pass of grouped convolutions, leaves out products
with vectors, sparse and quantized products, and has formulas for attention on a CPU in some
versions alone. Decompositions, transforms and the like are in `bench.operators.dense_formulas`.

A formula gives a number of operations, of which a multiply-add is 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.operators import dense_formulas
from bench.operators.live_memory import SPARSE_PARTS, packed_tensors
from bench.operators.operator_kinds import operator_class

_FUSED = ("_transformer_encoder_layer_fwd", "_native_multi_head_attention")
"""Operators that hold whole layers."""

Named = Mapping[str, Any]
"""The arguments of a call by the names of the operator's schema, defaults included."""


Formula = Callable[[Any, Any, Any], float]
"""Receives args, kwargs and what the operator gave."""


@cache
def torch_formulas() -> Mapping[Any, Callable[..., int]]:
    """Those of torch itself, by overload packet, with what is registered later.

    Imported when the first operator is met: where triton is installed, torch imports it for them,
    and whoever reads only the settings of a method needs neither.
    """
    from torch.utils.flop_counter import flop_registry

    return flop_registry


def formula_of(func: Any) -> Formula | None:
    """The formula of an operator; None where there is none, BenchError for products without one."""
    name, packet = func.overloadpacket.__name__, func.overloadpacket
    formula: Formula
    if (own := _OWN.get(name)) is not None:
        formula = partial(_by_place, own)
    elif (named := _named_formula(func)) is not None:
        formula = partial(_by_name, named, func)
    elif (torchs := torch_formulas().get(packet)) is not None:
        formula = partial(_by_torch, torchs)
    elif operator_class(name) in ("matmul", "attention", "convolution") or name in _FUSED:
        raise BenchError(
            f"operator {name}: there is no formula for its operations, so that its cost is not "
            "known; build the layer from matrix products and convolutions, or add a formula to "
            "bench/operators/flop_formulas.py"
        )
    else:
        return None
    return formula if name.startswith("_fft") else partial(_real, formula)


def _by_place(formula: Callable[[Any], float], args: Any, kwargs: Any, out: Any) -> float:
    return float(formula(args))


def _by_name(
    formula: Callable[[Named, Any], float], func: Any, args: Any, kwargs: Any, out: Any
) -> float:
    return float(formula(_named(func, args, kwargs), out))


def _by_torch(formula: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> float:
    return float(formula(*args, **kwargs, out_val=out))


def _real(formula: Formula, args: Any, kwargs: Any, out: Any) -> float:
    """A complex multiply-add is 4 real ones; transforms are counted in real operations."""
    found = formula(args, kwargs, out)
    for x in args:
        if isinstance(x, Tensor) and x.is_complex():
            return 4 * found
    return found


@cache
def _named_formula(func: Any) -> Callable[[Named, Any], float] | None:
    name = func.overloadpacket.__name__
    if func.namespace == "quantized":
        return next((how for stem, how in _QUANTIZED.items() if name.startswith(stem)), None)
    if func.namespace != "aten":
        return None
    return _NAMED.get(name) or dense_formulas.FORMULAS.get(name)


def _named(func: Any, args: Any, kwargs: Any) -> Named:
    arguments = func._schema.arguments
    named = {a.name: a.default_value for a in arguments if a.has_default_value()}
    named.update(zip((a.name for a in arguments), args, strict=False))
    return {**named, **kwargs}


# --- convolutions, vectors, attention ----------------------------------------------------


def _convolution_backward(args: Any) -> float:
    """Those of the forward, once for each gradient made."""
    gradient, x, weight = args[:3]
    transposed, mask = args[7], args[-1]
    through = x if transposed else gradient
    forward = 2.0 * through.numel() * weight[0].numel()
    return forward * (bool(mask[0]) + bool(mask[1]))


def _matrix_product(a: Tensor, b: Tensor) -> float:
    if _is_sparse(a) or _is_sparse(b):
        return _sparse_product(a, b)
    return 2.0 * a.numel() * b.shape[-1]


def _vector(index: int) -> Callable[[Any], float]:
    """A product with a vector; the input at ``index`` has an entry for each multiply-add."""
    return lambda args: (
        2.0 * (args[index]._nnz() if _is_sparse(args[index]) else args[index].numel())
    )


def _attention(parts: Any, per_width: int, per_value: int) -> float:
    """So many products of a score for each entry of a query, and of a value."""
    query, key, value = parts
    scores = query[..., 0].numel() * key.shape[-2]
    return 2.0 * scores * (per_width * query.shape[-1] + per_value * value.shape[-1])


_OWN: dict[str, Callable[[Any], float]] = {
    # The same as torch's, which takes long to call.
    "mm": lambda args: _matrix_product(args[0], args[1]),
    "addmm": lambda args: _matrix_product(args[1], args[2]),
    "bmm": lambda args: _matrix_product(args[0], args[1]),
    "baddbmm": lambda args: _matrix_product(args[1], args[2]),
    "convolution_backward": _convolution_backward,
    "mv": _vector(0),
    "dot": _vector(0),
    "vdot": _vector(0),
    "addmv": _vector(1),
    "addr": lambda args: 2.0 * args[0].numel(),
    "addbmm": lambda args: 2.0 * args[1].numel() * args[2].shape[-1],
    "_int_mm": lambda args: 2.0 * args[0].numel() * args[1].shape[-1],
    # Forward: scores, and their mean of values. Backward: scores again; gradients of values and
    # weights, of queries and keys.
    "_scaled_dot_product_flash_attention_for_cpu": lambda args: _attention(args[:3], 1, 1),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (
        lambda args: _attention(args[1:4], 3, 2)
    ),
}


# --- sparse products -----------------------------------------------------------------------


def _is_sparse(x: Tensor) -> bool:
    return x.layout in SPARSE_PARTS


def _sparse_product(a: Tensor, b: Tensor) -> float:
    """A multiply-add for each stored entry and each column or row of the dense factor."""
    if _is_sparse(a) and _is_sparse(b):
        return _two_sparse(a, b)
    return 2.0 * (a._nnz() * b.shape[-1] if _is_sparse(a) else b._nnz() * a.shape[-2])


def _two_sparse(a: Tensor, b: Tensor) -> float:
    """Each entry of ``a`` meets those of a row of ``b``, on average."""
    return 2.0 * a._nnz() * b._nnz() / max(b.shape[0], 1)


# --- layers in one operator, quantized layers ------------------------------------------------


def _recurrent(n: Named, _: Any) -> float:
    """Both matrices of a layer, at each place of the sequence."""
    places = prod(n["input"].shape[:2])
    return 2.0 * places * (n["weight0"].numel() + n["weight1"].numel())


def _recurrent_backward(n: Named, _: Any) -> float:
    """The gradients of inputs and of weights cost a forward each."""
    places = prod(n["input"].shape[:2])
    return 4.0 * places * (n["weight1"].numel() + n["weight2"].numel())


def _packed_linear(n: Named, out: Any) -> float:
    """``W_prepack`` by another name in some operators: the argument that is no tensor."""
    weight = _packed_weight(n)
    return 2.0 * out.numel() * weight.shape[-1]


def _packed_convolution(n: Named, out: Any) -> float:
    return 2.0 * out.numel() * _packed_weight(n)[0].numel()


def _packed_weight(n: Named) -> Tensor:
    packed = next(value for value in n.values() if isinstance(value, torch.ScriptObject))
    weight = next((t for t in packed_tensors(packed) if t.ndim > 1), None)
    if weight is None:
        raise BenchError(
            "a quantized layer does not show its weights, so that its cost is not known; use a "
            "layer of torch.ao.nn.quantized"
        )
    return weight


_NAMED: dict[str, Callable[[Named, Any], float]] = {
    "_sparse_addmm": lambda n, _: 2.0 * n["mat1"]._nnz() * n["mat2"].shape[-1],
    "_sparse_sparse_matmul": lambda n, _: _two_sparse(n["self"], n["other"]),
    "_sparse_mm_reduce_impl": lambda n, _: 2.0 * n["self"]._nnz() * n["other"].shape[-1],
    "mkldnn_rnn_layer": _recurrent,
    "mkldnn_rnn_layer_backward": _recurrent_backward,
    "_weight_int8pack_mm": lambda n, _: 2.0 * n["self"].numel() * n["mat2"].shape[0],
    "conv_tbc": lambda n, out: 2.0 * out.numel() * n["weight"][:, :, 0].numel(),
}
_QUANTIZED: dict[str, Callable[[Named, Any], float]] = {
    "linear_prepack": lambda n, _: 0.0,
    "linear_unpack": lambda n, _: 0.0,
    "linear": _packed_linear,
    "conv1d_prepack": lambda n, _: 0.0,
    "conv2d_prepack": lambda n, _: 0.0,
    "conv3d_prepack": lambda n, _: 0.0,
    "conv1d": _packed_convolution,
    "conv2d": _packed_convolution,
    "conv3d": _packed_convolution,
    "matmul": lambda n, _: 2.0 * n["qa"].numel() * n["qb"].shape[-1],
}
"""Operators of torch.ao's quantized layers by how their names begin."""
