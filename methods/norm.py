"""Norm: BatchNorm layers normalize each target batch by its own statistics; nothing is learned."""

from __future__ import annotations

from bench import DomainView, FoundationModel, Method, MethodConfig, Unsupported, register, tunable

from ._batchnorm import batch_norms, use_batch_statistics


class NormConfig(MethodConfig):
    """``prior``: N of Schneider et al., source samples that the source's statistics count as.

    0, the default, is the batch alone (Nado et al.); the more, the nearer to source-only.
    """

    prior: int = tunable(0, 0, 128, unit="samples", le=100_000)


@register("method", "norm")
class Norm(Method):
    """Batch statistics alone (Schneider et al., NeurIPS 2020; Nado et al., 2020).

    Mean and variance of each BatchNorm layer are N/(N+n) times those of the source plus n/(N+n)
    times those of the batch of n samples that is predicted. No weight changes and adaptation costs
    nothing, but a prediction depends on its batch: the protocol's, in the order of the split. With
    N = 0 a batch of one sample, which is too few for statistics, is normalized by the source's.
    """

    tasks = ("classification", "token-classification", "segmentation", "visual-question-answering")
    Config = NormConfig
    config: NormConfig
    paper = (
        "Schneider, Rusak, Eck, Bringmann, Brendel, Bethge: Improving Robustness against Common "
        "Corruptions by Covariate Shift Adaptation, NeurIPS 2020"
    )
    equation = "mean = N/(N+n) source mean + n/(N+n) batch mean, and the variance alike"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        if not batch_norms(model.module):
            raise Unsupported(
                f"norm replaces the statistics of BatchNorm layers, and {type(model).__name__} "
                "has none; source-only is what it would be"
            )
        self.model = model
        use_batch_statistics(model, self.config.prior)
