"""Experience replay: a batch from memory with each batch of the current domain."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from bench import Batch, register
from bench.contracts.data import Inputs, join_labels

from .avalanche.memory import draw, join, reservoirs_state, restore_reservoirs
from .avalanche.method import AvalancheMethod, RehearsalConfig


class ReplayConfig(RehearsalConfig):
    """Settings of replay besides those of `RehearsalConfig`.

    ``memory_size``: samples kept of all domains together, the source included.
    """

    memory_size: int = Field(200, ge=1, le=1_000_000)


@register("method", "replay")
class Replay(AvalancheMethod):
    """Experience replay (Rolnick et al., NeurIPS 2019; Chaudhry et al., 2019), Avalanche's buffer.

    Cross-entropy over a batch of the current domain and as many samples drawn from a memory that
    all domains share equally, each kept by reservoir sampling. The buffer and its balance are
    Avalanche's; drawing and joining the batches is ours, for Avalanche's loader would
    order the domain's batches anew.
    """

    Config = ReplayConfig
    config: ReplayConfig
    needs = ("target_labels", "replay_memory")
    paper = "Rolnick, Ahuja, Schwarz, Lillicrap, Wayne: Experience Replay for CL, NeurIPS 2019"
    equation = "L = CE(y, f(x)) over a batch of the domain joined with one of the memory"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import Reservoirs

        return Reservoirs(self.config.memory_size, self.generator)

    def compose(self, batch: Batch) -> tuple[Inputs, Tensor]:
        old = draw(self.plugin.groups, self.strategy.train_mb_size, self.generator)
        return join([batch.x, old.x]), join_labels([batch.y, old.y])

    def learned(self) -> dict[str, Any]:
        policy = self.plugin.policy
        return {"reservoirs": reservoirs_state(policy), "domains": policy._num_exps}

    def relearn(self, learned: dict[str, Any]) -> None:
        policy = self.plugin.policy
        self.plugin.groups = restore_reservoirs(policy, learned["reservoirs"])
        policy._num_exps = learned["domains"]
