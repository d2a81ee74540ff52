"""DANN: the source task plus a domain discriminator behind gradient reversal."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench import DomainView, FoundationModel, choice, register, take, tunable

from ._alignment import Alignment, AlignmentConfig
from ._losses import at_least_float32
from ._optimizers import OptimizerName, Schedule


def reversal(progress: float, gamma: float = 10.0) -> float:
    """The paper's schedule lambda_p = 2 / (1 + exp(-gamma p)) - 1, from 0 to about 1."""
    return 2.0 / (1.0 + math.exp(-gamma * progress)) - 1.0


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """The same values; their gradient is multiplied by ``-factor`` (gradient reversal layer)."""
    same = features.view_as(features)
    if same.requires_grad:
        same.register_hook(lambda gradient: -factor * gradient)
    return same


class DannConfig(AlignmentConfig):
    """Settings of DANN; the recipe's are the paper's: SGD from 1e-2 with its decaying rate.

    ``learning_rate``: at the start of an adaptation, for model and discriminator; ``epochs``:
    passes over the target; the paper trains for tens of thousands of steps, and the default is the
    most that is searched; ``domain_weight``: factor on lambda_p, the paper's 1 by default (less is
    often more stable); ``hidden``: units of the discriminator's hidden layer, 100 in the paper's
    smallest network.
    """

    learning_rate: float = tunable(1e-2, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(15, 1, 15, unit="passes", log=True, ge=1, le=100)
    optimizer: OptimizerName = choice("sgd", "adamw")
    weight_decay: float = Field(0.0, ge=0, le=1.0)
    schedule: Schedule = choice("decay", "constant")
    trained: Literal["body", "all"] = "all"
    domain_weight: float = tunable(1.0, 0.01, 1.0, log=True, ge=0, le=10.0)
    hidden: int = Field(100, ge=1, le=8192)


@register("method", "dann")
class Dann(Alignment):
    """Domain-adversarial training (Ganin et al., JMLR 2016) on the features before the head.

    A discriminator (one hidden ReLU layer) learns to tell source from target features; the
    body receives its gradient times -w lambda_p, the discriminator the whole gradient, as in
    the paper. The progress p runs from 0 to 1 over the planned steps of each domain, so that a
    new domain is first learned by the discriminator, which persists over the stream; a window
    that closes early cuts the schedule.
    """

    Config = DannConfig
    config: DannConfig
    protocols = ("periodic",)
    paper = (
        "Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky: Domain-"
        "Adversarial Training of Neural Networks, JMLR 2016"
    )
    equation = "min over all weights, max over d: CE(source) - w lambda_p BCE(d(features), domain)"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        model.train(False)
        with torch.no_grad():
            first = take(source.x, torch.tensor([0]))
            features = model.pooled(model.with_features(first)[1], first)
        like = at_least_float32(features)
        first, last = nn.Linear(like.shape[1], self.config.hidden), nn.Linear(self.config.hidden, 1)
        self.discriminator = nn.Sequential(first, nn.ReLU(), last).to(like)
        groups = [*self.optimizer.param_groups, {"params": list(self.discriminator.parameters())}]
        self.optimizer = self.make_optimizer(
            [{k: g[k] for k in ("params", "lr") if k in g} for g in groups]
        )

    def alignment_loss(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        factor = self.config.domain_weight * reversal(progress)
        joint = reverse_gradient(torch.cat([source, target]), factor)
        logits = self.discriminator(joint).squeeze(1)
        n = len(source)
        return -F.logsigmoid(-logits[:n]).mean() - F.logsigmoid(logits[n:]).mean()
