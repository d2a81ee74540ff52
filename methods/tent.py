"""Tent: entropy minimisation on the normalization layers' scale and shift."""

from __future__ import annotations

from typing import ClassVar

import torch

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, tunable

from ._losses import affine_parameters, entropy, take_step, train_only


class TentConfig(MethodConfig):
    """``learning_rate``: of Adam, the paper's outside ImageNet; ``epochs``: passes, one there."""

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 5, unit="passes", le=100)


@register("method", "tent")
class Tent(Method):
    """Entropy minimisation on normalization parameters (Wang et al., ICLR 2021).

    Minimises the mean prediction entropy, eq. (1) of the paper, with Adam over scale
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
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            # Nested, so that the logits do not outlive the loss in memory.
            loss = entropy(self.model.units(self.model(batch.x), batch.x)).mean()
            take_step(self.optimizer, loss)
            window.log(entropy=loss.detach())
