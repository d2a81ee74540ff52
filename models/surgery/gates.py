"""Input-dependent importance of neurons: feature boosting and suppression with k-takes-all.

Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019, on the inner
layer of every neuron pair, as in EdgeTA's knowledge base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench import BenchError, FoundationModel, Unsupported
from bench.contracts.data import Inputs
from bench.contracts.structure import WrongBlocks, distinct_blocks, require_called

from .linear import WrappedLinear, cut_linear, largest, linear_at, replace_module
from .neurons import pairs


class Gate(nn.Module):
    """Importance of m neurons from their layer's input: ReLU(W2 ReLU(W1 mean|x| + b1) + b2).

    The mean is over a sample's tokens, without padding where inputs have an ``attention_mask``. W2
    is drawn Kaiming-normal and b2 is 1, so that at first every neuron counts about equally.

    inputs : width of x; neurons : m; the bottleneck has m // reduction units, at least 1
    """

    def __init__(self, inputs: int, neurons: int, reduction: int = 16) -> None:
        super().__init__()
        bottleneck = max(neurons // reduction, 1)
        self.down = nn.Linear(inputs, bottleneck)
        self.up = nn.Linear(bottleneck, neurons)
        nn.init.kaiming_normal_(self.up.weight)
        nn.init.ones_(self.up.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Importances (n, m) >= 0 from x of shape (n, tokens, inputs) or (n, inputs).

        ``mask``: which tokens count, (n, tokens); one of another shape says nothing of these.
        """
        size = x.abs()
        if size.dim() > 2:
            size = size.flatten(1, -2)
            if mask is not None and mask.shape == size.shape[:2]:
                weights = mask.unsqueeze(2).to(size.dtype)
                size = (size * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
            else:
                size = size.mean(dim=1)
        return cast(Tensor, self.up(self.down(size).relu()).relu())


class GatedLinear(WrappedLinear):
    """A linear layer whose neurons are multiplied by their importance, the least ones by zero.

    ``sparsity`` is the share of neurons that is zeroed, in [0, 1). While the network runs,
    ``mask``: which tokens of the batch count; ``samples``: how many there are, as the rows of a
    layer inside windows of attention are the windows of all samples, one sample after another.
    """

    mask: Tensor | None = None
    samples: int | None = None

    def __init__(self, linear: nn.Linear, reduction: int = 16) -> None:
        super().__init__(linear)
        self.gate = Gate(linear.in_features, linear.out_features, reduction).to(linear.weight)
        self.sparsity = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (n, ..., out)."""
        windows = len(x) // self.samples if self.samples else 1
        of_sample = x if windows <= 1 else x.reshape(len(x) // windows, -1, x.shape[-1])
        factors = keep_largest(self.gate(of_sample, self.mask), self.sparsity)
        if windows > 1:
            factors = factors.repeat_interleave(windows, dim=0)
        outputs = cast(Tensor, self.linear(x))
        return outputs * factors.view(len(factors), *[1] * (outputs.dim() - 2), -1)

    def keep(self, rows: Tensor) -> list[str]:
        cut_linear(self.gate.up, rows=rows)
        return [*super().keep(rows), "gate.up"]


def kept_count(neurons: int, sparsity: float) -> int:
    """How many of m neurons remain, m - floor(m * sparsity); sparsity in [0, 1)."""
    if not 0 <= sparsity < 1:
        raise BenchError(f"sparsity {sparsity} is not in [0, 1); use a share such as 0.8")
    return neurons - math.floor(neurons * sparsity)


def keep_largest(g: Tensor, sparsity: float) -> Tensor:
    """k-takes-all: ``g`` of shape (n, m) with the floor(m * sparsity) smallest of a row zeroed.

    Of equal values the first ones are kept.
    """
    kept = kept_count(g.shape[1], sparsity)
    if kept == g.shape[1]:
        return g
    mask = torch.zeros_like(g).scatter(1, largest(g.detach(), kept), 1.0)
    return g * mask


def insert_gates(model: FoundationModel, reduction: int = 16) -> list[nn.Parameter]:
    """Gate the inner layer of every neuron pair, in place; returns the gates' parameters.

    Raises Unsupported if there is no pair or blocks share weights, for one importance cannot speak
    for all of them; BenchError if there is a gate already.
    """
    if len(distinct_blocks(model, "gates")) < len(model.blocks()):
        raise Unsupported(
            f"gates: blocks of {type(model).__name__} share their weights, and a neuron matters "
            "differently in each; use a model without shared blocks"
        )
    parameters: list[nn.Parameter] = []
    for pair in pairs(model):
        if isinstance(model.module.get_submodule(pair.inner), WrappedLinear):
            raise BenchError(f"gates: {pair.inner} has a gate already; insert gates once")
        gated = GatedLinear(linear_at(model, pair.inner), reduction)
        replace_module(model, pair.inner, gated)
        parameters += gated.gate.parameters()
    model.module.register_forward_pre_hook(_show_inputs, with_kwargs=True)
    model.module.register_forward_hook(_hide_inputs, always_call=True)
    return parameters


def _show_inputs(network: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Let gates know how many samples there are, and which tokens of these are padding."""
    parts = next((x for x in inputs if isinstance(x, dict)), named)
    given = next((x for x in tree_leaves((inputs, named)) if isinstance(x, Tensor)), None)
    seen = parts.get("attention_mask")
    for name, layer in network.named_modules():
        if isinstance(layer, GatedLinear):
            told = name.startswith("decoder.")  # of an encoder-decoder, which has a mask for each
            layer.mask = parts.get("decoder_attention_mask", seen) if told else seen
            layer.samples = None if given is None else len(given)


def _hide_inputs(network: nn.Module, *_: Any) -> None:
    """Keep nothing of them when the network has run."""
    for layer in network.modules():
        if isinstance(layer, GatedLinear):
            layer.mask = layer.samples = None


def gated_layers(model: FoundationModel) -> dict[str, GatedLinear]:
    """The gated layers by name; BenchError if there are none."""
    found = {n: m for n, m in model.module.named_modules() if isinstance(m, GatedLinear)}
    if not found:
        raise BenchError(f"gates: {type(model).__name__} has none; call insert_gates() first")
    return found


def set_sparsity(model: FoundationModel, sparsity: float) -> None:
    """Let every gate zero this share of its neurons, in [0, 1)."""
    kept_count(0, sparsity)
    for layer in gated_layers(model).values():
        layer.sparsity = float(sparsity)


@contextmanager
def recorded(model: FoundationModel) -> Iterator[dict[str, Tensor]]:
    """The gates' values before zeroing, (n, m) by the gated layer's name, of the last forward pass.

    They carry gradients if the pass does. The dict is filled by passes inside the context. Raises
    Unsupported in a pass that calls a layer twice: its importances would be those of the last call.
    """
    values: dict[str, Tensor] = {}
    called: set[str] = set()

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if name in called:
            raise Unsupported(
                f"gates: {name} is called twice in a forward pass, and a neuron matters "
                "differently in each call; use a model without shared blocks"
            )
        called.add(name)
        values[name] = output

    def begin(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        called.clear()

    with ExitStack() as hooks:
        hooks.enter_context(model.module.register_forward_pre_hook(begin))
        for name, layer in gated_layers(model).items():
            hooks.enter_context(layer.gate.register_forward_hook(partial(note, name)))
        yield values


def importance(model: FoundationModel, x: Inputs) -> dict[str, Tensor]:
    """Importances (n, m) of n samples by the gated layer's name, at the current sparsity.

    Neurons zeroed in one layer change the input of the next, so set the sparsity first at which
    the importances are used. The pass is in evaluation mode, without gradients.
    """
    training = model.module.training
    model.train(False)
    try:
        with torch.no_grad(), recorded(model) as values:
            model(x)
    finally:
        model.train(training)
    return values


@torch.no_grad()
def require_gateable(model: FoundationModel, x: Inputs) -> None:
    """Raise Unsupported unless a neuron of a feed-forward layer that is zero contributes nothing.

    On samples ``x``, with every other neuron at zero: what lies between the two layers must map 0
    to 0 (GELU, ReLU; not a sigmoid), neuron by neuron. Each layer must be called once in a pass.
    """
    require_called(model, x, "gates", once=True)
    twin = model.clone()
    twin.train(False)
    for pair in pairs(twin):
        inner = linear_at(twin, pair.inner)
        inner.weight[::2] = 0
        if inner.bias is not None:
            inner.bias[::2] = 0
    zeroed = twin(x)
    for pair in pairs(twin):
        linear_at(twin, pair.outer).weight[:, ::2] = 0
    away = float((twin(x) - zeroed).abs().max())
    if not away <= 1e-3 * float(zeroed.abs().max()):
        raise WrongBlocks(
            f"gates: {type(model).__name__}: a feed-forward neuron that is zero changes the "
            f"outputs by up to {away:.2g}, as after a sigmoid; use a model with GELU or ReLU, or "
            "check ff_in and ff_out in blocks()"
        )
