"""Training the parts of offloading methods before deployment, on the source, kept in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import DomainView, FoundationModel
from bench.contracts.data import take
from bench.contracts.method import only_shapes
from bench.contracts.model import source_digest, weights_digest
from bench.io.digest import digest
from bench.io.progress import advance
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.registry.component_code import code_digest

from .._optimizers import make_optimizer

BATCH = 64
MOMENTUM, DECAY = 0.9, 5e-4
"""AgileNN's, of SGD; the decay is decoupled from the gradient (SGDW)."""
WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""

Modules = Mapping[str, nn.Module]


def made_offline(
    name: str,
    modules: Modules,
    train: Callable[[], dict[str, Any]],
    model: FoundationModel,
    source: DomainView,
    settings: Mapping[str, Any],
    code: Path,
) -> dict[str, Any]:
    """Train ``modules`` by ``train``, or read their weights from the cache; the facts that it told.

    Torch's generators and the order of ``source`` are afterwards as before; what is drawn is drawn
    from the ``draw`` of ``source``. ``code``: the file that trains; it and what it imports are part
    of what the weights are known by. Where only shapes count nothing is trained.
    """
    if only_shapes():
        return {}

    def make() -> Weights:
        with source.preserve_rng():
            torch.manual_seed(source.draw)
            facts = train()
        return {"facts": facts, **{name: part.state_dict() for name, part in modules.items()}}

    made_from = [weights_digest(model.module), source_digest(source), dict(settings)]
    key = digest([name, *made_from, code_digest(code)])
    kept = cached(cache_folder() / "offloading" / f"{name}-{key[:20]}.pt", make)
    for part_name, part in modules.items():
        part.load_state_dict(kept[part_name])
    facts: dict[str, Any] = kept["facts"]
    return facts


class Source:
    """The labelled source in batches of 64, moved as in source training, in float32."""

    def __init__(self, model: FoundationModel, source: DomainView) -> None:
        self._model, self._source = model, source
        self.steps_per_epoch = math.ceil(len(source) / BATCH)

    def epochs(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of so many passes, each in a new random order."""
        for _ in range(number):
            for chosen in torch.randperm(len(self._source)).split(BATCH):
                x = take(self._source.x, chosen)
                yield self._model.augment(x).float(), self._source.labels_at(chosen)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one pass, as the samples are."""
        for chosen in torch.arange(len(self._source)).split(BATCH):
            yield take(self._source.x, chosen).float(), self._source.labels_at(chosen)


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[Tensor, Tensor], Tensor],
    source: Source,
    config: Any,
    epochs: int,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> float:
    """Minimise ``loss(x, y)`` over the parameters; its mean over the last pass.

    By the ``optimizer`` and to ``learning_rate`` of a `RecipeConfig`, the peak of one cycle;
    ``rates``: of parameters that have others.
    """
    chosen, rates = list(parameters), rates or {}
    sgd = config.optimizer == "sgd"
    groups = [{"params": [p], "lr": rates.get(p, config.learning_rate)} for p in chosen]
    optimizer = make_optimizer(config.optimizer, groups, config.learning_rate, momentum=MOMENTUM)
    steps = epochs * source.steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps + 1, pct_start=WARMUP,
        cycle_momentum=False,
    )  # fmt: skip
    last: list[float] = []
    for step, (x, y) in enumerate(source.epochs(epochs)):
        value = loss(x, y)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(chosen, 1.0)
        if sgd:
            with torch.no_grad():
                for parameter, rate in zip(chosen, schedule.get_last_lr(), strict=True):
                    parameter.mul_(1 - rate * DECAY)
        optimizer.step()
        schedule.step()
        last = [*last[-source.steps_per_epoch + 1 :], float(value.detach())]
        advance(step + 1, steps)
    optimizer.zero_grad()
    return sum(last) / max(len(last), 1)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], source: Source) -> float:
    """Share of the source's samples that ``predict`` gets right."""
    right = total = 0
    for x, y in source.in_order():
        right += int((predict(x).argmax(dim=1) == y).sum())
        total += len(y)
    return right / max(total, 1)
