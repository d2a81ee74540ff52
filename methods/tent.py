"""Tent: entropy minimisation on the normalization layers' scale and shift."""

from __future__ import annotations

from typing import ClassVar

from bench import (
    DomainView,
    FoundationModel,
    Method,
    MethodConfig,
    Window,
    choice,
    register,
    tunable,
)

from ._batchnorm import Statistics, set_statistics
from ._losses import affine_parameters, entropy, take_step, train_only
from ._optimizers import OptimizerName, make_optimizer


class TentConfig(MethodConfig):
    """Settings of Tent; defaults are the paper's outside ImageNet.

    ``learning_rate``: of Adam; with ``optimizer: sgd`` (momentum 0.9), the paper's on ImageNet, it
    is 2.5e-4 there; ``epochs``: passes, one in the paper; ``statistics``: ``batch``, the paper's,
    lets BatchNorm layers normalize each batch by itself, in predictions too; ``running`` predicts
    by running averages, which do not depend on the batch.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    optimizer: OptimizerName = choice("adam", "sgd")
    statistics: Statistics = "batch"


@register("method", "tent")
class Tent(Method):
    """Entropy minimisation on normalization parameters (Wang et al., ICLR 2021).

    Minimises the mean prediction entropy, eq. (1) of the paper, over scale
    and shift of every normalization layer. On LayerNorm transformers there are no batch
    statistics to re-estimate, so the affine parameters are all that changes. The paper
    takes one pass; ``epochs`` above 1 is the offline variant.
    """

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "visual-question-answering",
    )  # fmt: skip
    Config = TentConfig
    config: TentConfig
    provenance = "published"
    paper = (
        "Wang, Shelhamer, Liu, Olshausen, Darrell: Tent: Fully Test-Time Adaptation by Entropy "
        "Minimization, ICLR 2021"
    )
    equation = "min over normalization scale and shift: mean_i H(p_i), H(p) = -sum_c p_c log p_c"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        parameters = train_only(model, affine_parameters(model))
        set_statistics(model, self.config.statistics)
        self.optimizer = make_optimizer(
            self.config.optimizer, parameters, self.config.learning_rate
        )

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            # Nested, so that the logits do not outlive the loss in memory.
            loss = entropy(self.model.units(self.model(batch.x), batch.x)).mean()
            take_step(self.optimizer, loss)
            window.log(entropy=loss.detach())
