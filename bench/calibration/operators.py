"""Operators to calibrate, over the sizes that layers of vision and text models have.

Widths, tokens and feature maps are those of the families ViT, BERT, ResNet and MobileNet; each
operator runs as torch runs it in a step: forward without gradients, backward through autograd.
What the operator before has just written is warm; weights, and activations saved for the
backward pass, take turns in memory and are cold.
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

from bench.calibration.operand_pool import Pool
from bench.calibration.timing import Call
from bench.costs.process_memory import MMAP_BYTES

GRADIENTS = {"both": (True, True), "input": (True, False), "weight": (False, True)}
"""Which gradients a backward pass makes: of the input, of the weights."""
GRAPHS = 8
"""Most forward passes that are kept for a backward pass to take in turn."""


@dataclass(frozen=True)
class Operand:
    """An argument: its ``shape`` in memory, and how it is used.

    ``cold``: not in the caches; ``grad``: the backward pass makes its gradient; ``own``: is
    changed; ``flip``: the two dimensions that are exchanged; ``below``: whole numbers under it.
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
    """One call of a function of tensors, or of its backward pass.

    ``name`` says what and how large; ``function`` gets the operands in their order; ``makes``:
    bytes of the result, where it may be larger than the operands.
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
        """Whether a tensor is so large that glibc takes fresh pages for it.

        Their first touch slows inference down; in training the heap has grown large enough to
        hold it as a rule, so that backward passes are not among these.
        """
        sizes = [4 * math.prod(o.shape) for o in self.operands]
        return not self.backward and max(*sizes, self.makes) > MMAP_BYTES

    def calls(self, pool: Pool) -> list[Call]:
        """The call on one set of operands after another; to be made without gradients."""
        cold = 4 * sum(math.prod(o.shape) for o in self.operands if o.cold)
        warm = [None if o.cold else o.make(pool, self.dtype) for o in self.operands]
        sets = pool.sets(cold) if cold else 1
        given = [
            [
                o.make(pool, self.dtype) if made is None else made
                for o, made in zip(self.operands, warm, strict=True)
            ]
            for _ in range(min(sets, GRAPHS) if self.backward else sets)
        ]
        if self.backward:
            return self._backward(pool, given)
        return [partial(self.function, *tensors) for tensors in given]

    def _backward(self, pool: Pool, given: list[list[Tensor]]) -> list[Call]:
        """The backward passes of forward passes that are done here."""
        calls: list[Call] = []
        gradient: Tensor | None = None
        for tensors in given:
            leaves = [
                t.detach().requires_grad_() if o.grad else t
                for o, t in zip(self.operands, tensors, strict=True)
            ]
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

    Attributes
    ----------
    tokens : rows of products and normalizations; a batch of texts or images has so many
    widths : of a token
    batches : of images
    maps : (side, channels) of feature maps
    numbers : elements of elementwise work
    sequences : (samples, heads, tokens, width of a head) of attention
    tensors : elements of a parameter that an optimizer moves
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
LEAST = Sizes((4,), (8,), (1,), ((4, 8),), (), ((1, 2, 8, 8),), ())
"""Sizes at which an operator takes no more than its call: where every curve begins."""


def operators(sizes: Sizes) -> Iterator[Operator]:
    """Every operator at every size; convolutions are listed in their own module."""
    yield from _products(sizes)
    yield from _attention(sizes)
    yield from _norms(sizes)
    yield from _elementwise(sizes)
    yield from _reductions(sizes)
    yield from _copies(sizes)


def _products(sizes: Sizes) -> Iterator[Operator]:
    rank, classes, samples = 8, 10, 8
    for width in sizes.widths:
        narrow, wide = max(width // 4, 8), 4 * width
        for rows in sizes.tokens:
            for k, n in ((width, width), (width, 3 * width), (width, wide), (wide, width),
                         (width, narrow), (narrow, width)):  # fmt: skip
                yield from _linear(rows, k, n, "float32")
        for rows in sizes.tokens[-2:]:
            yield from _linear(rows, width, rank, "float32")
            yield from _linear(rows, rank, width, "float32")
        yield from _linear(samples, width, classes, "float32")
        yield from _linear(sizes.tokens[-1], width, wide, "bfloat16")


def _linear(rows: int, k: int, n: int, dtype: str) -> Iterator[Operator]:
    """The three products of a linear layer (rows, k) -> (rows, n), and the one of LoRA."""
    x, y, weight = Operand((rows, k)), Operand((rows, n)), Operand((n, k), cold=True)
    size = f"{rows}x{k}x{n} {dtype}"
    turned = Operand((n, k), cold=True, flip=(-1, -2))
    yield Operator(f"addmm.nt {size}", torch.addmm, (Operand((n,)), x, turned), dtype=dtype)
    yield Operator(f"mm.nn {size}", torch.mm, (y, weight), dtype=dtype)
    saved = Operand((rows, k), cold=True)
    yield Operator(
        f"mm.tn {size}", torch.mm, (Operand((rows, n), flip=(-1, -2)), saved), dtype=dtype
    )
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
        softmax = partial(F.softmax, dim=-1)
        yield Operator(f"softmax {size}", softmax, (Operand(scores),))
        yield Operator(
            f"softmax backward {size}",
            softmax,
            (Operand(scores, cold=True, grad=True),),
            backward=True,
        )
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
        yield Operator(f"clone of heads {size}", _contiguous, (apart,))
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
    """A copy that moves more than twice the last cache, if none of the sizes does.

    It moves no more than the pool has: where that is too little, the cache may hold a part of it.
    """
    beyond = pool.cache_bytes // 4 + 2**10  # read and written, 8 bytes for each element
    if max(sizes.numbers, default=0) >= beyond:
        return []
    return [_copy(min(beyond, pool.size // 4))]


def _contiguous(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)
