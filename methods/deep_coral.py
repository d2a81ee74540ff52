"""Deep CORAL: the source task plus the distance between source and target covariances."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from bench import choice, register, tunable

from ._alignment import Alignment, AlignmentConfig
from ._optimizers import OptimizerName


def coral(source: Tensor, target: Tensor) -> Tensor:
    """CORAL loss |C_S - C_T|_F^2 / (4 d^2) with unbiased covariances, eqs. (1) to (3).

    A covariance needs two samples: with fewer on either side the loss is the constant 0.
    Source (n, d) and target (m, d) give a scalar.
    """
    if min(len(source), len(target)) < 2:
        return source.new_zeros(())
    difference = source.t().cov() - target.t().cov()
    return difference.square().sum() / (4 * source.shape[1] ** 2)


class DeepCoralConfig(AlignmentConfig):
    """Settings of Deep CORAL; the recipe's are the paper's, with SGD at a constant rate.

    ``epochs``: passes over the target; the paper trains for tens of thousands of steps, and the
    default is the most that is searched; ``head_rate``: 10 in the paper, whose head is new (here it
    comes from the source model); ``coral_weight``: lambda. The paper gives no number: it wants
    both losses about equal at the end of training, which the search covers.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(15, 1, 15, unit="passes", log=True, ge=1, le=100)
    optimizer: OptimizerName = choice("sgd", "adamw")
    trained: Literal["body", "all"] = "all"
    head_rate: float = Field(10.0, gt=0, le=100.0)
    coral_weight: float = tunable(1.0, 0.1, 100.0, log=True, ge=0, le=1e6)


@register("method", "deep-coral")
class DeepCoral(Alignment):
    """Source cross-entropy + CORAL loss (Sun & Saenko, ECCV-W 2016), on the features.

    The paper aligns the classifier's outputs (fc8 of AlexNet); here it is the features before
    the head, as in every alignment method. A batch of one sample has no covariance and its
    step trains on the source alone; at batch size 1 this is ``source-fine-tune`` with its settings.
    """

    Config = DeepCoralConfig
    config: DeepCoralConfig
    paper = "Sun, Saenko: Deep CORAL, ECCV Workshops 2016"
    equation = "min over all weights: CE(source) + w |C_S - C_T|_F^2 / (4 d^2)"

    def alignment_loss(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        return self.config.coral_weight * coral(source, target)
