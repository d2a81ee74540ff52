"""The static small model: what an edge paper deploys where the foundation model does not fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import Field

from bench import DomainView, FoundationModel, ModelConfig, Variant, register, take
from bench.contracts.model import source_digest, weights_digest
from bench.io.digest import digest
from bench.io.weights_cache import cache_folder, cached
from bench.registry.component_code import code_digest

from .surgery.distillation import distil
from .surgery.masking import require_prunable
from .surgery.pruning import cut, strongest


class CompressedConfig(ModelConfig):
    """``ratio``: inner widths are divided by it. ``steps``, ``learning_rate`` and
    ``weight_decay``: of the training afterwards, by AdamW. ``distillation``: weight of the
    teacher's term in it.
    """

    ratio: int = Field(8, ge=1, le=4096)
    steps: int = Field(2000, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    distillation: float = Field(1.0, ge=0)


@register("variant", "compressed")
class Compressed(Variant):
    """Static width pruning by L1 norm, then distillation from the full model, once and cached.

    The same for every method, seed and domain, in contrast to EdgeTA's proxy, whose neurons are
    chosen for each domain.
    """

    Config = CompressedConfig
    config: CompressedConfig

    def make(self, model: FoundationModel, source: DomainView) -> FoundationModel:
        small = model.clone()
        cut(small, strongest(small, self.config.ratio))
        made_from = [weights_digest(model.module), source_digest(source)]
        settings = self.config.model_dump(mode="json")
        blocks = [asdict(block) for block in model.blocks()]
        key = digest([*made_from, blocks, settings, code_digest(Path(__file__))])

        def train() -> dict[str, torch.Tensor]:
            c = self.config
            sample = take(source.x, torch.arange(min(source.batch_size, len(source))))
            require_prunable(model, sample, strongest, c.ratio)
            training = c.steps, c.learning_rate, c.weight_decay, c.distillation
            with torch.random.fork_rng(devices=[]), source.preserve_rng():
                torch.manual_seed(source.draw)
                distil(small, model, source, *training)
            return small.module.state_dict()

        path = cache_folder() / "compressed" / f"{key[:20]}.pt"
        small.module.load_state_dict(cached(path, train))
        small.module.requires_grad_(True)  # as after training, whether it was cached or not
        small.train(False)
        return small
