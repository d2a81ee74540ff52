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
_PER_ELEMENT = {
    # losses, activations and quantization that torch does not tag as pointwise
    "binary_cross_entropy", "binary_cross_entropy_backward", "binary_cross_entropy_with_logits",
    "mse_loss", "mse_loss_backward", "l1_loss", "smooth_l1_loss", "smooth_l1_loss_backward",
    "huber_loss", "huber_loss_backward", "log_sigmoid_forward", "log_sigmoid_backward",
    "soft_margin_loss", "soft_margin_loss_backward",
    "multi_margin_loss", "multi_margin_loss_backward", "multilabel_margin_loss_forward",
    "hardtanh", "hardtanh_", "hardtanh_backward", "hardswish", "hardswish_", "hardswish_backward",
    "hardsigmoid_backward", "elu_backward", "leaky_relu_backward", "softplus_backward",
    "hardshrink_backward", "softshrink_backward",
    "multilabel_margin_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward", "glu",
    "glu_backward", "_prelu_kernel", "_prelu_kernel_backward", "rrelu_with_noise",
    "rrelu_with_noise_backward", "native_dropout", "native_dropout_backward", "_safe_softmax",
    "_fused_dropout", "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_tensor_affine_cachemask_backward",
    "fake_quantize_per_channel_affine_cachemask", "quantize_per_tensor", "quantize_per_channel",
    "quantize_per_tensor_dynamic", "dequantize", "int_repr", "q_scale", "q_zero_point",
    "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "_thnn_differentiable_lstm_cell_backward",
    "polar", "complex", "view_as_complex", "view_as_real", "real", "imag", "bernoulli", "rand_like",
    "randn_like", "randint_like", "_assert_async", "_local_scalar_dense", "item", "equal",
    "is_same_size", "is_nonzero", "is_coalesced", "_nnz", "_fused_sdp_choice",
    "_linalg_check_errors", "_has_compatible_shallow_copy_type", "_amp_update_scale_",
    "_amp_foreach_non_finite_check_and_unscale_", "scalar_tensor", "renorm", "isin",
    "affine_grid_generator", "_weight_norm_interface", "_weight_norm_interface_backward",
    # sums, order and counts along a dimension
    "aminmax", "cummax", "cummin", "_cummax_helper", "_cummin_helper", "cumprod", "_logcumsumexp",
    "logcumsumexp", "nansum", "nanmean", "median", "nanmedian", "kthvalue", "mode", "count_nonzero",
    "nonzero", "nonzero_static", "masked_select", "unique_dim", "_unique", "_unique2",
    "unique_consecutive", "bincount", "histc", "_histogramdd_from_bin_cts", "searchsorted",
    "bucketize", "multinomial", "segment_reduce", "_segment_reduce_backward", "trace", "std_mean",
    "softmax_backward_data", "index_add", "index_add_", "index_reduce", "scatter_add",
    "scatter_add_", "scatter_reduce", "scatter_reduce_", "_sparse_sum", "_sparse_softmax",
    "_sparse_log_softmax", "argsort", "msort", "diff", "dist", "_masked_softmax",
    # movement
    "scatter_", "index_copy", "index_copy_", "index_fill", "index_fill_", "masked_fill_",
    "masked_scatter", "masked_scatter_", "masked_scatter_backward", "take", "put",
    "put_", "roll", "flip", "rot90",
    "tril", "tril_", "triu", "triu_", "tril_indices", "triu_indices", "eye", "linspace",
    "logspace", "rand", "randn", "randint", "randperm", "normal", "empty_permuted", "zero",
    "fill", "copy", "new_full", "new_ones", "ones", "_unsafe_index", "_unsafe_index_put",
    "_unsafe_masked_index",
    "_unsafe_masked_index_put_accumulate", "_index_put_impl_", "index_put", "diag_embed",
    "diagonal_backward", "diagonal_scatter", "select_scatter", "slice_scatter",
    "as_strided_scatter", "unfold_backward", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward",
    "im2col", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "block_diag",
    "cartesian_prod", "split_copy", "split_with_sizes_copy", "unbind_copy", "resize",
    "resize_as_", "unsafe_split", "unsafe_split_with_sizes", "_reshape_copy", "_reshape_alias",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_nearest1d_backward",
    "upsample_nearest2d_backward", "upsample_nearest3d_backward", "_to_sparse", "_to_dense",
    "sparse_mask", "_coalesce", "_coalesced_", "_sparse_coo_tensor_with_dims_and_tensors",
    "_sparse_coo_tensor_unsafe", "_sparse_compressed_tensor_unsafe", "_indices", "_values",
    "_pin_memory", "pin_memory", "_efficientzerotensor", "max_unpool2d", "_copy_from",
    "floor_divide", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "transpose_",
    "squeeze_", "unsqueeze_", "t_", "swapaxes_", "as_strided_", "detach_", "requires_grad_",
    "set_data",
}  # fmt: skip
"""Operators that do at most about one operation for each element read or written."""
_PREFIXES = ("_foreach_", "_fused_adam", "_fused_sgd", "_fused_adagrad")
"""Optimizers' operators over lists of tensors: pointwise all of them."""
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


def is_simple(func: Any) -> bool:
    """Whether a call without a formula does at most about one operation for each element.

    That holds for what torch tags as pointwise or as drawing random numbers, and for operators of
    torch itself that are listed here as sums, normalizations or movement of data.
    """
    import torch

    name = func.overloadpacket.__name__
    if func.namespace not in ("aten", "prims"):
        return False
    if {torch.Tag.pointwise, torch.Tag.nondeterministic_seeded} & set(func.tags):
        return "rnn" not in name  # whole layers, with dropout between them
    if name in _PER_ELEMENT or name in _REDUCTION or name in _COPY:
        return True
    return name.startswith(_PREFIXES) or any(kind in name for kind in _NORMALIZATION)


def operator_kind(name: str, args: Sequence[Any]) -> str:
    """The kind of a call by name and arguments; ``name`` where torch has them in other places."""
    try:
        return _kind(name, args)
    except (IndexError, AttributeError, TypeError, ValueError, RuntimeError):  # sparse: no strides
        return name


def depends_on_arguments(name: str) -> bool:
    """Whether `operator_kind` gives calls of one operator several kinds."""
    special = ("convolution_backward", "convolution", "_convolution")
    return (
        name in _FIRST_FACTOR
        or name in special
        or any(part in name for part in _STATISTICS)
        or name.endswith("_norm_backward")
    )


def _kind(name: str, args: Sequence[Any]) -> str:
    if name in _FIRST_FACTOR:
        first = _FIRST_FACTOR[name]
        return f"{name}.{_layout(args[first])}{_layout(args[first + 1])}"
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
