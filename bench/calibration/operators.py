"""Operators to calibrate, at the sizes of layers in vision and text models.

Sizes are those of ViT, BERT, ResNet and MobileNet. Operators run as in a step of torch: forward
without gradients, backward through autograd. Outputs of the preceding operator are warm in the
caches; weights, and activations saved for the backward pass, rotate through memory and are cold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.calibration.timing import Call, Pool
from bench.costs.process_memory import MMAP_BYTES

GRADIENTS = {"both": (True, True), "input": (True, False), "weight": (False, True)}
"""Which gradients a backward pass makes: of the input, of the weights."""
PATCH = 16
"""Side of a vision transformer's patches."""
GRAPHS = 8
"""Maximum number of forward passes kept, over which the backward passes rotate."""


@dataclass(frozen=True)
class Operand:
    """An argument and its ``shape`` in memory.

    ``cold``: not in the caches; ``grad``: the backward pass computes its gradient; ``own``: changed
    in place; ``flip``: two dimensions to exchange; ``below``: integers below this bound.
    """

    shape: tuple[int, ...]
    cold: bool = False
    grad: bool = False
    own: bool = False
    flip: tuple[int, int] | None = None
    below: int = 0

    def make(self, pool: Pool, dtype: str) -> Tensor:
        """The tensor, from the pool."""
        if self.below:
            return torch.randint(self.below, self.shape, device=pool.accelerator)
        made = (pool.own if self.own else pool.take)(*self.shape, dtype=dtype)
        return made.transpose(*self.flip) if self.flip else made


