"""What of a proxy is retrained, and its retraining by feature alignment."""

from __future__ import annotations

import torch
from torch import nn

from bench import Batch, DomainView, FoundationModel, Window, take

from ..feature_alignment import FeatureAlignment, FeatureAlignmentConfig
from .partial import Selector, chosen_rows, training_only


def retrained(proxy: FoundationModel) -> list[str]:
    """The parameters of a proxy that EdgeTA trains: q, k, v, feed-forward and normalization.

    Weights and biases; embeddings, the attention's output layer and the head stay.
    """
    layers = {name for block in proxy.blocks() for name in (*block.qkv, block.ff_in, block.ff_out)}
    norms = {id(p) for p in proxy.normalization_parameters()}
    head = {id(p) for p in proxy.head_parameters()}
    return [
        name
        for name, p in proxy.module.named_parameters()
        if id(p) not in head
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


class ProxyAlignment(FeatureAlignment):
    """Feature alignment of a proxy: of its parameters, only those that EdgeTA retrains.

    ``share`` of the neurons of each layer, chosen by ``selector``: see `partial`.
    """

    def __init__(
        self, config: FeatureAlignmentConfig, share: float = 1.0, selector: Selector = "gradient"
    ) -> None:
        super().__init__(config)
        self.share, self.selector = share, selector

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.source = source
        named = dict(model.module.named_parameters())
        parameters = [named[name] for name in retrained(model)]
        model.freeze_except(parameters)
        decay = 0.01 if self.share == 1 else 0.0  # AdamW's own; it would move untrained neurons
        self.optimizer = torch.optim.AdamW(
            parameters, lr=self.config.learning_rate, weight_decay=decay
        )

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
        added = self.adaptation_loss(features, Batch(take(domain.x, chosen), chosen), 0.0)
        (self.model.loss(logits, labelled.y) + added).backward()
