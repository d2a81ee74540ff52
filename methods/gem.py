"""GEM: gradients projected so that no earlier domain's loss grows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench import register, tunable

from .avalanche.method import AvalancheMethod, TaskLossConfig


class GemConfig(TaskLossConfig):
    """Settings of GEM besides those of `TaskLossConfig`.

    ``memory_size``: samples kept of all domains together, the source included, in equal shares:
    as many as replay, A-GEM and DER++ keep (the authors divide a total by the number of tasks,
    which they know beforehand); ``patterns_per_domain``: samples kept of each domain instead, as
    in their code, a memory that grows with the stream; ``margin``: gamma, the least weight of a
    memory's gradient in a projection (0.5 in the authors' code).
    """

    memory_size: int = Field(200, ge=1, le=1_000_000)
    patterns_per_domain: int | None = Field(None, ge=1, le=1_000_000)
    margin: float = tunable(0.5, 0.0, 1.0, ge=0, le=10.0)


@register("method", "gem")
class Gem(AvalancheMethod):
    """Gradient episodic memory (Lopez-Paz, Ranzato, NeurIPS 2017), Avalanche's plugin.

    Before each step it takes the loss's gradient on every domain's memory; where the step's
    gradient points against one of them it is replaced by the nearest one (2-norm) that
    points against none, found by the dual quadratic program, eq. (11). A step's cost grows
    with the number of domains. The paper keeps the last samples of a domain, Avalanche and we
    random ones. What AdamW makes of the projected gradient is not itself projected. A step is
    charged as the first of its window was counted, whether that one was projected or not.
    """

    Config = GemConfig
    config: GemConfig
    needs = ("target_labels", "replay_memory")
    provenance = "published"
    paper = "Lopez-Paz, Ranzato: Gradient Episodic Memory for Continual Learning, NeurIPS 2017"
    equation = "min_z |z - g|^2 subject to <z, g_k> >= 0 for the gradient g_k of each memory k"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import DrawnGEM

        c = self.config
        total = c.memory_size if c.patterns_per_domain is None else None
        return DrawnGEM(c.patterns_per_domain, c.margin, self.generator, total)

    def learned(self) -> dict[str, Any]:
        return self.plugin.remembered()

    def relearn(self, learned: dict[str, Any]) -> None:
        self.plugin.put_back(learned)