@dataclass(frozen=True)
class Operator:
    """A call of a ``function`` of the operands, or of its backward pass.

    ``name`` says what and how large; ``makes``: bytes of a result larger than the operands.
    """

    name: str
    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    backward: bool = False
    dtype: str = "float32"
    makes: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of the operands."""
        return 4 * sum(math.prod(o.shape) for o in self.operands)

    @property
    def huge(self) -> bool:
        """Whether glibc maps fresh pages for a tensor, whose first touch slows inference down.

        In training the heap is usually large enough, so this excludes backward passes.
        """
        largest = max(4 * math.prod(o.shape) for o in self.operands)
        return not self.backward and max(largest, self.makes) > MMAP_BYTES

    def calls(self, pool: Pool) -> list[Call]:
        """The call on each set of operands in turn; run it without gradients."""
        cold = 4 * sum(math.prod(o.shape) for o in self.operands if o.cold)
        warm = {i: o.make(pool, self.dtype) for i, o in enumerate(self.operands) if not o.cold}
        sets = pool.sets(cold) if cold else 1
        given = [
            [
                warm[i] if i in warm else o.make(pool, self.dtype)
                for i, o in enumerate(self.operands)
            ]
            for _ in range(min(sets, GRAPHS) if self.backward else sets)
        ]
        if self.backward:
            return self._backward(pool, given)
        return [partial(self.function, *tensors) for tensors in given]

    def _backward(self, pool: Pool, given: list[list[Tensor]]) -> list[Call]:
        """The backward passes; their forward passes run here."""
        calls: list[Call] = []
        gradient: Tensor | None = None
        for tensors in given:
            pairs = zip(self.operands, tensors, strict=True)
            leaves = [t.detach().requires_grad_() if o.grad else t for o, t in pairs]
            with torch.enable_grad():
                out = self.function(*leaves)
            if gradient is None:  # one for all: the operator behind has just made it
                gradient = pool.take(*out.shape, dtype=self.dtype)
            wanted = [t for t in leaves if t.requires_grad]
            calls.append(partial(torch.autograd.grad, out, wanted, gradient, retain_graph=True))
        return calls


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
    yield Operator(f"addmm.nt {size}", torch.addmm, (Operand((n,)), x, turned), dtype=dtype)
    yield Operator(f"mm.nn {size}", torch.mm, (y, weight), dtype=dtype)
    given = (Operand((rows, n), flip=(-1, -2)), Operand((rows, k), cold=True))
    yield Operator(f"mm.tn {size}", torch.mm, given, dtype=dtype)
    if min(k, n) <= 10:
        yield Operator(f"mm.nt {size}", torch.mm, (x, turned), dtype=dtype)


def _attention(sizes: Sizes) -> Iterator[Operator]:
    for samples, heads, tokens, width in sizes.sequences:
        all_heads, size = samples * heads, f"{samples}x{heads}x{tokens}x{width}"
        each, scores = (all_heads, tokens, width), (all_heads, tokens, tokens)
        turned, saved = Operand(each, flip=(-1, -2)), Operand(each, cold=True)
        yield Operator(f"bmm.nt {size}", torch.bmm, (Operand(each), turned))
        yield Operator(f"bmm.nn {size}", torch.bmm, (Operand(scores), Operand(each)))
        yield Operator(f"bmm.tn {size}", torch.bmm, (Operand(scores, flip=(-1, -2)), saved))
        # Heads lie beside each other in what the linear layers before have made.
        three = (Operand((samples, tokens, heads, width), flip=(1, 2)),) * 3
        trained = tuple(replace(o, cold=True, grad=True) for o in three)
        attend = F.scaled_dot_product_attention
        yield Operator(f"attention {size}", attend, three)
        yield Operator(f"attention backward {size}", attend, trained, backward=True)


def _norms(sizes: Sizes) -> Iterator[Operator]:
    for width in sizes.widths:
        for rows in sizes.tokens:
            layer = partial(_layer_norm, width)
            each, size = Operand((width,)), f"{rows}x{width}"
            yield Operator(f"layer norm {size}", layer, (Operand((rows, width)), each, each))
            for made, (of_x, of_weight) in GRADIENTS.items():
                x, each = Operand((rows, width), True, of_x), Operand((width,), grad=of_weight)
                name = f"layer norm backward {made} {size}"
                yield Operator(name, layer, (x, each, each), backward=True)


def _layer_norm(width: int, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, (width,), scale, shift)


def _elementwise(sizes: Sizes) -> Iterator[Operator]:
    for count in sizes.numbers:
        x, other = Operand((count,)), Operand((count,), cold=True)
        mine = Operand((count,), own=True)
        for two in (torch.add, torch.mul):
            yield Operator(f"{two.__name__} {count}", two, (x, other))
        for one in (F.gelu, F.silu, torch.tanh, torch.exp, torch.sigmoid):
            yield Operator(f"{one.__name__} {count}", one, (x,))
        yield Operator(f"div {count}", lambda t: t / 0.9, (x,))
        yield Operator(f"div_ {count}", lambda t: t.div_(1.0), (mine,))
        yield Operator(f"add_ {count}", lambda t, u: t.add_(u), (mine, x))
        yield Operator(f"relu_ {count}", F.relu_, (mine,))
        yield Operator(f"hardtanh_ {count}", lambda t: F.hardtanh_(t, 0.0, 6.0), (mine,))
        yield Operator(f"bernoulli_ {count}", lambda t: t.bernoulli_(0.9), (mine,))
        saved = Operand((count,), cold=True, grad=True)
        for act in (F.gelu, F.relu, F.hardtanh, torch.tanh):
            yield Operator(f"{act.__name__} backward {count}", act, (saved,), backward=True)


def _reductions(sizes: Sizes) -> Iterator[Operator]:
    for width in sizes.widths:
        for rows in sizes.tokens:
            x = Operand((rows, width))
            yield Operator(f"sum {rows}x{width}", lambda t: t.sum(0, keepdim=True), (x,))
    for samples, heads, tokens, _ in sizes.sequences:
        scores = (samples * heads, tokens, tokens)
        size = f"{samples}x{heads}x{tokens}x{tokens}"
        softmax, saved = partial(F.softmax, dim=-1), Operand(scores, cold=True, grad=True)
        yield Operator(f"softmax {size}", softmax, (Operand(scores),))
        yield Operator(f"softmax backward {size}", softmax, (saved,), backward=True)
        safe = getattr(torch.ops.aten, "_safe_softmax", None)
        if safe is not None:
            yield Operator(f"safe softmax {size}", partial(safe, dim=-1), (Operand(scores),))


def _copies(sizes: Sizes) -> Iterator[Operator]:
    for count in sizes.numbers:
        x = Operand((count,))
        yield Operator(f"clone {count}", torch.clone, (x,))
        yield Operator(f"cat {count}", lambda t, u: torch.cat([t, u]), (x, x))
        yield Operator(f"stack {count}", lambda t, u, v: torch.stack([t, u, v]), (x, x, x))
        yield _copy(count)
    for samples, heads, tokens, width in sizes.sequences:
        apart = Operand((samples, heads, tokens, width), flip=(1, 2))
        size = f"{samples}x{heads}x{tokens}x{width}"
        clone = partial(torch.clone, memory_format=torch.contiguous_format)
        yield Operator(f"clone of heads {size}", clone, (apart,))
    for width in sizes.widths:
        for vocabulary in (512, 30_000):
            rows = sizes.tokens[-1]
            table = Operand((vocabulary, width), cold=True, grad=True)
            given = (Operand((rows,), below=vocabulary), table)
            size = f"{rows} of {vocabulary}x{width}"
            yield Operator(f"embedding {size}", F.embedding, given)
            yield Operator(f"embedding backward {size}", F.embedding, given, backward=True)


def _copy(count: int) -> Operator:
    cold = Operand((count,), cold=True)
    return Operator(f"copy_ {count}", lambda t, u: t.copy_(u), (replace(cold, own=True), cold))


def large_copy(sizes: Sizes, pool: Pool) -> list[Operator]:
    """A copy of more than twice the last-level cache, or as much as the pool has.

    None if one of the sizes is as large.
    """
    beyond = pool.cache_bytes // 4 + 2**10  # read and written, 8 bytes for each element
    if max(sizes.numbers, default=0) >= beyond:
        return []
    return [_copy(min(beyond, pool.size // 4))]


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
    function = partial(F.conv2d, stride=stride, padding=padding, groups=groups)
    x, weight = (batch, channels, side, side), (out, channels // groups, kernel, kernel)
    size = f"{batch}x{channels}x{side}x{side} to {out}, {kernel}x{kernel}/{stride}, {groups} groups"
    made = 4 * batch * out * (side // stride) ** 2
    operands = (Operand(x), Operand(weight, cold=True))
    yield Operator(f"convolution {size}", function, operands, makes=made)
    for of in ("weight",) if first else ("both", "input"):
        of_x, of_weight = GRADIENTS[of]
        operands = (Operand(x, cold=True, grad=of_x), Operand(weight, cold=True, grad=of_weight))
        yield Operator(f"convolution backward {of} {size}", function, operands, backward=True)


def _batch_norm(batch: int, side: int, channels: int) -> Iterator[Operator]:
    x, each = (batch, channels, side, side), Operand((channels,), own=True)
    size = f"{batch}x{channels}x{side}x{side}"
    function = partial(F.batch_norm, training=True)
    affine = (Operand((channels,)), Operand((channels,)))
    for mode, forward in (("train", function), ("eval", F.batch_norm)):
        yield Operator(f"batch norm {mode} {size}", forward, (Operand(x), each, each, *affine))
    for made, (of_x, of_weight) in GRADIENTS.items():
        scale = Operand((channels,), grad=of_weight)
        operands = (Operand(x, cold=True, grad=of_x), each, each, scale, scale)
        yield Operator(f"batch norm backward {made} {size}", function, operands, backward=True)


def _pooling(batch: int, side: int, channels: int) -> Iterator[Operator]:
    size = f"{batch}x{channels}x{side}x{side}"
    x = Operand((batch, channels, side, side))
    pool = partial(F.max_pool2d, kernel_size=3, stride=2, padding=1)
    yield Operator(f"max pool {size}", pool, (x,))
    yield Operator(f"mean pool {size}", lambda t: t.mean((2, 3)), (x,))
    saved = replace(x, cold=True, grad=True)
    yield Operator(f"max pool backward {size}", pool, (saved,), backward=True)
