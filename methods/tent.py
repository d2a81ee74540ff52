"""Tent: entropy minimisation on the normalisation layers' scale and shift."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.errors import Unsupported
from bench.method import tunable
from bench.window import Window


def widened(values: Tensor) -> Tensor:
    """The same values in at least single precision, as losses of bfloat16 models need."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of each row's softmax, shape (n,): -sum_c p_c log p_c."""
    logits = widened(logits)
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def affine_parameters(model: FoundationModel) -> list[nn.Parameter]:
    """Scale and shift of every normalisation layer; Unsupported if the model has none."""
    parameters = model.normalisation_parameters()
    if not parameters:
        raise Unsupported(
            f"{type(model).__name__} has no normalisation layer whose scale and shift could be "
            "trained; use a method that trains other weights, such as shot"
        )
    return parameters


class TentConfig(MethodConfig):
    """Settings of Tent.

    ``learning_rate``: Adam's step size, 1e-3 as in the paper outside ImageNet; ``epochs``: passes
    over the adaptation split, one in the paper.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 5, unit="passes", le=100)


@register("method", "tent")
class Tent(Method):
    """Entropy minimisation on normalisation parameters (Wang et al., ICLR 2021).

    Minimises the mean prediction entropy, eq. (1) of the paper, with Adam over scale
    and shift of every normalisation layer. On LayerNorm transformers there are no batch
    statistics to re-estimate, so the affine parameters are all that changes. The paper
    takes one pass; ``epochs`` above 1 is the offline variant.
    """

    Config = TentConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic", "online")
    provenance = "published"
    paper = (
        "Wang, Shelhamer, Liu, Olshausen, Darrell: Tent: Fully Test-Time Adaptation by Entropy "
        "Minimization, ICLR 2021"
    )
    equation = "min over normalisation scale and shift: mean_i H(p_i), H(p) = -sum_c p_c log p_c"

    config: TentConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        parameters = affine_parameters(model)
        model.freeze_except(parameters)
        self.optimiser = torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = entropy(self.model(batch.x)).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(entropy=loss.detach())
