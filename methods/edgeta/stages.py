"""The trainings of EdgeTA's three offline stages: LoRA, knowledge base, importances and index.

Each trains a model in place and returns its curves; `offline` puts them together and caches them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench import DomainView, FoundationModel
from bench.io.progress import advance
from bench.models.surgery.distillation import distil, rate
from bench.models.surgery.gates import recorded, set_sparsity
from bench.models.surgery.lora import insert_lora

from .._losses import take_step, train_only
from .config import ProxyConfig
from .index import NeuronIndex

VALIDATED = 4
"""Sparsities at which a checkpoint is validated, evenly from the least to the largest."""
POINTS = 100
"""At most so many points has a curve of losses."""

Curves = dict[str, list[tuple[int, float]]]
"""Points (step, value) of losses and metrics, by name."""


class Checkpoints:
    """Validates a training from time to time, and keeps the weights that were best.

    ``validate``: the scores of what is trained, by name; ``weights``: what to keep. Validation
    draws nothing, so that it changes no training. ``curves``: losses and scores so far.
    """

    def __init__(
        self,
        steps: int,
        count: int,
        validate: Callable[[], dict[str, float]],
        weights: Callable[[], Any],
        higher_is_better: bool = True,
    ) -> None:
        self.steps = steps
        self.every, self.told = max(steps // count, 1), max(steps // POINTS, 1)
        self.validate, self.weights = validate, weights
        self.sign = 1 if higher_is_better else -1
        self.curves: Curves = {"loss": []}
        self.best: tuple[float, Any, dict[str, float]] | None = None

    def after(self, step: int, loss: Tensor) -> None:
        """To be called after each step, counted from 1, with its loss."""
        if step % self.told == 0 or step == self.steps:
            self.curves["loss"].append((step, float(loss.detach())))
        if step % self.every == 0 or step == self.steps:
            scores = self.validate()
            for name, score in scores.items():
                self.curves.setdefault(name, []).append((step, score))
            mean = self.sign * sum(scores.values()) / len(scores)
            if self.best is None or mean > self.best[0]:
                self.best = (mean, copy.deepcopy(self.weights()), scores)


@torch.no_grad()
def metric_on(model: FoundationModel, data: DomainView) -> float:
    """The task's metric of a model, in evaluation mode during this, on all samples of ``data``."""
    training = model.module.training
    model.train(False)
    score = model.rules.score()
    for batch in data.batches(shuffle=False):
        score.update(model(batch.x), batch.y)
    model.train(training)
    where = "the source samples that EdgeTA holds out"
    return model.rules.metric.checked(score.compute(), where)


def _checkpoints(
    config: ProxyConfig, steps: int, model: FoundationModel, validation: DomainView
) -> Checkpoints:
    metric = model.rules.metric
    return Checkpoints(
        steps,
        config.checkpoints,
        lambda: {metric.name: metric_on(model, validation)},
        model.module.state_dict,
        metric.higher_is_better,
    )


def _keep_best(config: ProxyConfig, model: FoundationModel, seen: Checkpoints) -> Curves:
    if config.selection == "best" and seen.best is not None:
        model.module.load_state_dict(seen.best[1])
    return seen.curves


def adapt_lora(
    config: ProxyConfig, fm: FoundationModel, train: DomainView, validation: DomainView
) -> Curves:
    """Train low-rank adapters on q, k and v and the head on the source; they stay inserted."""
    steps = config.lora_steps
    adapters = insert_lora(fm, config.lora_rank, config.lora_rank)
    parameters = train_only(fm, adapters + fm.head_parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.lora_learning_rate)
    linear = config.lora_schedule == "linear"
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate(step, steps) if linear and step < steps else 1.0
    )
    seen = _checkpoints(config, steps, fm, validation)
    fm.train()
    for step, batch in zip(range(steps), train.infinite(), strict=False):
        loss = fm.loss(fm(fm.augment(batch.x)), batch.y)
        take_step(optimizer, loss)
        schedule.step()
        seen.after(step + 1, loss)
        advance(step + 1, steps)
    optimizer.zero_grad()
    fm.train(False)
    return _keep_best(config, fm, seen)


