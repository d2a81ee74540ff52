"""The source model trained on for longer: the control of methods with an offline stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from bench import DomainView, FoundationModel, MethodConfig, register
from bench.contracts.method import only_shapes
from bench.contracts.model import source_digest, weights_digest
from bench.io.digest import digest
from bench.io.progress import advance
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.models.surgery.distillation import rate
from bench.registry.component_code import code_digest

from ._losses import take_step
from .source_only import SourceOnly


class SourceLongerConfig(MethodConfig):
    """``steps``: of training on the source after the source model's own; EdgeTA's offline stage has
    2200 by default, 200 of LoRA, 1000 of the knowledge base and 1000 of the neuron index.
    ``learning_rate``: the peak of AdamW's, after a tenth of the steps; ``weight_decay``.
    """

    steps: int = Field(2200, ge=1, le=10_000_000)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=100)


@register("method", "source-longer")
class SourceLonger(SourceOnly):
    """No adaptation: the source model after as many further source steps as EdgeTA's offline stage.

    The training is made offline, once for each draw of the source model, and cached. Batches are of
    the protocol's size and augmented as in source training, as in EdgeTA's offline stage.
    """

    Config = SourceLongerConfig
    config: SourceLongerConfig
    paper = "none: the control for training on the source before deployment"
    equation = "offline: CE(source) for further steps; then w stays what it is"
    conformance_config = {"steps": 20}

    @classmethod
    def offline_settings(cls, config: SourceLongerConfig) -> dict[str, Any]:
        return config.model_dump(mode="json")

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        if only_shapes():
            return
        made_from = [weights_digest(model.module), source_digest(source)]
        settings = self.config.model_dump(mode="json")
        key = digest([*made_from, settings, code_digest(Path(__file__))])
        path = cache_folder() / "source-longer" / f"{key[:20]}.pt"
        model.module.load_state_dict(cached(path, lambda: self._trained(model.clone(), source)))
        model.train(False)

    def _trained(self, model: FoundationModel, source: DomainView) -> Weights:
        c = self.config
        model.module.requires_grad_(True)
        parameters = list(model.module.parameters())
        optimizer = torch.optim.AdamW(parameters, c.learning_rate, weight_decay=c.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, c.steps))
        model.train(True)
        with torch.random.fork_rng(devices=[]), source.preserve_rng():
            torch.manual_seed(source.draw)
            for step, batch in zip(range(c.steps), source.infinite(), strict=False):
                take_step(optimizer, model.loss(model(model.augment(batch.x)), batch.y))
                schedule.step()
                advance(step + 1, c.steps)
        return model.module.state_dict()
