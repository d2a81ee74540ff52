"""CUA: feature alignment plus replay of the source and of pseudo-labelled earlier domains."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils._pytree import tree_map

from bench import Batch, DomainView, FoundationModel, Window, register, take, tunable
from bench.contracts.data import Inputs, join_labels

from ._alignment import Alignment, AlignmentConfig
from .feature_alignment import multi_kernel_mmd


class CuaConfig(AlignmentConfig):
    """Settings of CUA; optimizer, schedule and trained weights are those of the group's harness.

    ``mmd_weight``: of the alignment, 1 in the group's harness; ``replay_weight``: of the replay
    loss, alpha there; ``replay_samples``: kept of the source and of each domain; ``form``:
    ``paper`` keeps training on the source and aligns with its features as they are now; ``group``
    is the form of the group behind EdgeTA: no loss on the source, and its features are those of
    the source model, which lies in memory besides. A step is cheaper: nothing flows back through
    the source batch.
    """

    mmd_weight: float = tunable(1.0, 0.1, 10.0, log=True, ge=0, le=100.0)
    replay_weight: float = tunable(1.0, 0.01, 10.0, log=True, ge=0, le=100.0)
    replay_samples: int = Field(64, ge=1, le=100_000)
    form: Literal["paper", "group"] = "paper"


@register("method", "cua")
class Cua(Alignment):
    """Continuous unsupervised adaptation (Bobu et al., ICLR-W 2018), with MMD as the alignment.

    Each step also replays a batch from a buffer, so that what was adapted to earlier is not
    forgotten: source samples with their labels, and samples of every earlier domain with the
    model's predictions after adapting to it as labels (predicting them is charged). The paper
    aligns adversarially; MMD is what the group that published CUA as EdgeTA's rival uses in its
    harness, and it makes ``feature-alignment`` the method without replay.
    """

    Config = CuaConfig
    config: CuaConfig
    protocols = ("periodic",)
    needs = ("source_data", "replay_memory")
    provenance = "published"
    paper = "Bobu, Tzeng, Hoffman, Darrell: Adapting to Continuously Shifting Domains, ICLR-W 2018"
    equation = "min over the body: CE(source) + w MMD^2(source, target) + v CE(replay, its labels)"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.frozen: FoundationModel | None = None
        if self.config.form == "group":
            self.frozen = model.clone()
            self.frozen.freeze_except([])
            self.frozen.train(False)
        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        chosen = self._choose(source)
        self.memory_x: Inputs = take(source.x, chosen)
        self.memory_y: Tensor = source.y[chosen]

    def adapt(self, domain: DomainView, window: Window) -> None:
        super().adapt(domain, window)
        with window.section("pseudo-label"):
            self._remember(domain)

    def source_part(self, labelled: Batch) -> tuple[Tensor, Tensor]:
        if self.frozen is None:
            return super().source_part(labelled)
        with torch.no_grad():
            _, features = self.frozen.with_features(labelled.x)
            features = self.frozen.pooled(features, labelled.x)
        return features.new_zeros(()), features

    def adaptation_loss(self, source_features: Tensor, target: Batch, progress: float) -> Tensor:
        alignment = super().adaptation_loss(source_features, target, progress)
        size = self.source.batch_size
        memory = DomainView(
            "replay", self.memory_x, self.memory_y, size, self.generator,
            least_batch=self.model.least_batch,
        )  # fmt: skip
        replayed = next(memory.infinite())
        replay = self.model.loss(self.model(replayed.x), replayed.y)
        return alignment + self.config.replay_weight * replay

    def alignment_loss(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        return self.config.mmd_weight * multi_kernel_mmd(source, target)

    @torch.no_grad()
    def _remember(self, domain: DomainView) -> None:
        self.model.train(False)
        x = take(domain.x, self._choose(domain))
        parts = torch.arange(min(len(domain), self.config.replay_samples)).split(domain.batch_size)
        labels = [self._labels(take(x, part)) for part in parts]
        self.memory_x = tree_map(lambda a, b: torch.cat([a, b]), self.memory_x, x)
        self.memory_y = join_labels([self.memory_y, *labels])

    def _labels(self, x: Inputs) -> Tensor:
        outputs, rules = self.model(x), self.model.rules
        return rules.packed(rules.units(outputs, x).argmax(dim=1), rules.places(outputs, x))

    def _choose(self, domain: DomainView) -> Tensor:
        return torch.randperm(len(domain), generator=self.generator)[: self.config.replay_samples]
