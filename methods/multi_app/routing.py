"""Which samples belong to which application, and a model that sends each to its own proxy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError, Block, DomainView, FoundationModel, take
from bench.contracts.data import Inputs, subset
from bench.tasks.applications import (
    ApplicationForm,
    ApplicationModels,
    own_inputs,
    owners,
    require_known,
    routed,
)


@dataclass(frozen=True)
class Owner:
    """An application as the owner of samples of a domain: of those that say its ``number``.

    ``form``: how they stand among samples of other tasks; None where all applications have one task
    and one model.
    """

    number: int
    form: ApplicationForm | None = None

    def inputs(self, x: Inputs) -> Inputs:
        """Its samples, lazy ones unread, as its model takes them."""
        own = x if self.form is None else own_inputs(x, self.number)
        return subset(own, self._chosen(x))

    def labels(self, y: Tensor, x: Inputs) -> Tensor:
        """The labels of its samples, as its task has them; ``y``: of all samples of ``x``."""
        own = y[self._chosen(x)]
        return own if self.form is None else self.form.labels(own)

    def view(self, domain: DomainView, y: Tensor | None = None) -> DomainView | None:
        """Of its samples in a domain, if there are some; ``y``: labels of all, or None.

        The order is drawn from the state that the domain's generator is in.
        """
        if not len(self._chosen(domain.x)):
            return None
        x = self.inputs(domain.x)
        generator = torch.Generator()
        generator.set_state(domain.rng_state)
        return DomainView(
            domain.name,
            x,
            None if y is None else self.labels(y, domain.x),
            domain.batch_size,
            generator,
            least_batch=domain.least_batch,
            draw=domain.draw,
        )

    def _chosen(self, x: Inputs) -> Tensor:
        return (owners(x) == self.number).nonzero().squeeze(1)


def owners_in(model: FoundationModel, source: DomainView) -> list[Owner]:
    """Those that the source has samples of, up to the last one."""
    count = int(owners(source.x).max()) + 1
    if not isinstance(model, ApplicationModels):
        return [Owner(number) for number in range(count)]
    if count != len(model.models):
        raise BenchError(
            f"the source has samples of {count} applications, and there are {len(model.models)} "
            "models: give it a sample of each"
        )
    return [Owner(form.app, form) for form in model.forms]


def prepared_with(
    model: FoundationModel, source: DomainView, owner: Owner
) -> tuple[FoundationModel, DomainView]:
    """The model of an application and its labelled source, which may be those of all."""
    if not isinstance(model, ApplicationModels):
        return model, source
    own = owner.view(source, source.y)
    if own is None:
        raise BenchError(f"the source has no samples of application {owner.number}; give it some")
    return model.models[owner.number], own


def split(domain: DomainView, of: Sequence[Owner]) -> dict[int, DomainView]:
    """A view of each application's samples, without labels; none for one without samples.

    Raises BenchError for a sample of an application that there is not.
    """
    require_known(owners(domain.x), len(of))
    views = {each.number: each.view(domain) for each in of}
    return {number: view for number, view in views.items() if view is not None}


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
        if len(self.proxies) == 1 and not owners(x).any():
            return self.proxies[0](x)
        return routed(x, len(self.proxies), lambda app, chosen: self.proxies[app](take(x, chosen)))


def routed_to(proxies: Sequence[FoundationModel], of: Sequence[Owner]) -> FoundationModel:
    """The proxies as one model, whose outputs are those of the model that was deployed."""
    facts = [each.form.facts for each in of if each.form is not None]
    return ApplicationModels(proxies, facts) if facts else Routed(proxies)