def train_kb(
    config: ProxyConfig,
    kb: FoundationModel,
    teacher: FoundationModel,
    train: DomainView,
    validation: DomainView,
) -> Curves:
    """Distil the cut knowledge base from the adapted model."""
    c = config
    seen = _checkpoints(c, c.kb_steps, kb, validation)
    distil(
        kb, teacher, train, c.kb_steps, c.kb_learning_rate, c.kb_weight_decay, c.distillation,
        seen.after,
    )  # fmt: skip
    return _keep_best(c, kb, seen)


def train_index(
    config: ProxyConfig,
    kb: FoundationModel,
    index: NeuronIndex,
    fm: dict[str, Tensor],
    train: DomainView,
    validation: DomainView,
) -> tuple[dict[float, float], Curves]:
    """Train knowledge base, importances and index together; returns metrics by sparsity, curves.

    L = task(kb at a random sparsity) + w_idx sum |I F - K|^2 + w_l1 sum |g|_1, the model's weights
    ``fm`` frozen. The checkpoint of the best mean metric over the validated sparsities stays.
    """
    kb.module.requires_grad_(True)
    of_kb = {"params": list(kb.module.parameters()), "lr": config.index_kb_learning_rate}
    of_index = {"params": list(index.parameters()), "lr": config.index_learning_rate}
    decay = {"weight_decay": config.index_weight_decay}
    optimizer = torch.optim.AdamW([of_kb, of_index | decay])
    steps = config.index_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    accuracy: dict[float, float] = {}

    def validate() -> dict[str, float]:
        accuracy.clear()
        accuracy.update(validated(config, kb, validation))
        kb.train()
        name = kb.rules.metric.name
        return {f"{name} at sparsity {level:g}": score for level, score in accuracy.items()}

    seen = Checkpoints(
        steps,
        config.checkpoints,
        validate,
        lambda: (kb.module.state_dict(), index.state_dict(), dict(accuracy)),
        kb.rules.metric.higher_is_better,
    )
    misfits: list[tuple[int, float]] = []
    kb.train()
    sparsities = _sparsities(config)
    for step, batch in zip(range(steps), train.infinite(), strict=False):
        set_sparsity(kb, next(sparsities))
        with recorded(kb) as gates:
            outputs = kb(kb.augment(batch.x))
        size = gates_l1(gates, len(batch), config.gate_l1_of)
        misfit = index.loss(dict(kb.module.named_parameters()), fm)
        loss = kb.loss(outputs, batch.y) + config.index_weight * misfit + config.gate_l1 * size
        take_step(optimizer, loss)
        schedule.step()
        advance(step + 1, steps)
        seen.after(step + 1, loss)
        if seen.curves["loss"][-1:] and seen.curves["loss"][-1][0] == step + 1:
            misfits.append((step + 1, float(misfit.detach())))
    optimizer.zero_grad()
    assert seen.best is not None
    kb_weights, index_weights, kept = seen.best[1]
    kb.module.load_state_dict(kb_weights)
    index.load_state_dict(index_weights)
    kb.train(False)
    set_sparsity(kb, 0.0)
    index.refit({name: p.detach() for name, p in kb.module.named_parameters()}, fm)
    return kept, {**seen.curves, "index loss": misfits}


def gates_l1(gates: dict[str, Tensor], samples: int, of: str) -> Tensor:
    """L1 norm of the importances of a batch: of its ``sample`` on average, or of the ``batch``."""
    total = torch.stack([g.abs().sum() for g in gates.values()]).sum()
    return total / samples if of == "sample" else total


def _sparsities(config: ProxyConfig) -> Iterator[float]:
    low, high = config.min_sparsity, config.max_sparsity

    def drawn() -> float:
        return low + (high - low) * float(torch.rand(()))

    while True:
        if config.sampling == "sandwich":  # Yu and Huang, ICCV 2019
            yield from (low, drawn(), drawn(), high)
        else:
            yield drawn()


def validated(
    config: ProxyConfig, kb: FoundationModel, validation: DomainView
) -> dict[float, float]:
    """Metric of the masked knowledge base, left in evaluation mode, at evenly spaced sparsities."""
    low, high = config.min_sparsity, config.max_sparsity
    found = {}
    kb.train(False)
    for i in range(VALIDATED):
        sparsity = round(low + (high - low) * i / (VALIDATED - 1), 6)
        set_sparsity(kb, sparsity)
        found[sparsity] = metric_on(kb, validation)
    return found
