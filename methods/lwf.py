"""LwF: distillation from the model as it was before the current domain."""

from __future__ import annotations

from typing import Any

from bench import register, tunable

from .avalanche.method import AvalancheMethod, TaskLossConfig


class LwfConfig(TaskLossConfig):
    """Settings of LwF besides those of `TaskLossConfig`.

    ``alpha``: weight of the distillation (the paper's lambda_o); ``temperature``: of its softmax.
    Under one head for all classes the distillation holds earlier classes relative to one another
    alone, while the cross-entropy pushes all of them down: it takes weights far above the
    paper's 1, which has a head for each task, to keep much.
    """

    alpha: float = tunable(1.0, 0.1, 100.0, log=True, ge=0, le=1e3)
    temperature: float = tunable(2.0, 1.0, 5.0, ge=0.1, le=100.0)


@register("method", "lwf")
class Lwf(AvalancheMethod):
    """Learning without forgetting (Li, Hoiem, ECCV 2016), Avalanche's plugin.

    Cross-entropy on the new labels, and the Kullback-Leibler divergence from the outputs of the
    previous model (first the source's) on the new inputs, over the classes seen before. Its
    gradient is that of the paper's cross-entropy between tempered softmaxes; neither has a factor
    T^2. The paper trains the new head alone at first; here there is one head.
    The teacher in evaluation mode is ours: see ``FrozenLwF``. A copy of the model is the
    method's memory.
    """

    tasks = (
        "classification", "token-classification", "segmentation",
        "visual-question-answering", "generation",
    )  # fmt: skip
    Config = LwfConfig
    config: LwfConfig
    search_from = "fine-tune"
    paper = "Li, Hoiem: Learning without Forgetting, ECCV 2016"
    equation = "L = CE(y, f(x)) + alpha KL(softmax(f_old(x)/T) || softmax(f(x)/T)) on seen classes"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import FrozenLwF

        return FrozenLwF(self.config.alpha, self.config.temperature)

    def learned(self) -> dict[str, Any]:
        lwf = self.plugin.lwf
        return {
            "teacher": dict(lwf.prev_model.module.state_dict()),
            "classes": sorted(lwf.prev_classes_by_task[0]),
            "experiences": lwf.expcount,
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        lwf = self.plugin.lwf
        lwf.prev_model.module.load_state_dict(learned["teacher"])
        lwf.prev_classes_by_task[0] = set(learned["classes"])
        lwf.expcount = learned["experiences"]
