"""EATA: entropy minimisation on reliable, non-redundant samples, held by a Fisher penalty."""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, take, tunable

from ._batchnorm import Statistics, batch_norms, set_statistics
from ._losses import affine_parameters, at_least_float32, entropy, take_step, train_only


def couples_samples(model: FoundationModel) -> bool:
    """Whether units are not predicted alone: with BatchNorm in training mode, or where a sample
    has several units.
    """
    return model.rules.dense or any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.module.modules()
    )


class EataConfig(MethodConfig):
    """Settings of EATA.

    ``learning_rate``: of SGD with momentum 0.9 (the paper's 2.5e-4 is for ResNet-50 on ImageNet;
    1e-3 is its authors' choice for ViT in SAR, ICLR 2023); ``epochs``: passes over the adaptation
    split, one in the paper; ``entropy_share``: E_0 of eq. (3) as a share of ln(number of classes);
    ``similarity_bound``: epsilon of eq. (5) in units of 1/sqrt(classes), the cosine of a certain
    prediction with a uniform average: below 1 next to nothing is selected, at sqrt(classes) all is.
    The paper's 0.4 for 10 classes is 1.265, its 0.05 for 1000 classes 1.58; ``max_similarity``:
    epsilon itself, a cosine, in place of ``similarity_bound``. ``averaging``: alpha of eq. (4);
    ``fisher_weight``: beta of eq. (8), on sum_i F_i (w_i - w°_i)^2 with F_i the mean squared
    gradient in nats^2; ``fisher_samples``: source samples that F is estimated on, at most;
    ``fisher_batch``: samples whose gradients are averaged before squaring. 1 is eq. (9) to the
    letter; the authors' code, for which they chose beta, has 64; ``statistics``: ``batch``, the
    authors', lets BatchNorm layers normalize each batch by itself, in F, in updates and in
    predictions; ``running`` estimates F and predicts by running averages.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    entropy_share: float = Field(0.4, gt=0, le=1.0)
    similarity_bound: float = tunable(1.265, 1.0, 3.2, log=True, ge=1e-3, le=1e3)
    max_similarity: float | None = Field(None, ge=1e-3, le=1.0)
    averaging: float = Field(0.1, gt=0, le=1.0)
    fisher_weight: float = tunable(2000.0, 1.0, 1e4, unit="1/nat", log=True, ge=0, le=1e8)
    fisher_samples: int = Field(2000, ge=1, le=1_000_000)
    fisher_batch: int = Field(64, ge=1, le=10_000)
    statistics: Statistics = "batch"

    @model_validator(mode="after")
    def _has_one_bound(self) -> EataConfig:
        default = type(self).model_fields["similarity_bound"].default
        if self.max_similarity is not None and self.similarity_bound != default:
            raise ValueError(
                f"max_similarity ({self.max_similarity:g}) and similarity_bound "
                f"({self.similarity_bound:g}) say the same thing: give one of them"
            )
        return self


@register("method", "eata")
class Eata(Method):
    """Efficient anti-forgetting test-time adaptation (Niu et al., ICML 2022).

    Scale and shift of the normalization layers minimise the weighted entropy of the samples that
    are reliable, eq. (3), and unlike what was selected before, eq. (5), plus a penalty on leaving
    weights that matter on the source, eqs. (7) to (9). The batch is predicted first and only the
    selected samples are trained on; a batch of which nothing is selected changes no weight. With
    BatchNorm, whose outputs depend on the whole batch, and where a sample has several units (words,
    pixels), one pass over all of it serves both.
    """

    tasks = ("classification", "token-classification", "segmentation", "visual-question-answering")
    Config = EataConfig
    config: EataConfig
    provenance = "group-harness"
    paper = (
        "Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan: Efficient Test-Time Model Adaptation without "
        "Forgetting, ICML 2022"
    )
    equation = (
        "min over normalization scale and shift: mean over i with H(p_i) < E_0 and cos(p_i, m) < "
        "epsilon of exp(E_0 - H(p_i)) H(p_i) + beta sum_j F_j (w_j - w°_j)^2"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        set_statistics(model, self.config.statistics)
        self.batch_coupled = couples_samples(model)
        self.trained = train_only(model, affine_parameters(model))
        self.start = parameters_to_vector(self.trained).detach().clone()
        self.fisher = self._fisher(source)
        self.average: Tensor | None = None
        self.optimizer = torch.optim.SGD(self.trained, lr=self.config.learning_rate, momentum=0.9)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs), data_dependent=True):
            with torch.set_grad_enabled(self.batch_coupled):
                logits = self.model.units(self.model(batch.x), batch.x)
            chosen = self._select(logits.detach(), window)
            window.log(selected=len(chosen) / max(len(logits), 1))
            if not len(chosen):
                continue
            logits = logits[chosen] if self.batch_coupled else self.model(take(batch.x, chosen))
            uncertainty = entropy(logits)
            weight = (self._margin(logits) - uncertainty.detach()).exp()
            loss = (weight * uncertainty).mean() + self.config.fisher_weight * self._drift()
            take_step(self.optimizer, loss)
            window.log(loss=loss.detach())

    def _margin(self, logits: Tensor) -> float:
        return self.config.entropy_share * math.log(logits.shape[1])

    def _epsilon(self, classes: int) -> float:
        given = self.config.max_similarity
        return self.config.similarity_bound / math.sqrt(classes) if given is None else given

    def _select(self, logits: Tensor, window: Window) -> Tensor:
        """Positions of the samples to train on; they enter the moving average m, eq. (4)."""
        probabilities = at_least_float32(logits).softmax(dim=1)
        wanted = entropy(logits) < self._margin(logits)
        if self.average is not None:
            similarity = F.cosine_similarity(probabilities, self.average.unsqueeze(0))
            wanted &= similarity < self._epsilon(logits.shape[1])
        window.declare(sum(wanted.tolist()))
        chosen = wanted.nonzero().squeeze(1)
        if len(chosen):
            mean = probabilities[chosen].mean(dim=0)
            rate = self.config.averaging
            self.average = mean if self.average is None else rate * mean + (1 - rate) * self.average
        return chosen

    def _drift(self) -> Tensor:
        """sum_j F_j (w_j - w°_j)^2, eq. (7)."""
        moved = at_least_float32(parameters_to_vector(self.trained)) - at_least_float32(self.start)
        return (self.fisher * moved.pow(2)).sum()

    def _fisher(self, source: DomainView) -> Tensor:
        """Mean squared gradient of the cross-entropy to own hard labels, eq. (9); (weights,)."""
        self.model.train()  # as the authors' code: what acts in updates acts here
        if self.config.statistics == "running":
            for layer in batch_norms(self.model.module):
                layer.train(False)
        order = torch.randperm(len(source))[: self.config.fisher_samples]
        batches = order.split(self.config.fisher_batch)
        fisher = torch.zeros_like(at_least_float32(self.start))
        for chosen in batches:
            x = take(source.x, chosen)
            logits = at_least_float32(self.model.units(self.model(x), x))
            loss = F.cross_entropy(logits, logits.argmax(dim=1))
            gradients = torch.autograd.grad(loss, self.trained, materialize_grads=True)
            fisher += at_least_float32(parameters_to_vector(gradients)).pow(2) / len(batches)
        return fisher
