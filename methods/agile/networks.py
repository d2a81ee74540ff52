"""The networks of offloading methods: what the device computes, and what the server."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import Block, FoundationModel, Unsupported

from .quantiser import LinearQuantiser, Quantiser

LATTICE = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers behind which the map of features may have another size."""


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 convolution, a pointwise one, and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs),
        nn.Conv2d(inputs, outputs, 1),
        nn.ReLU6(),
    )


class Extractor(nn.Sequential):
    """Two convolutions with ReLU6, of ``first`` and of ``channels`` filters, AgileNN's on a device.

    ``stride``: of both together, 1, 2, 4 or an odd number (then the first has all of it).
    ``plain``: the first is an ordinary convolution; a separable one of grey images would have one
    filter of space alone. ``further``: separable layers behind it that keep its size.
    """

    def __init__(
        self, inputs: int, channels: int, first: int, stride: int, plain: bool, further: int = 0
    ) -> None:
        strides = (stride // 2, 2) if stride % 2 == 0 else (stride, 1)
        begin = (
            nn.Sequential(nn.Conv2d(inputs, first, 3, strides[0], 1), nn.ReLU6())
            if plain
            else separable(inputs, first, strides[0])
        )
        behind = [separable(channels, channels, 1) for _ in range(further)]
        super().__init__(begin, separable(first, channels, strides[1]), *behind)


class DevicePart(nn.Module):
    """What the device has: the extractor, a quantiser of what it sends, and a local head.

    Parameters
    ----------
    extractor : gives features (n, C, H, W) from 0 to 6
    local : channels, the first, that the head sees and, unless ``sends_all``, the server does not;
        0: there is no head
    shape : (C, H, W)
    classes : of the logits
    flat : the head sees each position of its channels, not their means alone
    quantiser : of the features that are sent; None: none are
    weight : w of the combination weight alpha = sigmoid(w / temperature) at first; None: none
    """

    def __init__(
        self,
        extractor: nn.Module,
        local: int,
        shape: tuple[int, int, int],
        classes: int,
        *,
        flat: bool = False,
        sends_all: bool = False,
        quantiser: Quantiser | LinearQuantiser | None = None,
        weight: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.extractor, self.quantiser = extractor, quantiser
        self.local, self.classes, self.flat, self.temperature = local, classes, flat, temperature
        self.sent = shape if sends_all else (shape[0] - local, *shape[1:])
        self._first_sent = 0 if sends_all else local
        width = local * (math.prod(shape[1:]) if flat else 1)
        self.head = nn.Linear(width, classes) if local else None
        self.weight = None if weight is None else nn.Parameter(torch.tensor(float(weight)))

    def forward(self, x: Tensor) -> Tensor:
        """The local prediction, logits (n, classes); zeros where there is no head."""
        return self.predicted(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Features of all channels, float32."""
        found: Tensor = self.extractor(x.float())
        return found

    def predicted(self, features: Tensor) -> Tensor:
        """As `forward`, of features."""
        if self.head is None:
            return features.new_zeros(len(features), self.classes)
        seen = features[:, : self.local]
        logits: Tensor = self.head(seen.flatten(1) if self.flat else seen.mean(dim=(2, 3)))
        return logits

    def to_send(self, features: Tensor) -> Tensor:
        """The part of the features that the server gets."""
        return features[:, self._first_sent :]

    @property
    def alpha(self) -> Tensor:
        """The weight of the local prediction."""
        assert self.weight is not None
        return (self.weight / self.temperature).sigmoid()

    def combined(self, local: Tensor, remote: Tensor) -> Tensor:
        """Alpha local + (1 - alpha) remote; where there is no weight, the remote one."""
        if self.weight is None:
            return remote
        return self.alpha * local + (1 - self.alpha) * remote


class OnDevice(FoundationModel):
    """A `DevicePart` as the model that runs on the device."""

    @classmethod
    def build(cls, config: object, input_shape: tuple[int, ...], classes: int) -> OnDevice:
        raise Unsupported("the part of a network on a device is made offline, from a model")

    def blocks(self) -> list[Block]:
        return []


@torch.no_grad()
def standardise(
    network: nn.Module, layer: nn.Conv2d, x: Tensor, like: Tensor | None = None
) -> None:
    """Scale a convolution of ``network`` so that each of its channels has mean 0 and deviation 2
    on ``x``, or the mean and deviation of the channel in ``like`` (n, C, H, W).

    A start for networks without normalization, as Mishkin and Matas (ICLR 2016) have it.
    """
    caught: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, out: caught.append(out))
    try:
        network(x)
    finally:
        handle.remove()
    over = (0, 2, 3)
    goal = 2.0 if like is None else like.std(dim=over)
    factor = goal / caught[0].std(dim=over).clamp_min(1e-3)
    assert layer.bias is not None
    layer.weight.mul_(factor.reshape(-1, 1, 1, 1))
    mean = 0.0 if like is None else like.mean(dim=over)
    layer.bias.copy_((layer.bias - caught[0].mean(dim=over)) * factor + mean)


@torch.no_grad()
def activation_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes of what the largest layer of ``network`` gets and gives for ``x``, at least ``x``'s."""
    sizes = [x.nbytes]
    handles = [
        layer.register_forward_hook(
            lambda _, inputs, out: sizes.append(inputs[0].nbytes + out.nbytes)
        )
        for layer in network.modules()
        if not list(layer.children())
    ]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    return max(sizes)


@dataclass(frozen=True)
class _Seen:
    """A layer that ran: its name, and what came out."""

    name: str
    out: Tensor


def without_stem(
    model: FoundationModel, x: Tensor, features: Tensor
) -> tuple[nn.Module, Callable[[], nn.Conv2d]]:
    """The model's network, a copy, for features in the place of images.

    The first layer whose map of features divides theirs becomes a convolution from their channels,
    scaled to give what the layer gave; the layers before it pass on what they get. The function
    gives that convolution. Raises Unsupported where the network has no such layer.

    Parameters
    ----------
    model : the whole network
    x : images (n, c, h, w), n at least 2
    features : of these images, (n, C, H, W)
    """
    network = model.clone().module
    order, stop = _first_layers(network, x, features.shape[2:])
    if stop is None:
        raise Unsupported(
            f"{type(model).__name__}: no first layer gives a map of features whose size divides "
            f"{features.shape[2]}x{features.shape[3]}; choose another stride, or a model that "
            "begins with convolutions"
        )
    step = features.shape[2] // stop.out.shape[2]
    for name in order[:-1]:
        _replace(network, name, nn.Identity())
    made = nn.Conv2d(features.shape[1], stop.out.shape[1], step, step).to(x.device)
    standardise(made, made, features, like=stop.out)
    _replace(network, stop.name, made)

    def stem() -> nn.Conv2d:
        layer = network.get_submodule(stop.name)
        assert isinstance(layer, nn.Conv2d)
        return layer

    try:
        with torch.no_grad():
            network(features)
    except Exception as error:
        raise Unsupported(
            f"{type(model).__name__}: it does not run from its layer {stop.name!r} on: {error}"
        ) from error
    return network, stem


def _first_layers(
    network: nn.Module, x: Tensor, size: Sequence[int]
) -> tuple[list[str], _Seen | None]:
    """Names of the leaf layers as they run, up to the first that fits ``size``; and that one."""
    ran: list[tuple[str, nn.Module, Tensor]] = []
    handles = [
        layer.register_forward_hook(lambda layer, _, out, name=name: ran.append((name, layer, out)))
        for name, layer in network.named_modules()
        if not list(layer.children())
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    order: list[str] = []
    for name, layer, out in ran:
        order.append(name)
        if isinstance(layer, LATTICE) and isinstance(out, Tensor) and out.ndim == 4:
            high, wide = out.shape[2:]
            if size[0] % high == 0 and size[1] % wide == 0 and size[0] // high == size[1] // wide:
                return order, _Seen(name, out)
    return order, None


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)
