"""Feature alignment: the source task plus multi-kernel MMD between source and target features."""

from __future__ import annotations

import torch
from torch import Tensor

from bench import register, tunable

from ._alignment import Alignment, AlignmentConfig


def multi_kernel_mmd(source: Tensor, target: Tensor, kernels: int = 5) -> Tensor:
    """Squared maximum mean discrepancy, biased estimate, under a sum of Gaussian kernels.

    k(a, b) = sum_i exp(-|a - b|^2 / h_i) with h_i = h 2^(i - kernels // 2) and h the
    mean squared distance over the joint batch, held constant in the gradient
    (Gretton et al., JMLR 2012; Long et al., ICML 2015). Source (n, width) and target (m, width)
    give a scalar: mean K_ss + mean K_tt - 2 mean K_st.
    """
    joint = torch.cat([source, target])
    squares = joint.pow(2).sum(dim=1)
    distances = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * joint @ joint.t()).clamp_min(0)
    n, size = len(source), len(joint)
    bandwidth = (distances.sum() / (size * size - size)).detach()
    bandwidth = torch.where(bandwidth > 0, bandwidth, 1.0)  # equal features: 0, not 0 / 0
    kernel = sum(
        (torch.exp(-distances / (bandwidth * 2.0 ** (i - kernels // 2))) for i in range(kernels)),
        start=torch.zeros(()),
    )
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class FeatureAlignmentConfig(AlignmentConfig):
    """The recipe's settings, as the group behind EdgeTA has them, and ``mmd_weight``: of MMD."""

    mmd_weight: float = tunable(1.0, 0.1, 10.0, log=True, ge=0, le=100.0)


@register("method", "feature-alignment")
class FeatureAlignment(Alignment):
    """Source cross-entropy + multi-kernel MMD on the features before the head (DAN).

    It is what EdgeTA retrains its proxy with, and its defaults are that group's: the features
    before the head, a frozen head, AdamW at a constant rate, a new optimizer for each domain. The
    paper adapts several layers of AlexNet; its optimizer is ``optimizer: sgd, schedule: decay,
    trained: all, head_rate: 10``.
    """

    Config = FeatureAlignmentConfig
    config: FeatureAlignmentConfig
    paper = "Long, Cao, Wang, Jordan: Deep Adaptation Networks, ICML 2015"
    equation = "min over the body: CE(source) + w MMD^2(features of source, of target)"

    def alignment_loss(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        return self.config.mmd_weight * multi_kernel_mmd(source, target)
