"""Feature alignment: the source task beside multi-kernel MMD between source and target features."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView, LabelledBatch
from bench.window import Window


def multi_kernel_mmd(source: Tensor, target: Tensor, kernels: int = 5) -> Tensor:
    """Squared maximum mean discrepancy, biased estimate, under a sum of Gaussian kernels.

    k(a, b) = sum_i exp(-|a - b|^2 / h_i) with h_i = h 2^(i - kernels // 2) and h the
    mean squared distance over the joint batch, held constant in the gradient
    (Gretton et al., JMLR 2012; Long et al., ICML 2015).

    Parameters
    ----------
    source : (n, width); target : (m, width)

    Returns
    -------
    A scalar: mean K_ss + mean K_tt - 2 mean K_st.
    """
    joint = torch.cat([source, target])
    squares = joint.pow(2).sum(dim=1)
    distances = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * joint @ joint.t()).clamp_min(0)
    n, size = len(source), len(joint)
    bandwidth = (distances.sum() / (size * size - size)).detach()
    kernel = sum(
        (torch.exp(-distances / (bandwidth * 2.0 ** (i - kernels // 2))) for i in range(kernels)),
        start=torch.zeros(()),
    )
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class FeatureAlignmentConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the target; ``mmd_weight``: of the MMD.

    With ``mmd_weight`` 0 this is the control that fine-tunes on the source alone.
    """

    learning_rate: float = Field(3e-4, gt=0, le=1.0)
    epochs: int = Field(3, ge=1, le=100)
    mmd_weight: float = Field(1.0, ge=0, le=100.0)


@register("method", "feature-alignment")
class FeatureAlignment(Method):
    """Source cross-entropy + multi-kernel MMD on the features before the head (DAN).

    Each step takes one labelled source batch and one unlabelled target batch; the
    task head is frozen, all else is trained. It is what EdgeTA retrains its proxy with.
    """

    Config = FeatureAlignmentConfig
    family = "UDA"
    needs = ("source_data",)
    provenance = "chosen-here"
    paper = "Long, Cao, Wang, Jordan: Deep Adaptation Networks, ICML 2015"

    config: FeatureAlignmentConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.source = source
        parameters = model.body_parameters()
        model.freeze_except(parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        source_batches = self.source.endless()
        for batch in window.steps(domain.batches(self.config.epochs)):
            labelled = next(source_batches)
            assert isinstance(labelled, LabelledBatch)
            logits, source_features = self.model.with_features(labelled.x)
            _, target_features = self.model.with_features(batch.x)
            task = self.model.loss(logits, labelled.y)
            mmd = multi_kernel_mmd(source_features, target_features)
            loss = task + self.config.mmd_weight * mmd
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(task=task.detach(), mmd=mmd.detach())
