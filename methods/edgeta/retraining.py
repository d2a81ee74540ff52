"""What of a proxy is retrained, wholly or in part, and its retraining by feature alignment.

An unused variant of EdgeTA's release trains a fifth of the neurons, those whose weights differ
most after a step. It compares the weights without taking the step, so that all differences are
zero and the choice is arbitrary (defect W14); here it is one of the selectors, ``released``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from bench import Batch, BenchError, DomainView, FoundationModel, Window, take
from bench.contracts.data import Inputs, on_device
from bench.models.surgery.linear import largest

from .._losses import train_only
from ..feature_alignment import FeatureAlignment, FeatureAlignmentConfig

Selector = Literal["gradient", "random", "inverse", "released"]


def first_batch(view: DomainView) -> Inputs:
    """The first samples of a view, as many as a batch has, in their own order."""
    return take(view.x, torch.arange(min(view.batch_size, len(view))))


def retrained(proxy: FoundationModel, qkv_bias: bool = True) -> list[str]:
    """The parameters of a proxy that EdgeTA trains: q, k, v, feed-forward and normalization.

    Weights and biases, those of q, k and v only with ``qkv_bias``; embeddings, the attention's
    output layer and the head stay.
    """
    left_out = () if qkv_bias else tuple(f"{n}." for block in proxy.blocks() for n in block.qkv)
    layers = {name for block in proxy.blocks() for name in (*block.qkv, block.ff_in, block.ff_out)}
    norms = {id(p) for p in proxy.normalization_parameters()}
    head = {id(p) for p in proxy.head_parameters()}
    return [
        name
        for name, p in proxy.module.named_parameters()
        if id(p) not in head
        and not (name.endswith(".bias") and name.startswith(left_out))
        and (id(p) in norms or any(name.startswith(f"{layer}.") for layer in layers))
    ]


def retrained_layers(proxy: FoundationModel) -> dict[str, nn.Linear]:
    """The linear layers among what is retrained, by name."""
    names = set(retrained(proxy))
    return {
        name: layer
        for name, layer in proxy.module.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" in names
    }


@torch.no_grad()
def chosen_rows(
    layers: Mapping[str, nn.Linear], share: float, selector: Selector
) -> dict[str, Tensor]:
    """Ids of the neurons to train, ceil(share m) of the m of each layer, ascending, by its name.

    ``gradient``: those of the largest sum of |dL/dw| over a neuron's weights and bias, which is
    how far a plain gradient step moves them (AdamW's first step moves all alike); ``inverse``: of
    the smallest; ``random``: drawn from torch's global generator; ``released``: of differences
    that are all zero, the first ones. Raises BenchError where gradients are needed and missing.
    """
    return {
        name: largest(_scores(name, layer, selector), max(math.ceil(share * layer.out_features), 1))
        for name, layer in layers.items()
    }


def _scores(name: str, layer: nn.Linear, selector: Selector) -> Tensor:
    if selector == "random":
        return on_device(torch.rand(layer.out_features), layer.weight.device)
    if selector == "released":
        return torch.zeros(layer.out_features, device=layer.weight.device)
    if layer.weight.grad is None:
        raise BenchError(f"partial retraining: {name} has no gradient; run a backward pass first")
    moved = layer.weight.grad.abs().sum(dim=1)
    if layer.bias is not None and layer.bias.grad is not None:
        moved = moved + layer.bias.grad.abs()
    return -moved if selector == "inverse" else moved


@contextmanager
def training_only(layers: Mapping[str, nn.Linear], rows: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, gradients of all other neurons of these layers are zero.

    An optimizer without weight decay and without earlier moments then leaves them as they are.
    """
    handles = []
    for name, layer in layers.items():
        mask = torch.zeros_like(layer.weight[:, 0]).index_fill_(0, rows[name], 1.0).detach()
        for parameter, shaped in ((layer.weight, mask.unsqueeze(1)), (layer.bias, mask)):
            if parameter is not None and parameter.requires_grad:
                handles.append(parameter.register_hook(shaped.mul))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class ProxyAlignment(FeatureAlignment):
    """Feature alignment of a proxy: of its parameters, only those that EdgeTA retrains.

    ``share`` of the neurons of each layer, chosen by ``selector``: see `chosen_rows`;
    ``qkv_bias``: see `retrained`.
    """

    def __init__(
        self,
        config: FeatureAlignmentConfig,
        share: float = 1.0,
        selector: Selector = "gradient",
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(config)
        self.share, self.selector, self.qkv_bias = share, selector, qkv_bias

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model, self.source = model, source
        named = dict(model.module.named_parameters())
        parameters = train_only(model, [named[name] for name in retrained(model, self.qkv_bias)])
        decay = 0.01 if self.share == 1 else 0.0  # AdamW's own; it would move untrained neurons
        rate = self.config.learning_rate
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)

    def adapt(self, domain: DomainView, window: Window) -> None:
        if self.share == 1:
            super().adapt(domain, window)
            return
        layers = retrained_layers(self.model)
        with window.section("select"):
            if self.selector in ("gradient", "inverse"):
                self._gradients(domain)
            rows = chosen_rows(layers, self.share, self.selector)
            self.optimizer.zero_grad()
        with training_only(layers, rows):
            super().adapt(domain, window)

    def _gradients(self, domain: DomainView) -> None:
        """Of the loss of the first step, without taking it."""
        self.model.train()
        labelled = next(self.source.batches())
        chosen = torch.arange(min(domain.batch_size, len(domain)))
        logits, features = self.model.with_features(labelled.x)
        features = self.model.pooled(features, labelled.x)
        added = self.adaptation_loss(features, Batch(take(domain.x, chosen), chosen), 0.0)
        (self.model.loss(logits, labelled.y) + added).backward()
