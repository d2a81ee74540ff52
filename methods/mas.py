"""MAS: a quadratic penalty on the weights to which the outputs were sensitive."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench import register, tunable

from .avalanche.method import AvalancheMethod, TaskLossConfig
from .ewc import parameter_data, tensors


class MasConfig(TaskLossConfig):
    """Settings of MAS besides those of `TaskLossConfig`.

    ``penalty``: lambda; ``alpha``: share of the old importances in an average of old and new, as
    in Avalanche, or none to add them up, as in the paper (an average lets what mattered for the
    first domains fade as others come);
    ``per_sample``: importances from each sample's gradient, as in the paper, at a backward pass
    for each (`EwcConfig` says what that costs), instead of each batch's mean gradient, as in
    Avalanche.
    """

    penalty: float = tunable(1.0, 0.01, 1e3, log=True, ge=0, le=1e9)
    alpha: float | None = Field(None, ge=0, le=1)
    per_sample: bool = True


@register("method", "mas")
class Mas(AvalancheMethod):
    """Memory aware synapses (Aljundi et al., ECCV 2018), Avalanche's plugin.

    Supervised fine-tuning with the penalty lambda sum_i Omega_i (w_i - w*_i)^2, where Omega is the
    mean absolute gradient of the squared 2-norm of the outputs: on the source in ``prepare``,
    and on each domain after it was learned (charged; no label is used). Importances of domains add
    up as in the paper, where Avalanche averages them (``alpha``); they are absolute values of the
    gradient of each sample, as in the paper and where its code adds importances up, and not of the
    mean gradient of a batch, as in Avalanche (``per_sample``). The estimate in evaluation mode is
    ours: see ``BatchedMAS``.
    """

    Config = MasConfig
    config: MasConfig
    search_from = "fine-tune"
    provenance = "group-harness"
    paper = "Aljundi et al.: Memory Aware Synapses: Learning what (not) to forget, ECCV 2018"
    equation = "L = CE(y, f(x)) + lambda sum_i Omega_i (w_i - w*_i)^2,  Omega_i = E|d|f(x)|^2/dw_i|"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import BatchedMAS
        from .avalanche.sample_gradients import SampleMAS

        plugin = SampleMAS if self.config.per_sample else BatchedMAS
        return plugin(self.config.penalty, self.config.alpha)

    def learned(self) -> dict[str, Any]:
        return {n: tensors(getattr(self.plugin, n)) for n in ("params", "importance")}

    def relearn(self, learned: dict[str, Any]) -> None:
        for name, kept in learned.items():
            setattr(self.plugin, name, parameter_data(kept))
