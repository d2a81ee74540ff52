"""CoTTA: a weight-averaged teacher, augmentation-averaged pseudo-labels, stochastic restoration."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench import DomainView, FoundationModel, MethodConfig, Window, register, tunable
from bench.contracts.data import Inputs, on_device

from ._batchnorm import Statistics, set_statistics
from ._losses import at_least_float32, take_step, train_only
from ._teacher import TeacherMethod, move_average


class CottaConfig(MethodConfig):
    """Settings of CoTTA; defaults are the paper's for CIFAR-10-C.

    ``learning_rate``: of Adam; ``epochs``: passes over the adaptation split, one in the paper;
    ``teacher_momentum``: alpha of eq. (2), slow for streams of a few hundred batches;
    ``augmentations``: N of eq. (3); ``view_strength``: share of the authors' full augmentations;
    ``confidence_threshold``: p_th of eq. (4), the mean confidence of the source model on a batch
    below which views are averaged. A model trained with label smoothing s on C classes is
    confident to about 1 - s + s/C where it is right (0.91 for 0.1 and 10), below the default:
    views are then averaged on every batch. ``restore_probability``: p of eq. (7), of a weight at
    each step; ``horizontal_flip``: flip half of the views, as the authors do; off because it
    changes what a digit or a letter means; ``trained``: the parameters called weight or bias, which
    are trained and restored in the authors' code, or ``all``, with class tokens and position
    embeddings; ``averaged``: over views, ``probabilities`` as in eq. (3) or ``logits`` as in the
    authors' code; ``prediction``: of the ``teacher``, as in the paper's algorithm, or the mean of
    its logits over ``views`` where the threshold asks for them, as in the authors' code, which
    makes a prediction N times as dear and was lower on ``domain-shift`` (57.2 instead of 60.2 with
    16 views and teacher momentum 0.99); ``statistics``: ``batch``, the authors', lets BatchNorm
    layers of all three models normalize each batch by itself, in predictions too; ``running``:
    teacher and source model use running averages. ``epochs`` is not searched: with its views one
    pass is as much work as 15 passes of others.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = Field(1, ge=1, le=100)
    teacher_momentum: float = tunable(0.999, 0.9, 0.999, ge=0, le=1.0)
    augmentations: int = Field(32, ge=1, le=256)
    view_strength: float = tunable(1.0, 0.1, 1.0, ge=0)
    confidence_threshold: float = tunable(0.92, 0.1, 1.0, ge=0)
    restore_probability: float = Field(0.01, ge=0, le=1.0)
    horizontal_flip: bool = False
    trained: Literal["weights-and-biases", "all"] = "weights-and-biases"
    averaged: Literal["probabilities", "logits"] = "probabilities"
    prediction: Literal["teacher", "views"] = "teacher"
    statistics: Statistics = "batch"


@register("method", "cotta")
class Cotta(TeacherMethod):
    """Continual test-time adaptation (Wang et al., CVPR 2022), on images and texts.

    The student learns the teacher's soft labels, eq. (5); the teacher follows it, eq. (2), and
    predicts. Each step sets a random few of the student's weights back to the source model's, eqs.
    (7) and (8). Where the threshold asks for no views, none are computed: steps with and without
    them are charged as two kinds, and the question itself as a third. Three models lie in memory:
    student, teacher and source. Views of texts, ours, hide tokens, and where labels belong to
    places views of images move nothing.
    """

    Config = CottaConfig
    config: CottaConfig
    tasks = ("classification", "token-classification", "segmentation")
    provenance = "group-harness"
    paper = "Wang, Fink, Van Gool, Dai: Continual Test-Time Domain Adaptation, CVPR 2022"
    equation = (
        "min over all weights: -mean_i sum_c t_ic log p_ic; t = teacher's mean over views; "
        "teacher = a teacher + (1-a) student; weights back to the source with probability p"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        set_statistics(model, self.config.statistics)  # the other two models are copies
        super().prepare(model, source)
        self.teacher.train(False)
        self.anchor = self.teacher.clone()
        every = self.config.trained == "all"
        self.trained = [
            name
            for name, _ in model.module.named_parameters()
            if every or name.rpartition(".")[2] in ("weight", "bias")
        ]
        parameters = train_only(model, [model.module.get_parameter(n) for n in self.trained])
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in domain.batches(self.config.epochs):
            with window.step(batch, kind="confidence") as fits:
                doubtful = fits and self._doubtful(batch.x)
            kind = "adapt on views" if doubtful else "adapt"
            with window.step(batch, kind=kind) as fits:
                if fits:
                    window.log(loss=self._learn(batch.x, doubtful))
            if window.closed:
                return

    def _learn(self, x: Inputs, doubtful: bool) -> Tensor:
        """One update of student and teacher; the loss."""
        labels = self._pseudo_labels(x, doubtful)
        loss = F.cross_entropy(self._units(self.model, x, x), labels)
        take_step(self.optimizer, loss)
        self._update_teacher()
        self._restore()
        return loss.detach()

    @torch.no_grad()
    def _doubtful(self, x: Inputs) -> bool:
        """Whether the source model's mean confidence is below the threshold, eq. (4)."""
        confidence = self._units(self.anchor, x, x).softmax(dim=1).amax(dim=1).mean()
        return bool(confidence < self.config.confidence_threshold)

    @torch.no_grad()
    def _pseudo_labels(self, x: Inputs, doubtful: bool) -> Tensor:
        """Probabilities of the teacher, (units, classes): over views, eq. (3), or of ``x``."""
        if not doubtful:
            return self._units(self.teacher, x, x).softmax(dim=1)
        of_logits = self.config.averaged == "logits"
        total: Tensor | float = 0.0
        for _ in range(self.config.augmentations):
            logits = self._units(self.teacher, self.views(x, self.generator), x)
            total = total + (logits if of_logits else logits.softmax(dim=1))
        mean = total / self.config.augmentations
        assert isinstance(mean, Tensor)
        return mean.softmax(dim=1) if of_logits else mean

    def predict(self, x: Inputs) -> Tensor:
        """The teacher's outputs, or their mean over views."""
        if self.config.prediction == "teacher" or not self._doubtful(x):
            return super().predict(x)
        drawn = torch.Generator()  # predicting moves no state
        drawn.set_state(self.generator.get_state())
        views = (self.views(x, drawn) for _ in range(self.config.augmentations))
        return sum(map(super().predict, views), torch.zeros(())) / self.config.augmentations

    def _units(self, model: FoundationModel, view: Inputs, x: Inputs) -> Tensor:
        """Logits (units, classes) of a view of ``x``, of the units that ``x`` has."""
        return at_least_float32(self.model.units(model(view), x))

    @torch.no_grad()
    def _update_teacher(self) -> None:
        teacher, student = self.teacher.module, self.model.module
        rate = 1 - self.config.teacher_momentum
        move_average(list(teacher.parameters()), list(student.parameters()), rate)
        for kept, new in zip(teacher.buffers(), student.buffers(), strict=True):
            kept.copy_(new)  # running statistics are averages already

    @torch.no_grad()
    def _restore(self) -> None:
        for name in self.trained:
            weight = self.model.module.get_parameter(name)
            source = self.anchor.module.get_parameter(name)
            back = on_device(torch.rand(weight.shape, generator=self.generator), weight.device)
            weight.copy_(torch.where(back < self.config.restore_probability, source, weight))
