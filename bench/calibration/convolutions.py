"""Convolutions to calibrate, with the batch norms and poolings between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from bench.calibration.operators import GRADIENTS, Operand, Operator, Sizes

PATCH = 16
"""Side of the patches into which a vision transformer cuts an image."""


def convolutions(sizes: Sizes) -> Iterator[Operator]:
    """Every convolution, batch norm and pooling at every size of feature map and batch."""
    for batch in sizes.batches:
        for side, channels in sizes.maps:
            wide, thin = 2 * channels, max(channels // 2, 4)
            yield from _convolution(batch, side, channels, channels, 3)
            yield from _convolution(batch, side, channels, wide, 3, stride=2)
            for low, high in ((thin, 3 * channels), (channels, wide)):
                yield from _convolution(batch, side, low, high, 1)
                yield from _convolution(batch, side, high, low, 1)
            yield from _convolution(batch, side, channels, wide, 1, stride=2)
            for stride in (1, 2):  # of one channel each, between layers that widen and narrow
                many = 3 * channels
                yield from _convolution(batch, side, many, many, 3, stride, groups=many)
            yield from _convolution(batch, side, channels, channels, 3, groups=channels)
            yield from _batch_norm(batch, side, channels)
            yield from _batch_norm(batch, side, 3 * channels)
        side, channels = sizes.maps[0]
        for kernel, out in ((7, 2 * channels), (3, channels)):
            yield from _convolution(batch, 2 * side, 3, out, kernel, stride=2, first=True)
        for width in sizes.widths if 2 * side >= PATCH else ():
            yield from _convolution(batch, 2 * side, 3, width, PATCH, PATCH, padding=0, first=True)
        yield from _pooling(batch, side, channels)
        yield from _pooling(batch, side // 4, channels)
    side, channels = sizes.maps[len(sizes.maps) // 2]
    yield from _convolution(sizes.batches[-1], side, channels, channels, 3, groups=channels // 4)


def _convolution(
    batch: int,
    side: int,
    channels: int,
    out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    first: bool = False,
) -> Iterator[Operator]:
    """Forward and backward; only the weights get gradients in the ``first`` layer of a network."""
    padding = kernel // 2 if padding is None else padding
    function = partial(_convolve, stride, padding, groups)
    x, weight = (batch, channels, side, side), (out, channels // groups, kernel, kernel)
    size = f"{batch}x{channels}x{side}x{side} to {out}, {kernel}x{kernel}/{stride}, {groups} groups"
    made = 4 * batch * out * (side // stride) ** 2
    operands = (Operand(x), Operand(weight, cold=True))
    yield Operator(f"convolution {size}", function, operands, makes=made)
    for of in ("weight",) if first else ("both", "input"):
        of_x, of_weight = GRADIENTS[of]
        operands = (Operand(x, cold=True, grad=of_x), Operand(weight, cold=True, grad=of_weight))
        yield Operator(f"convolution backward {of} {size}", function, operands, backward=True)


def _convolve(stride: int, padding: int, groups: int, x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, stride, padding, 1, groups)


def _batch_norm(batch: int, side: int, channels: int) -> Iterator[Operator]:
    x, each = (batch, channels, side, side), Operand((channels,), own=True)
    size = f"{batch}x{channels}x{side}x{side}"
    for training in (True, False):
        mode = "train" if training else "eval"
        function = partial(_normalize, training)
        operands = (Operand(x), each, each, Operand((channels,)), Operand((channels,)))
        yield Operator(f"batch norm {mode} {size}", function, operands)
    function = partial(_normalize, True)
    for made, (of_x, of_weight) in GRADIENTS.items():
        scale = Operand((channels,), grad=of_weight)
        operands = (Operand(x, cold=True, grad=of_x), each, each, scale, scale)
        yield Operator(f"batch norm backward {made} {size}", function, operands, backward=True)


def _normalize(
    training: bool, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, training)


def _pooling(batch: int, side: int, channels: int) -> Iterator[Operator]:
    size = f"{batch}x{channels}x{side}x{side}"
    x = (batch, channels, side, side)
    pools: dict[str, Any] = {
        "max pool": partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
        "mean pool": lambda t: t.mean((2, 3)),
    }
    for name, function in pools.items():
        yield Operator(f"{name} {size}", function, (Operand(x),))
    yield Operator(
        f"max pool backward {size}",
        pools["max pool"],
        (Operand(x, cold=True, grad=True),),
        backward=True,
    )
