"""The calls that a calibration times: a function by its name, its operands, and how often."""

import math
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.meters.process_memory import MMAP_BYTES
from bench.probe.timing import Call, Pool, product

GRAPHS = 8
"""Maximum number of forward passes kept, over which the backward passes rotate."""
TENSORS = 20
"""Maximum number of parameters in an optimizer's step; fewer if they are large."""


def attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """Scaled dot-product attention: torch's own, or what a network did before torch had it."""
    own = getattr(F, "scaled_dot_product_attention", None)
    if own is not None:
        return own(q, k, v, dropout_p=dropout_p)
    scores = F.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    return (F.dropout(scores, dropout_p) if dropout_p else scores) @ v


def _layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), scale, shift)


def _safe_softmax(x: Tensor) -> Tensor:
    """Softmax where whole rows may be masked; the plain one where torch has no other."""
    try:
        return torch.ops.aten._safe_softmax(x, -1)
    except (AttributeError, RuntimeError):
        return F.softmax(x, dim=-1)


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "addmm": torch.addmm,
    "mm": torch.mm,
    "bmm": torch.bmm,
    "attention": attention,
    "layer_norm": _layer_norm,
    "batch_norm": F.batch_norm,
    "add": torch.add,
    "mul": torch.mul,
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "div": lambda t: t / 0.9,
    "div_": lambda t: t.div_(1.0),
    "add_": lambda t, u: t.add_(u),
    "relu_": F.relu_,
    "hardtanh_": lambda t: F.hardtanh_(t, 0.0, 6.0),
    "bernoulli_": lambda t: t.bernoulli_(0.9),
    "sum": lambda t: t.sum(0, keepdim=True),
    "softmax": partial(F.softmax, dim=-1),
    "safe_softmax": _safe_softmax,
    "clone": torch.clone,
    "contiguous": partial(torch.clone, memory_format=torch.contiguous_format),
    "cat": lambda t, u: torch.cat([t, u]),
    "stack": lambda t, u, v: torch.stack([t, u, v]),
    "copy_": lambda t, u: t.copy_(u),
    "embedding": F.embedding,
    "conv2d": F.conv2d,
    "max_pool2d": partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
    "mean": lambda t: t.mean((2, 3)),
}
"""What is timed, by name: the list of calls travels to boards as text."""


class Operand(NamedTuple):
    """An argument and its ``shape`` in memory.

    ``cold``: not in the caches; ``grad``: the backward pass computes its gradient; ``own``: changed
    in place; ``flip``: two dimensions to exchange; ``below``: integers below this bound.
    """

    shape: Tuple[int, ...]
    cold: bool = False
    grad: bool = False
    own: bool = False
    flip: Optional[Tuple[int, int]] = None
    below: int = 0

    def make(self, pool: Pool, dtype: str) -> Tensor:
        """The tensor, from the pool."""
        if self.below:
            return torch.randint(self.below, tuple(self.shape), device=pool.accelerator)
        made = (pool.own if self.own else pool.take)(*self.shape, dtype=dtype)
        return made.transpose(*self.flip) if self.flip else made


class Operator(NamedTuple):
    """A call of one of `FUNCTIONS` on the operands, or of its backward pass.

    ``name`` says what and how large; ``settings`` of the function; ``makes``: bytes of a result
    larger than the operands.
    """

    name: str
    of: str
    operands: Tuple[Operand, ...]
    backward: bool = False
    dtype: str = "float32"
    makes: int = 0
    settings: Dict[str, Any] = {}

    @property
    def bytes(self) -> int:
        """Bytes of the operands."""
        return 4 * sum(product(o.shape) for o in self.operands)

    @property
    def huge(self) -> bool:
        """Whether glibc maps fresh pages for a tensor, whose first touch slows inference down.

        In training the heap is usually large enough, so this excludes backward passes.
        """
        largest = max(4 * product(o.shape) for o in self.operands)
        return not self.backward and max(largest, self.makes) > MMAP_BYTES

    def calls(self, pool: Pool) -> List[Call]:
        """The call on each set of operands in turn; run it without gradients."""
        cold = 4 * sum(product(o.shape) for o in self.operands if o.cold)
        warm = {i: o.make(pool, self.dtype) for i, o in enumerate(self.operands) if not o.cold}
        sets = pool.sets(cold) if cold else 1
        given = [
            [
                warm[i] if i in warm else o.make(pool, self.dtype)
                for i, o in enumerate(self.operands)
            ]
            for _ in range(min(sets, GRAPHS) if self.backward else sets)
        ]
        function = partial(FUNCTIONS[self.of], **self.settings)
        if self.backward:
            return self._backward(pool, function, given)
        return [partial(function, *tensors) for tensors in given]

    def _backward(
        self, pool: Pool, function: Callable[..., Any], given: List[List[Tensor]]
    ) -> List[Call]:
        """The backward passes; their forward passes run here."""
        calls: List[Call] = []
        gradient: Optional[Tensor] = None
        for tensors in given:
            pairs = zip(self.operands, tensors)
            leaves = [t.detach().requires_grad_() if o.grad else t for o, t in pairs]
            with torch.enable_grad():
                out = function(*leaves)
            if gradient is None:  # one for all: the operator behind has just made it
                gradient = pool.take(*out.shape, dtype=self.dtype)
            wanted = [t for t in leaves if t.requires_grad]
            calls.append(partial(torch.autograd.grad, out, wanted, gradient, retain_graph=True))
        return calls


OPTIMIZERS: Dict[str, Any] = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, 1e-3, momentum=0.9),
}


class OptimizerStep(NamedTuple):
    """A step of an optimizer over parameters of ``elements`` each.

    ``parameters``: how many; 0 for as many as exceed the caches of the machine.
    """

    optimizer: str
    elements: int
    parameters: int = 0

    @property
    def name(self) -> str:
        """What it is, for progress and errors."""
        return "{} {}".format(self.optimizer, self.elements)

    @property
    def bytes(self) -> int:
        """Bytes of parameters, gradients, two moments and temporaries of a step."""
        return 6 * 4 * self.elements * (self.parameters or self.tensors(2**26))

    def tensors(self, cold_bytes: float) -> int:
        """How many parameters exceed these caches together, as far as they may."""
        return max(min(math.ceil(cold_bytes / (16 * self.elements)), TENSORS), 1)

    def calls(self, pool: Pool) -> List[Call]:
        """The step; parameters and moments together exceed the caches where possible."""
        parameters = []
        for _ in range(self.parameters or self.tensors(2 * pool.cache_bytes)):
            parameters.append(nn.Parameter(pool.own(self.elements)))
            parameters[-1].grad = pool.take(self.elements)
        made = OPTIMIZERS[self.optimizer](parameters)
        made.step()  # makes the moments
        return [made.step]


class AutogradCall(NamedTuple):
    """A call of autograd for a view: the overhead included in every timed backward pass."""

    name: str = "a call of autograd"

    def calls(self, pool: Pool) -> List[Call]:
        """The call."""
        with torch.enable_grad():
            x = pool.take(8).detach().requires_grad_()
            out = x.view(2, 4)
        return [partial(torch.autograd.grad, out, x, pool.take(2, 4), retain_graph=True)]
