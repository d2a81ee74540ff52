"""A-GEM: gradients projected so that the mean loss over a memory does not grow."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench import register

from .avalanche.memory import Samples
from .avalanche.method import AvalancheMethod, TaskLossConfig


class AgemConfig(TaskLossConfig):
    """Settings of A-GEM besides those of `TaskLossConfig`.

    ``memory_size``: samples kept of all domains together, the source included, in equal shares:
    as many as replay, GEM and DER++ keep; ``patterns_per_domain``: samples kept of each domain
    instead, as in the authors' code, a memory that grows with the stream; ``sample_size``: samples
    drawn from all of them for each reference gradient.
    """

    memory_size: int = Field(200, ge=1, le=1_000_000)
    patterns_per_domain: int | None = Field(None, ge=1, le=1_000_000)
    sample_size: int = Field(64, ge=1, le=1_000_000)


@register("method", "a-gem")
class Agem(AvalancheMethod):
    """Averaged gradient episodic memory (Chaudhry et al., ICLR 2019), Avalanche's plugin.

    Where the step's gradient points against the gradient on a random batch of the memory, that
    part of it is taken out, eq. (11) of the paper. How memory is kept and drawn is ours:
    see ``DrawnAGEM``. What AdamW makes of the projected gradient is not itself projected.
    """

    Config = AgemConfig
    config: AgemConfig
    needs = ("target_labels", "replay_memory")
    paper = "Chaudhry, Ranzato, Rohrbach, Elhoseiny: Efficient Lifelong Learning, ICLR 2019"
    equation = "g <- g - (<g, r> / <r, r>) r if <g, r> < 0, r the gradient on a batch of the memory"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import DrawnAGEM

        c = self.config
        total = c.memory_size if c.patterns_per_domain is None else None
        return DrawnAGEM(c.patterns_per_domain, c.sample_size, self.generator, total)

    def learned(self) -> dict[str, Any]:
        memory = [kept.tensors() for kept in self.plugin.buffers]
        return {"memory": memory, "classes": list(self.plugin.classes)}

    def relearn(self, learned: dict[str, Any]) -> None:
        self.plugin.classes = list(learned["classes"])
        self.plugin.buffers = [Samples(**kept) for kept in learned["memory"]]
