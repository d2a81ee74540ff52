"""Joint training: the upper bound of continual learning, on all domains seen so far."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench import Batch, DomainView, register, tunable
from bench.contracts.data import Inputs

from .avalanche.memory import Samples, ViewSamples, draw
from .avalanche.method import AvalancheMethod, RehearsalConfig


class JointConfig(RehearsalConfig):
    """Settings of joint training besides those of `RehearsalConfig`.

    ``epochs``: samples drawn, in multiples of the new domain's. Default and bounds are four times
    the other methods', since most of a batch is older data.
    """

    epochs: int = tunable(12, 4, 60, log=True, unit="passes", ge=1, le=100)


@register("method", "joint")
class Joint(AvalancheMethod):
    """Cumulative training on the union of the source and all domains so far: an upper bound.

    Cross-entropy on batches drawn from the union. A domain is given ``epochs`` times as many
    samples of the union as it has itself, whatever the size of the union, so that the reference
    is not many times as costly as what it bounds; the model goes on from domain to domain.
    Avalanche's ``Cumulative`` passes over the whole union instead; the loop is Avalanche's, the
    union ours. All domains stay in memory, the source on storage.
    """

    Config = JointConfig
    config: JointConfig
    family = "reference"
    needs = ("source_data", "target_labels", "replay_memory")
    paper = "none: the joint-training reference of continual-learning studies"
    equation = "L = CE(y, f(x)) over batches from the union of the source and all domains so far"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import Archive

        return Archive()

    def remember_source(self, source: DomainView) -> None:
        self.source = source

    def compose(self, batch: Batch) -> tuple[Inputs, Tensor]:
        union = [ViewSamples(self.source), *self.plugin.domains, ViewSamples(self.strategy.domain)]
        drawn = draw(union, len(batch), self.generator)
        return drawn.x, drawn.y

    def learned(self) -> dict[str, Any]:
        return {"domains": [kept.tensors() for kept in self.plugin.domains]}

    def relearn(self, learned: dict[str, Any]) -> None:
        self.plugin.domains = [Samples(**kept) for kept in learned["domains"]]
