"""Classes and kinds of operators: what tells apart operators of one size in speed.

A device profile states a share of the peak rates by *class*. Operators of one class can differ much
in speed, so a calibrated profile has its curves by *kind*: the operator's name with, where it
matters, which operands are transposed
(``mm.tn``), the shape of a convolution (``convolution.depthwise.strided``), whether statistics are
computed (``native_batch_norm.train``) and which gradients are made
(``convolution_backward.dense.input``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

OPERATOR_CLASSES = (
    "matmul", "attention", "convolution", "normalisation",
    "elementwise", "reduction", "copy", "optimiser",
)  # fmt: skip
"""Classes of operators, as profiles spell them."""

OPTIMIZER = "optimiser"
"""The kind of every operator inside an optimizer's step: they are timed as whole steps."""

_MATMUL = {"mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "vdot", "addbmm", "_int_mm"}
_NORMALIZATION = ("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm")
_REDUCTION = {
    "sum", "mean", "var", "std", "var_mean", "amax", "amin", "max", "min", "argmax", "argmin",
    "prod", "norm", "linalg_vector_norm", "logsumexp", "cumsum", "topk", "sort", "any", "all",
    "_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data",
    "nll_loss_forward", "nll_loss_backward", "_cdist_forward", "_cdist_backward",
}  # fmt: skip
_COPY = {
    "clone", "copy_", "_to_copy", "cat", "stack", "index", "index_select", "gather", "scatter",
    "embedding", "fill_", "zero_", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like",
    "masked_fill", "constant_pad_nd", "index_put_", "repeat", "embedding_dense_backward",
    "slice_backward", "select_backward", "expand_copy", "new_zeros", "arange",
}  # fmt: skip
_FIRST_FACTOR = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
_STATISTICS = ("batch_norm", "instance_norm")


def operator_class(name: str) -> str:
    """The class (one of ``OPERATOR_CLASSES``) of an aten operator by its name without overload."""
    if name in _MATMUL:
        return "matmul"
    for kind in ("attention", "convolution"):
        if kind in name:
            return kind
    if any(kind in name for kind in _NORMALIZATION):
        return "normalisation"
    if name in _REDUCTION:
        return "reduction"
    return "copy" if name in _COPY else "elementwise"


def operator_kind(name: str, args: Sequence[Any]) -> str:
    """The kind of a call by name and arguments; ``name`` where torch has them in other places."""
    try:
        return _kind(name, args)
    except (IndexError, AttributeError, TypeError, ValueError):
        return name


def _kind(name: str, args: Sequence[Any]) -> str:
    if name in _FIRST_FACTOR:
        first = _FIRST_FACTOR[name]
        return f"{name}.{''.join(_layout(t) for t in args[first : first + 2])}"
    if name == "convolution_backward":
        shape, gradients = _convolution(args[2], args[9]), _made(args[10])
        return f"{name}.{shape}.{gradients}{_strided(args[4])}"
    if name in ("convolution", "_convolution"):
        return f"{name}.{_convolution(args[1], args[8])}{_strided(args[3])}"
    parts = [name]
    flags = [a for a in args if isinstance(a, bool)]
    if flags and any(part in name for part in _STATISTICS):
        parts.append("train" if flags[0] else "eval")
    if name.endswith("_norm_backward") and args and _is_mask(args[-1]):
        parts.append(_made(args[-1]))
    return ".".join(parts)


def _layout(matrix: Tensor) -> str:
    """``t`` for a transposed matrix, ``n`` else, as in BLAS."""
    rows, columns = matrix.stride()[-2:]
    return "t" if rows == 1 and columns != 1 and matrix.shape[-1] > 1 else "n"


def _convolution(weight: Tensor, groups: int) -> str:
    if groups > 1:
        return "depthwise" if weight.shape[1] == 1 else "grouped"
    return "pointwise" if all(side == 1 for side in weight.shape[2:]) else "dense"


def _strided(stride: Sequence[int]) -> str:
    return "" if all(step == 1 for step in stride) else ".strided"


def _is_mask(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, bool) for part in value)


def _made(mask: Sequence[bool]) -> str:
    """Which gradients a backward makes: of the ``input``, of the ``weight``s, or ``both``."""
    of_input, *of_weights = mask
    if not of_input:
        return "weight"
    return "both" if any(of_weights) else "input"
