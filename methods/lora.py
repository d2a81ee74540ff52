"""LoRA: supervised fine-tuning of low-rank adapters on query, key and value."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from bench import DomainView, FoundationModel, Window, register, registry, take, tunable
from bench.contracts.structure import require_called
from bench.models.surgery.linear import own_head
from bench.models.surgery.lora import fuse_lora, insert_lora
from bench.records.cell import Cell

from ._supervised import SupervisedConfig, SupervisedMethod


class LoraConfig(SupervisedConfig):
    """Settings of LoRA besides those of `SupervisedConfig`.

    ``rank``: width of the bottleneck; ``alpha``: the update is scaled by alpha / rank;
    ``train_head``: train the task head too, without which no new class can be learned. The
    adapters of each domain are new, and so is their optimizer.
    """

    rank: int = Field(8, ge=1, le=256)
    alpha: float = Field(16.0, gt=0, le=1024.0)
    learning_rate: float = tunable(3e-3, 1e-4, 3e-2, log=True, ge=1e-8, le=1.0)
    train_head: bool = False
    optimizer_state: Literal["new"] = "new"


@register("method", "lora")
class Lora(SupervisedMethod):
    """Low-rank adaptation of the attention (Hu et al., ICLR 2022), supervised on target labels.

    For each domain new adapters are inserted, trained and fused into the weights, so that
    prediction costs what it did and memory does not grow with the stream.
    """

    Config = LoraConfig
    config: LoraConfig
    protocols = ("periodic",)
    paper = "Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA, ICLR 2022"
    equation = "min over A, B: CE(target) with W + (alpha / r) B A in place of W for q, k, v"

    @classmethod
    def skip(cls, cell: Cell) -> str | None:
        new_classes = "class" in registry.load("stream", cell.stream.name).shifts
        if new_classes and not cls.Config.model_validate(cell.method.config).train_head:
            return (
                f"lora with train_head: false keeps the head of the source, and "
                f"{cell.stream.name} brings new classes; set train_head: true"
            )
        return None

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.begin(source)
        require_called(model, take(source.x, torch.arange(1)), "LoRA", qkv_only=True)
        if self.config.train_head:
            own_head(model, "LoRA with train_head")

    def adapt(self, domain: DomainView, window: Window) -> None:
        parameters = insert_lora(self.model, self.config.rank, self.config.alpha)
        if self.config.train_head:
            parameters += self.model.head_parameters()
        self.train_only(parameters)
        super().adapt(domain, window)
        with window.section("fuse"):
            fuse_lora(self.model)
        del self.optimizer  # its adapters are gone
