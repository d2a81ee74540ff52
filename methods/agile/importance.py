"""How much each feature matters to a reference network, and the losses that AgileNN makes of it.

Integrated gradients (Sundararajan, Taly, Yan, ICML 2017) of the reference network's cross-entropy,
from features that are all zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]
Disorder = Literal["channel", "element"]


def integrated_gradients(
    network: Network, features: Tensor, y: Tensor, points: int, create_graph: bool = False
) -> Tensor:
    """Attributions A of the loss to each feature, in the shape of ``features`` (n, C, H, W).

    A = F * integral over t in [0, 1] of the gradient of the loss at t F, by the trapezoidal rule
    at ``points`` values of t, 2 or more. For many points sum(A) = loss(F) - loss(0), per sample.
    With ``create_graph`` it can be differentiated again.
    """
    total = torch.zeros_like(features)
    for number in range(points):
        share = number / (points - 1)
        at = features * share if create_graph else (features.detach() * share)
        at = at if at.requires_grad else at.requires_grad_()
        loss = nn.functional.cross_entropy(network(at), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at, create_graph=create_graph)
        total = total + gradient * (0.5 if number in (0, points - 1) else 1.0)
    return features * total / (points - 1)


def normalised(attributions: Tensor) -> Tensor:
    """|A| divided by its sum over each sample; 1 / size where all are zero."""
    size = attributions.abs()
    total = size.sum(dim=(1, 2, 3), keepdim=True)
    even = torch.full_like(size, 1 / size[0].numel())
    return torch.where(total > 0, size / total.clamp_min(1e-30), even)


def skewness(importance: Tensor, local: int) -> Tensor:
    """Share of a sample's importance in its first ``local`` channels, shape (n,)."""
    return importance[:, :local].sum(dim=(1, 2, 3))


def skewness_loss(importance: Tensor, local: int, rho: float) -> Tensor:
    """Mean over the samples of max(0, rho - |I1|_1); a scalar."""
    return (rho - skewness(importance, local)).clamp_min(0).mean()


def disorder(importance: Tensor, local: int, over: Disorder) -> Tensor:
    """max(I2) - min(I1) of each sample, shape (n,): above 0 a remote one outweighs a local one.

    ``over``: importances of whole channels, as the paper writes it, or each ``element`` of them, as
    its code computes it.
    """
    values = importance.sum(dim=(2, 3)) if over == "channel" else importance.flatten(2)
    first, rest = values[:, :local].flatten(1), values[:, local:].flatten(1)
    return rest.amax(dim=1) - first.amin(dim=1)


def disorder_loss(importance: Tensor, local: int, over: Disorder) -> Tensor:
    """Mean over the samples of max(0, max(I2) - min(I1)); a scalar."""
    return disorder(importance, local, over).clamp_min(0).mean()


def often_important(importances: Iterable[Tensor], local: int) -> Tensor:
    """All channels, those first that are most often among a sample's ``local`` most important.

    ``importances``: batches (n, C, H, W). Ties are settled by the mean importance, then by number.
    Algorithm 1 of AgileNN. int64, shape (C,).
    """
    counts: Tensor | None = None
    means: Tensor | None = None
    for batch in importances:
        channels = batch.sum(dim=(2, 3))
        top = channels.topk(local, dim=1).indices
        seen = torch.bincount(top.flatten(), minlength=channels.shape[1]).double()
        counts = seen if counts is None else counts + seen
        summed = channels.double().sum(dim=0)
        means = summed if means is None else means + summed
    assert counts is not None
    assert means is not None
    order = sorted(range(len(counts)), key=lambda c: (-float(counts[c]), -float(means[c]), c))
    return torch.tensor(order)
