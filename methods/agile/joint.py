"""AgileNN's offline training: a reference network, the choice of channels, and joint training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench import FoundationModel

from .importance import (
    disorder,
    disorder_loss,
    integrated_gradients,
    normalised,
    often_important,
    skewness,
    skewness_loss,
)
from .networks import DevicePart
from .training import Source, accuracy, fit


class Reference:
    """A frozen network on all features, and how much each of them matters to it."""

    def __init__(self, network: nn.Module, points: int) -> None:
        self.network, self._points = network, points

    def importance(self, features: Tensor, y: Tensor, create_graph: bool = False) -> Tensor:
        """Normalised importances (n, C, H, W) by integrated gradients of the loss."""
        found = integrated_gradients(self.network, features, y, self._points, create_graph)
        return normalised(found)

    @torch.no_grad()
    def is_right(self, features: Tensor, y: Tensor) -> Tensor:
        """Which samples it classifies correctly, bool (n,)."""
        right: Tensor = self.network(features).argmax(dim=1) == y
        return right


def train_jointly(
    config: Any,
    model: FoundationModel,
    device: DevicePart,
    network: nn.Module,
    stem: Callable[[], nn.Conv2d],
    remote: nn.Module,
    remote_stem: Callable[[], nn.Conv2d],
    data: Any,
) -> dict[str, Any]:
    """Train ``device`` and ``remote`` (for the channels that the device sends) together.

    ``network``: for all channels, with a fresh ``stem``; it becomes the reference, after it was
    trained with the extractor. Normalization layers keep their stored statistics. Facts of the
    training: shares of the source.
    """
    source, k = Source(model, data), device.local
    network.requires_grad_(True).eval()
    fit(
        [*device.extractor.parameters(), *network.parameters()],
        lambda x, y: nn.functional.cross_entropy(network(device.features(x)), y),
        source,
        config,
        config.reference_epochs,
    )
    network.requires_grad_(False)
    reference = Reference(network, config.ig_points)
    facts: dict[str, Any] = {"reference": accuracy(lambda x: network(device.features(x)), source)}
    if config.choose_channels:
        facts["channels"] = _choose(device, stem(), reference, source, k)
    remote.load_state_dict(_for_remote(network, stem(), remote, remote_stem()))
    remote.requires_grad_(True).eval()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        features = device.features(x)
        assert device.quantiser is not None
        sent = device.quantiser(device.to_send(features))
        local = device.predicted(features)
        combined = nn.functional.cross_entropy(device.combined(local, remote(sent)), y)
        if config.local_loss:
            combined = combined + config.local_loss * nn.functional.cross_entropy(local, y)
        if config.balance == 1:
            return combined
        right = reference.is_right(features, y)
        if not right.any():
            return config.balance * combined
        importance = reference.importance(features[right], y[right], create_graph=True)
        skew = skewness_loss(importance, k, config.rho)
        order = disorder_loss(importance, k, config.disorder)
        return config.balance * combined + (1 - config.balance) * (skew + order)

    trained = [*device.parameters(), *remote.parameters()]
    assert device.weight is not None
    rates = {device.weight: config.weight_rate}
    facts["loss"] = fit(trained, loss, source, config, config.epochs, rates)
    return facts | _facts(config, device, remote, reference, source)


def _choose(
    device: DevicePart, stem: nn.Conv2d, reference: Reference, source: Source, k: int
) -> list[int]:
    """Bring the channels that matter most often to the front, for the extractor and the stem."""

    def importances() -> Iterator[Tensor]:
        for x, y in source.in_order():
            features = device.features(x).detach()
            right = reference.is_right(features, y)
            if right.any():
                yield reference.importance(features[right], y[right]).detach()

    order = often_important(importances(), k)
    last = [layer for layer in device.extractor.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        assert last.bias is not None
        last.bias.copy_(last.bias[order])
        stem.weight.copy_(stem.weight[:, order])
    chosen: list[int] = order[:k].tolist()
    return chosen


def _for_remote(
    network: nn.Module, stem: nn.Conv2d, remote: nn.Module, remote_stem: nn.Conv2d
) -> dict[str, Tensor]:
    """The reference's weights, for the channels that are sent alone."""
    name = next(n for n, layer in remote.named_modules() if layer is remote_stem)
    weights = copy.deepcopy(network.state_dict())
    skipped = stem.in_channels - remote_stem.in_channels
    weights[f"{name}.weight"] = weights[f"{name}.weight"][:, skipped:].clone()
    return weights


def _facts(
    config: Any, device: DevicePart, remote: nn.Module, reference: Reference, source: Source
) -> dict[str, Any]:
    """What the training reached on the source: shares of samples, and of importance."""
    shares: list[float] = []
    violated: list[bool] = []
    for x, y in source.in_order():
        features = device.features(x).detach()
        importance = reference.importance(features, y)
        shares += skewness(importance, device.local).tolist()
        violated += (disorder(importance, device.local, config.disorder) > 0).tolist()

    def together(x: Tensor) -> Tensor:
        features = device.features(x)
        assert device.quantiser is not None
        sent = device.quantiser(device.to_send(features))
        return device.combined(device.predicted(features), remote(sent))

    return {
        "skewness": sum(shares) / len(shares),
        "disorder_violated": sum(violated) / len(violated),
        "together": accuracy(together, source),
        "local": accuracy(device, source),
        "alpha": float(device.alpha.detach()),
    }
