"""RoTTA: a category-balanced memory, a slow teacher, robust batch normalization."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bench import DomainView, FoundationModel, MethodConfig, Window, register, tunable
from bench.contracts.data import Inputs

from ._losses import affine_parameters, at_least_float32, entropy, take_step, train_only
from ._teacher import TeacherMethod, move_average


class RobustBatchNorm(_BatchNorm):
    """BatchNorm that normalizes by its running statistics, in training mode too.

    In training each batch first moves them by ``momentum`` towards its own mean and (biased)
    variance, and gradients flow through that share. Takes over the layer's parameters and buffers.
    """

    def __init__(self, layer: _BatchNorm, momentum: float) -> None:
        super().__init__(layer.num_features, eps=layer.eps, momentum=momentum, affine=False)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var

    def forward(self, x: Tensor) -> Tensor:
        """Normalized ``x`` of shape (n, features, ...)."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        if self.training:
            batch_variance, batch_mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
            assert self.momentum is not None
            mean = torch.lerp(mean, batch_mean, self.momentum)
            variance = torch.lerp(variance, batch_variance, self.momentum)
            self.running_mean.copy_(mean.detach())  # type: ignore[union-attr]
            self.running_var.copy_(variance.detach())  # type: ignore[union-attr]
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.weight is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * scale.view(shape) + shift.view(shape)


def make_robust(module: nn.Module, momentum: float) -> None:
    """Put a `RobustBatchNorm` in the place of every BatchNorm that keeps running statistics."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and child.running_mean is not None:
            setattr(module, name, RobustBatchNorm(child, momentum))
        else:
            make_robust(child, momentum)


class RottaConfig(MethodConfig):
    """Settings of RoTTA; defaults are the paper's.

    ``learning_rate``: of Adam; ``epochs``: passes over the adaptation split, one in the paper;
    ``capacity``: N, samples in memory; ``update_every``: samples that arrive between two updates;
    ``teacher_rate``: nu, share of the way from teacher to student at each update;
    ``statistics_rate``: alpha of robust batch normalization; ``age_weight``, ``doubt_weight``:
    lambda_t and lambda_u; ``view_strength``: share of the authors' full augmentations of the
    student's inputs; ``horizontal_flip``: flip half of the student's views, as the authors do;
    off because it changes what a digit or a letter means.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    capacity: int = Field(64, ge=1, le=4096)
    update_every: int = Field(64, ge=1, le=4096)
    teacher_rate: float = tunable(0.001, 0.001, 0.1, log=True, ge=0, le=1.0)
    statistics_rate: float = Field(0.05, ge=0, le=1.0)
    age_weight: float = Field(1.0, ge=0, le=100.0)
    doubt_weight: float = Field(1.0, ge=0, le=100.0)
    view_strength: float = tunable(1.0, 0.1, 1.0, ge=0)
    horizontal_flip: bool = False


def _samples(x: Inputs) -> list[Any]:
    """The samples of a batch: tensors, or dicts of them."""
    if isinstance(x, dict):
        return [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]
    return list(x)


def _copy(sample: Any) -> Any:
    """A sample of its own: a slice would keep its whole domain in memory."""
    if isinstance(sample, dict):
        return {name: part.clone() for name, part in sample.items()}
    return sample.clone()


def _batch(samples: Sequence[Any]) -> Inputs:
    """A batch of samples, as the model takes it."""
    if isinstance(samples[0], dict):
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return torch.stack(list(samples))


@register("method", "rotta")
class Rotta(TeacherMethod):
    """Robust test-time adaptation (Yuan et al., CVPR 2023), on images and texts.

    The teacher labels each sample that arrives; a memory keeps about as many of each class and
    drops the oldest and most doubtful. Every 64 samples the student, on a strong view of the
    memory, learns the teacher's output on the samples as they are (the authors' weak view),
    recent ones weighing more, and the teacher follows. The teacher predicts. BatchNorm becomes
    robust batch normalization; of other models the normalization layers' scale and shift are
    trained all the same.
    """

    Config = RottaConfig
    config: RottaConfig
    needs = ("replay_memory",)
    paper = "Yuan, Xie, Li: Robust Test-Time Adaptation in Dynamic Scenarios, CVPR 2023"
    equation = (
        "min over normalization scale and shift: mean over the memory of E(a_i) CE(t_i, p_i), "
        "E(a) = exp(-a/N) / (1 + exp(-a/N)); teacher = (1-nu) teacher + nu student"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        make_robust(model.module, self.config.statistics_rate)
        super().prepare(model, source)
        self.trained = train_only(model, affine_parameters(model))
        self.followers = self.teacher.normalization_parameters()
        self.memory: list[dict[str, Any]] = []
        self.arrived = 0
        self.optimizer = torch.optim.Adam(self.trained, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches(self.config.epochs), data_dependent=True):
            self.teacher.train(False)
            with torch.no_grad():
                logits = self.teacher(batch.x)
                labels, doubts = logits.argmax(dim=1).tolist(), entropy(logits).tolist()
            for sample, label, doubt in zip(_samples(batch.x), labels, doubts, strict=True):
                self._remember(sample, label, doubt / math.log(logits.shape[1]), logits.shape[1])
                self.arrived += 1
                if self.arrived % self.config.update_every == 0:
                    window.log(loss=self._update())

    def _remember(self, sample: Any, label: int, doubt: float, classes: int) -> None:
        """Take a sample in if there is room for its class or a worse sample to drop."""
        new = {"x": sample, "label": label, "doubt": doubt, "age": 0}
        held = Counter(kept["label"] for kept in self.memory)
        room = len(self.memory) < self.config.capacity
        if held[label] >= self.config.capacity / classes:
            room, rivals = False, {label}
        else:
            largest = max(held.values(), default=0)
            rivals = {c for c, n in held.items() if n == largest}
        if not room:
            among = [i for i, kept in enumerate(self.memory) if kept["label"] in rivals]
            worst = max(among, key=lambda i: self._badness(self.memory[i]))
            room = self._badness(self.memory[worst]) > self._badness(new)
            if room:
                del self.memory[worst]
        if room:
            new["x"] = _copy(sample)
            self.memory.append(new)
        for kept in self.memory:
            kept["age"] += 1

    def _badness(self, kept: dict[str, Any]) -> float:
        """lambda_t / (1 + exp(-age / N)) + lambda_u entropy / ln(classes)."""
        timeliness = 1 / (1 + math.exp(-kept["age"] / self.config.capacity))
        return self.config.age_weight * timeliness + self.config.doubt_weight * kept["doubt"]

    def _update(self) -> Tensor:
        """One step on the memory; the loss."""
        x = _batch([kept["x"] for kept in self.memory])
        for layer in self.teacher.module.modules():
            if isinstance(layer, RobustBatchNorm):
                layer.train()  # its statistics follow the memory; dropout stays off
        with torch.no_grad():
            labels = at_least_float32(self.teacher(x)).softmax(dim=1)
        self.model.train()
        logits = at_least_float32(self.model(self.views(x, self.generator)))
        told = [kept["age"] for kept in self.memory]
        ages = torch.tensor(told, dtype=logits.dtype, device=logits.device)
        weights = torch.sigmoid(-ages / self.config.capacity)
        loss = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
        take_step(self.optimizer, loss)
        move_average(self.followers, self.trained, self.config.teacher_rate)
        self.teacher.train(False)
        return loss.detach()
