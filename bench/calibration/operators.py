"""Operators to calibrate, at the sizes of layers in vision and text models.

Sizes are those of ViT, BERT, ResNet and MobileNet. Operators run as in a step of torch: forward
without gradients, backward through autograd. Outputs of the preceding operator are warm in the
caches; weights, and activations saved for the backward pass, rotate through memory and are cold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.probe.cases import OPTIMIZERS, Operand, Operator, OptimizerStep
from bench.probe.timing import Pool

GRADIENTS = {"both": (True, True), "input": (True, False), "weight": (False, True)}
"""Which gradients a backward pass makes: of the input, of the weights."""
PATCH = 16
"""Side of a vision transformer's patches."""


@dataclass(frozen=True)
class Sizes:
    """How large the operators are.

    ``tokens``: rows of products and normalizations; ``widths`` of a token; ``batches`` of images;
    ``maps``: (side, channels) of feature maps; ``numbers``: elements of elementwise work;
    ``sequences``: (samples, heads, tokens, width of a head) of attention; ``tensors``: elements of
    a parameter that an optimizer moves.
    """

    tokens: tuple[int, ...] = (64, 512, 1600)
    widths: tuple[int, ...] = (64, 192, 384, 768)
    batches: tuple[int, ...] = (2, 8)
    maps: tuple[tuple[int, int], ...] = ((112, 32), (56, 64), (28, 128), (14, 256), (7, 512))
    numbers: tuple[int, ...] = (256, 8_192, 100_000, 400_000, 1_200_000, 5_000_000, 10_000_000)
    sequences: tuple[tuple[int, int, int, int], ...] = (
        (8, 4, 64, 16), (8, 4, 64, 64), (8, 12, 64, 16), (8, 12, 64, 64), (2, 12, 200, 64),
        (8, 3, 200, 16), (8, 3, 200, 64), (8, 12, 200, 16), (8, 12, 200, 64),
    )  # fmt: skip
    tensors: tuple[int, ...] = (64, 768, 16_384, 147_456, 589_824, 2_359_296, 9_000_000, 23_000_000)


QUICK = Sizes(
    (16, 64), (32, 64), (1,), ((14, 16), (7, 32)), (256, 8192), ((2, 2, 16, 16), (2, 4, 32, 16)),
    (64, 16_384),
)  # fmt: skip
"""Sizes for a rough profile within seconds."""
SMALLEST = Sizes((4,), (8,), (1,), ((4, 8),), (), ((1, 2, 8, 8),), ())
"""Sizes at which an operator costs no more than its call: the first point of every curve."""


def operators(sizes: Sizes) -> Iterator[Operator]:
    """Every operator at every size but those of `convolutions`."""
    for group in (_products, _attention, _norms, _elementwise, _reductions, _copies):
        yield from group(sizes)


