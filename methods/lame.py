"""LAME: the outputs of a batch are corrected so that neighbours in feature space agree."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench import Method, MethodConfig, register, tunable
from bench.contracts.data import Inputs

from ._losses import at_least_float32


def nearest_neighbour_affinity(features: Tensor, neighbours: int) -> Tensor:
    """w_ij = 1 if j is one of the ``neighbours`` nearest to i by cosine, else 0; i not among them.

    Features of shape (n, width) give (n, n); a smaller batch has fewer neighbours.
    """
    unit = F.normalize(features, dim=1)
    similarity = (unit @ unit.t()).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(neighbours, len(unit) - 1), dim=1).indices
    return torch.zeros_like(similarity).scatter_(1, nearest, 1.0)


def laplacian_adjustment(
    log_probabilities: Tensor, affinity: Tensor, max_iterations: int, tolerance: float = 1e-6
) -> Tensor:
    """Log of the assignments z that solve z_ik ∝ q_ik exp(sum_j w_ij z_jk), shape (n, classes).

    Iterated from z = q until no probability moves by more than ``tolerance``. The
    ``log_probabilities`` are log q of shape (n, classes), the ``affinity`` is w of shape (n, n).
    """
    adjusted = log_probabilities
    for _ in range(max_iterations):
        before = adjusted.exp()
        adjusted = (log_probabilities + affinity @ before).log_softmax(dim=1)
        if (adjusted.exp() - before).abs().max() <= tolerance:
            break
    return adjusted


class LameConfig(MethodConfig):
    """``neighbours``: k of the affinity, 5 in the paper; ``max_iterations``: bound on the loop."""

    neighbours: int = tunable(5, 1, 10, unit="samples", le=1000)
    max_iterations: int = Field(100, ge=1, le=10_000)


@register("method", "lame")
class Lame(Method):
    """Laplacian-adjusted maximum-likelihood estimation (Boudiaf et al., CVPR 2022).

    No weight changes and nothing is learned: adaptation costs nothing, and each prediction of a
    batch is corrected by its own neighbours. A batch of one sample is predicted as it is.
    """

    Config = LameConfig
    config: LameConfig
    paper = (
        "Boudiaf, Mueller, Ben Ayed, Bertinetto: Parameter-free Online Test-time Adaptation, CVPR"
        " 2022"
    )
    equation = "min over assignments z: sum_i KL(z_i || q_i) - sum_ij w_ij z_i . z_j"

    def predict(self, x: Inputs) -> Tensor:
        """Log-probabilities of shape (n, classes)."""
        self.model.train(False)
        logits, features = self.model.with_features(x)
        affinity = nearest_neighbour_affinity(at_least_float32(features), self.config.neighbours)
        return laplacian_adjustment(
            at_least_float32(logits).log_softmax(dim=1), affinity, self.config.max_iterations
        )
