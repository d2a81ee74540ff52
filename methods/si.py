"""SI: a quadratic penalty on the weights along whose path the loss fell."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import Field

from bench import DomainView, register, tunable

from .avalanche.method import AvalancheMethod, TaskLossConfig


class SiConfig(TaskLossConfig):
    """Settings of SI besides those of `TaskLossConfig`.

    ``penalty``: c; ``damping``: xi; ``source_epochs``: passes over the source, offline,
    along which the source's importances are measured.
    """

    penalty: float = tunable(1.0, 0.1, 1e5, log=True, ge=0, le=1e9)
    damping: float = tunable(0.1, 1e-3, 1.0, log=True, ge=1e-12, le=1e3)
    source_epochs: int = Field(1, ge=0, le=100)


@register("method", "si")
class Si(AvalancheMethod):
    """Synaptic intelligence (Zenke, Poole, Ganguli, ICML 2017) in Avalanche's loop.

    Omega adds up, over domains, max(0, omega / (Delta^2 + xi)), eqs. (4) and (5) of the paper:
    omega is the path integral of minus the task loss's gradient (without the penalty, and cut at
    0 after the sum, as in the authors' code), Delta how far the weight went. The model
    comes trained, so the source's path is that of ``source_epochs`` further passes, after
    which the weights are put back. The equations are ours: on a CPU Avalanche 0.6's plugin
    measures no path, for its copies of the weights are the weights themselves, and it cuts
    Omega at 0.001.
    """

    Config = SiConfig
    config: SiConfig
    search_from = "fine-tune"
    paper = "Zenke, Poole, Ganguli: Continual Learning Through Synaptic Intelligence, ICML 2017"
    equation = (
        "L = CE(y, f(x)) + c sum_i Omega_i (w_i - w*_i)^2,  Omega_i += omega_i / (Delta_i^2 + xi)"
    )

    def make_plugin(self) -> Any:
        from .avalanche.path_integral import PathIntegral

        return PathIntegral(self.config.penalty, self.config.damping)

    def remember_source(self, source: DomainView) -> None:
        deployed = copy.deepcopy(self.model.module.state_dict())
        self.plugin.start(self.strategy.model)
        importance = self.plugin.importance
        if self.config.source_epochs:
            self.strategy.learn(source, None, self.config.source_epochs, self.compose)
            importance = self.plugin.importance
        self.model.module.load_state_dict(deployed)
        self.optimizer.state.clear()
        self.optimizer.zero_grad()
        self.plugin.start(self.strategy.model)
        self.plugin.importance = importance

    def learned(self) -> dict[str, Any]:
        return {"importance": self.plugin.importance, "reference": self.plugin.reference}

    def relearn(self, learned: dict[str, Any]) -> None:
        for name, kept in learned.items():
            setattr(self.plugin, name, kept)
        self.plugin.path.zero_()
