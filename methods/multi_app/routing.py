"""Which samples belong to which application, and a model that sends each to its own proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError, Block, DomainView, FoundationModel, LazyInputs, take
from bench.contracts.data import Inputs, batch_length, subset


def owners(x: Inputs) -> Tensor:
    """The application of each sample, int64 of shape (n,): the inputs' ``app``, else 0."""
    owner: Tensor | None = None
    if isinstance(x, LazyInputs):
        owner = x.column("app")
    elif isinstance(x, dict):
        owner = x.get("app")
    if owner is not None:
        return owner
    return torch.zeros(batch_length(x), dtype=torch.int64)


def split(domain: DomainView, applications: int) -> dict[int, DomainView]:
    """A view of each application's samples, without labels; none for one without samples.

    Every view draws its order from the state that the domain's generator is in.
    Raises BenchError for a sample of an application that there is not.
    """
    owner = owners(domain.x)
    _require_known(owner, applications)
    views = {}
    for app in range(applications):
        chosen = (owner == app).nonzero().squeeze(1)
        if len(chosen):
            generator = torch.Generator()
            generator.set_state(domain.rng_state)
            x = subset(domain.x, chosen)
            views[app] = DomainView(
                domain.name, x, None, domain.batch_size, generator, least_batch=domain.least_batch
            )
    return views


class Routed(FoundationModel):
    """The proxies of all applications as one model: each sample goes to its application's.

    It predicts only; ``module`` holds the proxies' modules in the order of the applications.
    """

    def __init__(self, proxies: Sequence[FoundationModel]) -> None:
        super().__init__(nn.ModuleList(proxy.module for proxy in proxies))
        self.proxies = list(proxies)

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> FoundationModel:
        raise BenchError("Routed is made of proxies, not built")

    def blocks(self) -> list[Block]:
        return []

    def __call__(self, x: Inputs) -> Tensor:
        """Task outputs of n samples, in their order."""
        owner = owners(x)
        if len(self.proxies) == 1 and not owner.any():
            return self.proxies[0](x)
        _require_known(owner, len(self.proxies))
        rows, outputs = [], []
        for app in owner.unique().tolist():
            chosen = (owner == app).nonzero().squeeze(1)
            rows.append(chosen)
            outputs.append(self.proxies[app](take(x, chosen)))
        return torch.cat(outputs)[torch.cat(rows).argsort()]


def _require_known(owner: Tensor, applications: int) -> None:
    if len(owner) and not 0 <= int(owner.min()) <= int(owner.max()) < applications:
        raise BenchError(
            f"inputs of applications {owner.unique().tolist()}, and the source has those from 0 to "
            f"{applications - 1}; give the source a sample of each"
        )
