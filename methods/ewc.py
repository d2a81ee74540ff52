"""EWC: a quadratic penalty that keeps weights that mattered on earlier domains."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bench import register, tunable

from .avalanche.method import AvalancheMethod, TaskLossConfig


class EwcConfig(TaskLossConfig):
    """Settings of EWC besides those of `TaskLossConfig`.

    ``penalty``: lambda; ``mode``: ``online`` keeps one sum of importances and the
    latest weights (memory does not grow), ``separate`` one penalty for each earlier domain as in
    the paper; ``decay``: factor on old importances in online mode; ``per_sample``: importances
    from each sample's gradient, as in the paper and mammoth, at a backward pass for each (1.56
    instead of 0.19 s of a Xavier NX for a domain of 200; of the whole source in ``prepare``,
    which costs the device nothing but takes its time here), or from each batch's mean gradient, as
    in Avalanche and FACIL.
    """

    penalty: float = tunable(100.0, 1.0, 1e6, log=True, ge=0, le=1e12)
    mode: Literal["online", "separate"] = "online"
    decay: float = Field(1.0, ge=0, le=1)
    per_sample: bool = True


@register("method", "ewc")
class Ewc(AvalancheMethod):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), Avalanche's plugin.

    Supervised fine-tuning with the penalty lambda sum_i F_i (w_i - w*_i)^2, where F is
    the diagonal Fisher information, estimated from squared gradients: on the source in
    ``prepare``, and on each domain after it was learned (charged to the device). Avalanche leaves
    out the paper's factor 1/2 and takes the gradient at the true labels (the empirical Fisher), of
    the loss over all classes seen so far, as FACIL, whatever training's covers; mammoth also
    weights each square by the label's probability. Avalanche squares the mean gradient of a batch,
    which is smaller than the mean of squares by up to the batch size, the paper's that of each
    sample (``per_sample``). In how few operators it is computed is ours: see ``BatchedEWC``.
    """

    Config = EwcConfig
    config: EwcConfig
    search_from = "fine-tune"
    provenance = "published"
    paper = "Kirkpatrick et al.: Overcoming catastrophic forgetting in neural networks, PNAS 2017"
    equation = "L = CE(y, f(x)) + lambda sum_i F_i (w_i - w*_i)^2,  F_i = E[(dCE/dw_i)^2]"

    def make_plugin(self) -> Any:
        from .avalanche.plugins import BatchedEWC
        from .avalanche.sample_gradients import SampleEWC

        mode = self.config.mode
        decay = self.config.decay if mode == "online" else None
        plugin = SampleEWC if self.config.per_sample else BatchedEWC
        return plugin(self.config.penalty, mode=mode, decay_factor=decay)

    def learned(self) -> dict[str, Any]:
        return {
            name: {t: tensors(kept) for t, kept in getattr(self.plugin, name).items()}
            for name in ("saved_params", "importances")
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        for name, by_domain in learned.items():
            kept = getattr(self.plugin, name)
            kept.clear()
            kept.update({t: parameter_data(values) for t, values in by_domain.items()})


def tensors(kept: dict[str, Any]) -> dict[str, Any]:
    """The tensors of Avalanche's ``ParamData``, by name."""
    return {name: item.data for name, item in kept.items()}


def parameter_data(kept: dict[str, Any]) -> dict[str, Any]:
    """Avalanche's ``ParamData`` around tensors, by name."""
    from avalanche.training.utils import ParamData

    return {n: ParamData(n, init_tensor=t, device=t.device) for n, t in kept.items()}
