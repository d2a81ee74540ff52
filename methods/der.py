"""DER++: replay that keeps the outputs which the model gave to remembered samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bench import register, tunable

from .avalanche.memory import reservoirs_state, restore_reservoirs
from .avalanche.method import AvalancheConfig, AvalancheMethod


class DerConfig(AvalancheConfig):
    """Settings of DER++ besides those of `AvalancheConfig`.

    ``alpha``: weight of the distance to remembered outputs; ``beta``: weight of the
    cross-entropy on remembered labels (0: DER); ``memory_size``: samples kept of all domains
    together, the source included, as many as replay, GEM and A-GEM keep; ``passes``: the domain's
    batch and the memory's go through the network each in a pass of its own (``separate``, as in
    the authors' code), or in one (``joint``, as in Avalanche), in which BatchNorm mixes their
    statistics; networks without BatchNorm give the same but for rounding.
    """

    alpha: float = tunable(0.1, 0.05, 2.0, log=True, ge=0, le=1e3)
    beta: float = tunable(0.5, 0.1, 2.0, log=True, ge=0, le=1e3)
    memory_size: int = Field(200, ge=1, le=1_000_000)
    passes: Literal["separate", "joint"] = "separate"
    loss_classes: Literal["all"] = "all"  # as in the authors' code


@register("method", "der++")
class Der(AvalancheMethod):
    """Dark experience replay ++ (Buzzega et al., NeurIPS 2020), Avalanche's strategy.

    The task's loss on the domain's batch, alpha times the mean squared difference to remembered
    logits and beta times the task's loss on remembered labels, all over all outputs, with
    one batch of the memory where the paper draws two. Avalanche balances the memory over classes
    (the paper samples the stream) and computes logits when a domain was learned (the paper while
    it is). How the buffer keeps samples is ours: see ``LogitReservoirs``.

    Published for classification. Here logits are those of all units, words or places of an image,
    and the memory is balanced only where a sample is of one class. Not for detection, whose boxes
    stand beside the logits, nor for generation, where the logits of one remembered text are as
    many as its tokens times the vocabulary.
    """

    tasks = ("classification", "token-classification", "segmentation", "visual-question-answering")
    Config = DerConfig
    config: DerConfig
    needs = ("target_labels", "replay_memory")
    paper = "Buzzega, Boschini, Porrello, Abati, Calderara: Dark Experience, NeurIPS 2020"
    equation = (
        "L = CE(y, f(x)) + alpha mean (f(x') - z')^2 + beta CE(y', f(x')),  (x', y', z') kept"
    )

    def make_strategy(self, batch_size: int) -> Any:
        from .avalanche.plugins import ReplayedDER

        c = self.config
        return ReplayedDER.over(
            self.model,
            self.optimizer,
            batch_size,
            generator=self.generator,
            mem_size=c.memory_size,
            alpha=c.alpha,
            beta=c.beta,
            joint=c.passes == "joint",
        )

    def learned(self) -> dict[str, Any]:
        policy = self.strategy.storage_policy
        return {"reservoirs": reservoirs_state(policy), "classes": sorted(policy.seen_classes)}

    def relearn(self, learned: dict[str, Any]) -> None:
        policy = self.strategy.storage_policy
        policy.groups = restore_reservoirs(policy, learned["reservoirs"])
        policy.seen_classes = set(learned["classes"])