def _products(sizes: Sizes) -> Iterator[Operator]:
    rank, classes, samples = 8, 10, 8
    for width in sizes.widths:
        narrow, wide = max(width // 4, 8), 4 * width
        for rows in sizes.tokens:
            for k, n in ((width, width), (width, 3 * width), (width, wide), (wide, width),
                         (width, narrow), (narrow, width)):  # fmt: skip
                yield from _linear(rows, k, n)
        for rows in sizes.tokens[-2:]:
            yield from _linear(rows, width, rank)
            yield from _linear(rows, rank, width)
        yield from _linear(samples, width, classes)
        yield from _linear(sizes.tokens[-1], width, wide, "bfloat16")


def _linear(rows: int, k: int, n: int, dtype: str = "float32") -> Iterator[Operator]:
    """The three products of a linear layer (rows, k) -> (rows, n), and the one of LoRA."""
    x, y, weight = Operand((rows, k)), Operand((rows, n)), Operand((n, k), cold=True)
    size = f"{rows}x{k}x{n} {dtype}"
    turned = Operand((n, k), cold=True, flip=(-1, -2))
    yield Operator(f"addmm.nt {size}", "addmm", (Operand((n,)), x, turned), dtype=dtype)
    yield Operator(f"mm.nn {size}", "mm", (y, weight), dtype=dtype)
    given = (Operand((rows, n), flip=(-1, -2)), Operand((rows, k), cold=True))
    yield Operator(f"mm.tn {size}", "mm", given, dtype=dtype)
    if min(k, n) <= 10:
        yield Operator(f"mm.nt {size}", "mm", (x, turned), dtype=dtype)


def _attention(sizes: Sizes) -> Iterator[Operator]:
    for samples, heads, tokens, width in sizes.sequences:
        all_heads, size = samples * heads, f"{samples}x{heads}x{tokens}x{width}"
        each, scores = (all_heads, tokens, width), (all_heads, tokens, tokens)
        turned, saved = Operand(each, flip=(-1, -2)), Operand(each, cold=True)
        yield Operator(f"bmm.nt {size}", "bmm", (Operand(each), turned))
        yield Operator(f"bmm.nn {size}", "bmm", (Operand(scores), Operand(each)))
        yield Operator(f"bmm.tn {size}", "bmm", (Operand(scores, flip=(-1, -2)), saved))
        # Heads lie beside each other in what the linear layers before have made.
        three = (Operand((samples, tokens, heads, width), flip=(1, 2)),) * 3
        trained = tuple(o._replace(cold=True, grad=True) for o in three)
        yield Operator(f"attention {size}", "attention", three)
        yield Operator(f"attention backward {size}", "attention", trained, backward=True)


def _norms(sizes: Sizes) -> Iterator[Operator]:
    for width in sizes.widths:
        for rows in sizes.tokens:
            each, size = Operand((width,)), f"{rows}x{width}"
            yield Operator(f"layer norm {size}", "layer_norm", (Operand((rows, width)), each, each))
            for made, (of_x, of_weight) in GRADIENTS.items():
                x, each = Operand((rows, width), True, of_x), Operand((width,), grad=of_weight)
                name = f"layer norm backward {made} {size}"
                yield Operator(name, "layer_norm", (x, each, each), backward=True)


def _elementwise(sizes: Sizes) -> Iterator[Operator]:
    for count in sizes.numbers:
        x, other = Operand((count,)), Operand((count,), cold=True)
        mine = Operand((count,), own=True)
        for two in ("add", "mul"):
            yield Operator(f"{two} {count}", two, (x, other))
        for one in ("gelu", "silu", "tanh", "exp", "sigmoid", "div"):
            yield Operator(f"{one} {count}", one, (x,))
        yield Operator(f"div_ {count}", "div_", (mine,))
        yield Operator(f"add_ {count}", "add_", (mine, x))
        for changed in ("relu_", "hardtanh_", "bernoulli_"):
            yield Operator(f"{changed} {count}", changed, (mine,))
        saved = Operand((count,), cold=True, grad=True)
        for act in ("gelu", "relu", "hardtanh", "tanh"):
            yield Operator(f"{act} backward {count}", act, (saved,), backward=True)


def _reductions(sizes: Sizes) -> Iterator[Operator]:
    for width in sizes.widths:
        for rows in sizes.tokens:
            x = Operand((rows, width))
            yield Operator(f"sum {rows}x{width}", "sum", (x,))
    for samples, heads, tokens, _ in sizes.sequences:
        scores = (samples * heads, tokens, tokens)
        size = f"{samples}x{heads}x{tokens}x{tokens}"
        saved = Operand(scores, cold=True, grad=True)
        yield Operator(f"softmax {size}", "softmax", (Operand(scores),))
        yield Operator(f"softmax backward {size}", "softmax", (saved,), backward=True)
        yield Operator(f"safe softmax {size}", "safe_softmax", (Operand(scores),))


def _copies(sizes: Sizes) -> Iterator[Operator]:
    for count in sizes.numbers:
        x = Operand((count,))
        yield Operator(f"clone {count}", "clone", (x,))
        yield Operator(f"cat {count}", "cat", (x, x))
        yield Operator(f"stack {count}", "stack", (x, x, x))
        yield _copy(count)
    for samples, heads, tokens, width in sizes.sequences:
        apart = Operand((samples, heads, tokens, width), flip=(1, 2))
        size = f"{samples}x{heads}x{tokens}x{width}"
        yield Operator(f"clone of heads {size}", "contiguous", (apart,))
    for width in sizes.widths:
        for vocabulary in (512, 30_000):
            rows = sizes.tokens[-1]
            table = Operand((vocabulary, width), cold=True, grad=True)
            given = (Operand((rows,), below=vocabulary), table)
            size = f"{rows} of {vocabulary}x{width}"
            yield Operator(f"embedding {size}", "embedding", given)
            yield Operator(f"embedding backward {size}", "embedding", given, backward=True)


def _copy(count: int) -> Operator:
    cold = Operand((count,), cold=True)
    return Operator(f"copy_ {count}", "copy_", (cold._replace(own=True), cold))


def large_copy(sizes: Sizes, pool: Pool) -> list[Operator]:
    """A copy of more than twice the last-level cache, or as much as the pool has.

    None if one of the sizes is as large.
    """
    beyond = pool.cache_bytes // 4 + 2**10  # read and written, 8 bytes for each element
    if max(sizes.numbers, default=0) >= beyond:
        return []
    return [_copy(min(beyond, pool.size // 4))]


def optimizer_steps(sizes: Sizes) -> Iterator[OptimizerStep]:
    """Every optimizer at every size of a parameter."""
    return (OptimizerStep(each, count) for each in OPTIMIZERS for count in sizes.tensors)


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
    settings = {"stride": stride, "padding": padding, "groups": groups}
    x, weight = (batch, channels, side, side), (out, channels // groups, kernel, kernel)
    size = f"{batch}x{channels}x{side}x{side} to {out}, {kernel}x{kernel}/{stride}, {groups} groups"
    made = 4 * batch * out * (side // stride) ** 2
    operands = (Operand(x), Operand(weight, cold=True))
    yield _conv2d(f"convolution {size}", operands, settings, makes=made)
    for of in ("weight",) if first else ("both", "input"):
        of_x, of_weight = GRADIENTS[of]
        operands = (Operand(x, cold=True, grad=of_x), Operand(weight, cold=True, grad=of_weight))
        yield _conv2d(f"convolution backward {of} {size}", operands, settings, backward=True)


def _conv2d(
    name: str, operands: tuple[Operand, ...], settings: dict[str, Any], **more: Any
) -> Operator:
    return Operator(name, "conv2d", operands, settings=settings, **more)


def _batch_norm(batch: int, side: int, channels: int) -> Iterator[Operator]:
    x, each = (batch, channels, side, side), Operand((channels,), own=True)
    size = f"{batch}x{channels}x{side}x{side}"
    affine = (Operand((channels,)), Operand((channels,)))
    train = {"training": True}
    for mode, settings in (("train", train), ("eval", {})):
        given = (Operand(x), each, each, *affine)
        yield Operator(f"batch norm {mode} {size}", "batch_norm", given, settings=settings)
    for made, (of_x, of_weight) in GRADIENTS.items():
        scale = Operand((channels,), grad=of_weight)
        operands = (Operand(x, cold=True, grad=of_x), each, each, scale, scale)
        name = f"batch norm backward {made} {size}"
        yield Operator(name, "batch_norm", operands, backward=True, settings=train)


def _pooling(batch: int, side: int, channels: int) -> Iterator[Operator]:
    size = f"{batch}x{channels}x{side}x{side}"
    x = Operand((batch, channels, side, side))
    yield Operator(f"max pool {size}", "max_pool2d", (x,))
    yield Operator(f"mean pool {size}", "mean", (x,))
    saved = x._replace(cold=True, grad=True)
    yield Operator(f"max pool backward {size}", "max_pool2d", (saved,), backward=True)
