"""Feedback: what a proxy has learned goes to the knowledge base, to the model, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bench.models.surgery.neurons import Slice


@torch.no_grad()
def proxy_to_kb(
    proxy: Mapping[str, Tensor],
    kb: dict[str, Tensor],
    slices: Mapping[str, Slice],
    names: Sequence[str],
    head: Sequence[str] = (),
) -> None:
    """W_kb = (W_kb + W_proxy) / 2 where the proxy has it, in place; the rest stays.

    Parameters
    ----------
    slices : what the proxy holds of each parameter
    names : the parameters that go back; those of ``head`` are copied outright
    """
    for name in names:
        own, part = kb[name], slices[name]
        mean = (part.gather(own) + proxy[name]) / 2
        own.copy_(part.scatter(own, mean))
    for name in head:
        kb[name].copy_(slices[name].scatter(kb[name], proxy[name]))


@torch.no_grad()
def average_task_agnostic(
    models: Sequence[dict[str, Tensor]], shared: Callable[[str], bool]
) -> None:
    """Every application's model becomes the mean over applications where ``shared``, in place.

    All means are taken before any is written, so the order of applications does not matter.
    Parameters that are not in all models, with equal shapes, stay.
    """
    first = models[0]
    names = [
        name
        for name, tensor in first.items()
        if shared(name) and all(name in m and m[name].shape == tensor.shape for m in models)
    ]
    # In double precision and sorted by value: a sum in another order would round otherwise.
    means = {
        name: torch.stack([m[name].double() for m in models]).sort(dim=0).values.mean(dim=0)
        for name in names
    }
    for model in models:
        for name, mean in means.items():
            model[name].copy_(mean)
