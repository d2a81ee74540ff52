"""Avalanche's plugins where they need a change, and where there is none to change."""

from __future__ import annotations

from . import without_wandb  # noqa: F401

# isort: split

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import qpsolvers
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin, EWCPlugin, GEMPlugin, LwFPlugin, MASPlugin
from avalanche.training.storage_policy import ExperienceBalancedBuffer, ReservoirSamplingBuffer
from avalanche.training.supervised.der import DER, ClassBalancedBufferWithLogits
from avalanche.training.utils import zerolike_params_dict
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from bench.contracts.data import take

from .loop import UnitForward, WindowedLoop
from .memory import Samples, compact, draw, draw_counted, join, portable, seeded

Loss = Callable[[Tensor, Tensor], Tensor]
Turn = Callable[[list[Tensor]], Any]


def flat_gradient(model: torch.nn.Module) -> Tensor:
    """The gradients of all parameters in one vector, 0 where a parameter has none."""
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in model.parameters()
        ]
    )


def equal_shares(total: int, groups: int) -> list[int]:
    """How many of ``total`` samples each group keeps, the first ones one more where it must be."""
    return [total // groups + (place < total % groups) for place in range(groups)]


class DrawnGEM(GEMPlugin):
    """GEM whose memories come from a given generator and whose large products are torch's.

    The memories' gradients are let go after each step. Only the program over as many variables as
    there are earlier domains goes to ``quadprog``, in double precision; the rest is counted.
    With ``total`` the domains share so many samples equally, else each keeps ``patterns``.
    """

    def __init__(
        self,
        patterns: int | None,
        margin: float,
        generator: torch.Generator,
        total: int | None = None,
    ) -> None:
        super().__init__(patterns or 0, margin)
        self.generator, self.total = generator, total
        self.classes: dict[int, list[int]] = {}

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """The gradient of each memory's loss, over its domain's classes where that is asked."""
        if not self.memory_x:
            return
        rows = []
        for t, x in self.memory_x.items():
            strategy.model.train()
            strategy.optimizer.zero_grad()
            y = self.memory_y[t]
            strategy._criterion(strategy.model(x), y, [(self.classes[t], len(y))]).backward()
            rows.append(flat_gradient(strategy.model))
        self.G = torch.stack(rows)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Keep a random sample of the domain, and less of the others where all share a total."""
        dataset, t = strategy.experience.dataset, strategy.clock.train_exp_counter
        chosen = torch.randperm(len(dataset), generator=self.generator)
        present = strategy.model.foundation.rules.present(dataset.y)
        self.classes[t] = sorted(present)
        most = self.patterns_per_experience
        if self.total is not None:
            shares = equal_shares(self.total, t + 1)
            most = shares.pop()
            for earlier, share in enumerate(shares):
                if earlier in self.memory_x:
                    self._keep(earlier, self._samples(earlier), torch.arange(share))
        self._keep(t, dataset, chosen[:most])

    def _keep(self, t: int, samples: Samples, chosen: Tensor) -> None:
        """Remember the ``chosen`` samples alone: they are in random order, so the first are too."""
        memories = (self.memory_x, self.memory_y, self.memory_tid)
        kept = samples.subset(chosen[: len(samples)])
        for memory, part in zip(memories, kept.as_batch(), strict=True):
            if len(kept):
                memory[t] = part
            else:
                memory.pop(t, None)

    def _samples(self, t: int) -> Samples:
        return Samples(self.memory_x[t], self.memory_y[t])

    def remembered(self) -> dict[str, Any]:
        """The memories as tensors, for a method's state."""
        inputs = {t: dict(x) if isinstance(x, dict) else x for t, x in self.memory_x.items()}
        return {"x": inputs, "y": dict(self.memory_y), "classes": dict(self.classes)}

    def put_back(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `remembered` gave."""
        self.memory_x = {t: portable(x) for t, x in kept["x"].items()}
        self.memory_y = dict(kept["y"])
        self.memory_tid = {t: torch.zeros_like(y) for t, y in kept["y"].items()}
        self.classes = dict(kept["classes"])

    def after_backward(self, strategy: Any, **settings: Any) -> None:
        super().after_backward(strategy, **settings)
        self.G = torch.empty(0)

    def solve_quadprog(self, g: Tensor) -> Tensor:
        """The projection of ``g``, eq. (11): g + G^T v with v from the dual program."""
        earlier = len(self.G)
        products = torch.zeros(earlier, earlier + 1, dtype=torch.float64, device=g.device)
        for rows, part in zip(self.G.split(2**18, dim=1), g.split(2**18), strict=True):
            wide = rows.double()  # in parts: all of G twice as wide would be the step's peak
            products += wide @ torch.cat([wide, part.double().unsqueeze(0)]).t()
        gram, along = products[:, :-1].cpu().numpy(), products[:, -1].cpu().numpy()
        v = qpsolvers.solve_qp(
            P=0.5 * (gram + gram.T) + 1e-3 * np.eye(earlier),  # the authors' ridge
            q=along,
            G=-np.eye(earlier),
            h=np.full(earlier, -self.memory_strength),
            solver="quadprog",
        )
        return g + torch.from_numpy(v).to(g) @ self.G


class DrawnAGEM(AGEMPlugin):
    """A-GEM whose reference batch is drawn from the union of copied memories, as in the paper.

    Avalanche's takes ``sample_size // domains`` of each domain, so none when there are more
    domains than samples, and keeps a whole domain alive to remember a part of it.
    With ``total`` the domains share so many samples equally, else each keeps ``patterns``.
    """

    def __init__(
        self,
        patterns: int | None,
        sample_size: int,
        generator: torch.Generator,
        total: int | None = None,
    ) -> None:
        super().__init__(patterns or 0, sample_size)
        self.generator, self.total = generator, total
        self.classes: list[list[int]] = []

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """The gradient of the reference batch, each sample's loss as `DrawnGEM`'s."""
        if not any(map(len, self.buffers)):
            return
        strategy.model.train()
        strategy.optimizer.zero_grad()
        batch, counts = self.sample_from_memory()
        rows = [(c, n) for c, n in zip(self.classes, counts, strict=True) if n]
        strategy._criterion(strategy.model(batch.x), batch.y, rows).backward()
        self.reference_gradients = flat_gradient(strategy.model)
        strategy.optimizer.zero_grad()

    def sample_from_memory(self) -> tuple[Samples, list[int]]:
        """The reference batch, and how many of its samples are of each domain."""
        return draw_counted(self.buffers, self.sample_size, self.generator)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Keep a random sample of the domain, and less of the others where all share a total."""
        dataset = strategy.experience.dataset
        chosen = torch.randperm(len(dataset), generator=self.generator)
        self.classes.append(sorted(strategy.model.foundation.rules.present(dataset.y)))
        most = self.patterns_per_experience
        if self.total is not None:
            shares = equal_shares(self.total, len(self.buffers) + 1)
            most = shares.pop()
            for place, (kept, share) in enumerate(zip(self.buffers, shares, strict=True)):
                self.buffers[place] = kept.subset(torch.arange(min(share, len(kept))))
        self.buffers.append(dataset.subset(chosen[:most]))

    def after_backward(self, strategy: Any, **settings: Any) -> None:
        if self.reference_gradients.numel():
            super().after_backward(strategy, **settings)
        self.reference_gradients = torch.empty(0)


class FrozenLwF(LwFPlugin):
    """LwF over units, whose teacher is in evaluation mode: Avalanche's keeps its dropout on."""

    def before_backward(self, strategy: Any, **_: Any) -> None:
        units = strategy.model.foundation.units(strategy.mb_output, strategy.mb_x)
        strategy.loss += self.lwf(strategy.mb_x, units, strategy.model)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        self.lwf.expcount += 1
        self.lwf.prev_model = None
        teacher = UnitForward(copy.deepcopy(strategy.model.foundation))
        self.lwf.prev_model = teacher.eval().requires_grad_(False)
        present = strategy.model.foundation.rules.present(strategy.experience.dataset.y)
        self.lwf.prev_classes_by_task[0] |= present


def mean_over_batches(
    model: torch.nn.Module, optimizer: Any, data: Samples, batch_size: int, loss: Loss, turn: Turn
) -> dict[str, Any]:
    """Mean over batches of what ``turn`` makes of the gradients of ``loss(outputs, labels)``.

    In evaluation mode and float32, as Avalanche's ``ParamData`` by parameter. All parameters go
    through one operator each time: Avalanche's loops would be hundreds of tiny ones.
    """
    means = zerolike_params_dict(model)
    loader = DataLoader(data, batch_size=batch_size, collate_fn=data.collate_fn)
    model.eval()
    for x, y, _ in loader:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        met = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
        sums = [means[name].data for name, _ in met]
        torch._foreach_add_(sums, turn([gradient for _, gradient in met]), alpha=1 / len(loader))
    model.train()
    return means


@torch.no_grad()
def pull_back(
    model: torch.nn.Module, anchor: dict[str, Any], importance: dict[str, Any], strength: float
) -> None:
    """Add the gradient of strength sum_i Omega_i (w_i - w*_i)^2 to that of the loss."""
    met = [(n, p, p.grad) for n, p in model.named_parameters() if p.grad is not None]
    away = torch._foreach_sub([p for _, p, _ in met], [anchor[name].data for name, *_ in met])
    torch._foreach_mul_(away, [importance[name].data for name, *_ in met])
    torch._foreach_add_([gradient for *_, gradient in met], away, alpha=2 * strength)


class BatchedEWC(EWCPlugin):
    """EWC whose importances and penalty take few operators; what it keeps is Avalanche's."""

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Nothing: the penalty enters as its gradient."""

    def after_backward(self, strategy: Any, **_: Any) -> None:
        for t, anchor in self.saved_params.items():
            pull_back(strategy.model, anchor, self.importances[t], self.ewc_lambda)

    def compute_importances(
        self, model: Any, loss: Any, optimizer: Any, data: Any, _: Any, batch: int, **more: Any
    ) -> Any:
        """Of the loss over all classes seen so far, whatever the training's covers, as in FACIL."""
        return mean_over_batches(
            model, optimizer, data, batch, loss.of_seen, lambda g: torch._foreach_mul(g, g)
        )


class BatchedMAS(MASPlugin):
    """MAS whose importances and penalty take few operators; what it keeps is Avalanche's.

    Avalanche's leaves dropout on and moves BatchNorm's statistics while it estimates, and raises
    ValueError on a batch whose loss is exactly 0. Without ``alpha`` importances add up.
    """

    def __init__(self, penalty: float, alpha: float | None) -> None:
        super().__init__(penalty, 0.0 if alpha is None else alpha)  # 0: the new ones alone
        self.adds_up = alpha is None

    def after_training_exp(self, strategy: Any, **settings: Any) -> None:
        earlier = {n: kept.data for n, kept in (self.importance or {}).items()}
        super().after_training_exp(strategy, **settings)
        if self.adds_up and earlier:
            for name, kept in self.importance.items():
                kept.data = kept.data + earlier[name]

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Nothing: the penalty enters as its gradient."""

    def after_backward(self, strategy: Any, **_: Any) -> None:
        pull_back(strategy.model, self.params, self.importance, self._lambda)

    def _get_importance(self, strategy: Any) -> dict[str, Any]:
        return mean_over_batches(
            UnitForward(strategy.model.foundation),
            strategy.optimizer,
            strategy.experience.dataset,
            strategy.train_mb_size,
            lambda units, _: units.pow(2).sum(dim=1).mean(),
            torch._foreach_abs,
        )


class Reservoirs(SupervisedPlugin):
    """Avalanche's buffer balanced over experiences, filled by reservoir sampling with copies."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.policy = ExperienceBalancedBuffer(size)
        self.generator = generator
        self.groups: list[Samples] = []

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        with seeded(self.generator):
            self.policy.post_adapt(strategy, strategy.experience)
        self.groups = compact(self.policy)


class Archive(SupervisedPlugin):
    """A copy of every domain."""

    def __init__(self) -> None:
        super().__init__()
        self.domains: list[Samples] = []

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        data = strategy.experience.dataset
        self.domains.append(data.subset(torch.arange(len(data))))


class LogitReservoirs(ClassBalancedBufferWithLogits):
    """DER's buffer, whose logits are computed in whole batches and whose samples are copies.

    Samples that are of no one class, as texts and images with a label for each unit, are kept in
    one reservoir, as all are in the paper.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size)
        self.generator = generator
        self.groups: list[Samples] = []

    @torch.no_grad()
    def update(self, strategy: Any, **_: Any) -> None:
        data = strategy.experience.dataset
        strategy.model.eval()
        order = torch.arange(len(data)).split(strategy.train_mb_size)
        logits = torch.cat([strategy.model(data.take(chosen).x) for chosen in order])
        strategy.model.train()
        labels = data.y.tolist() if data.y.ndim == 1 else [0] * len(data)
        self.seen_classes.update(labels)
        lengths = self.get_group_lengths(len(self.seen_classes))
        sizes = dict(zip(sorted(self.seen_classes), lengths, strict=True))
        with seeded(self.generator):
            for label in sorted(set(labels)):
                of_class = torch.tensor([i for i, y in enumerate(labels) if y == label])
                buffer = self.buffer_groups.setdefault(label, ReservoirSamplingBuffer(sizes[label]))
                found = data.take(of_class)
                buffer.update_from_dataset(Samples(found.x, found.y, logits[of_class]))
        for label, buffer in self.buffer_groups.items():
            buffer.resize(strategy, sizes[label])
        self.groups = compact(self)


class ReplayedDER(WindowedLoop, DER):
    """Avalanche's DER++, its buffer in whole tensors, used from its first sample on.

    Avalanche's ignores a buffer that is smaller than a memory batch, and knows one class a sample:
    here losses are the task's, and logits are compared over units. Without ``joint`` the domain's
    batch and the memory's go through the network one after the other, as in the authors' code.
    """

    mbatch: Any
    loss: Any

    def __init__(
        self, *, mem_size: int, generator: torch.Generator, joint: bool, **more: Any
    ) -> None:
        super().__init__(mem_size=mem_size, **more)
        self.joint = joint
        self.storage_policy = LogitReservoirs(mem_size, generator)
        self.generator = generator
        self.remembered: Samples | None = None

    def _before_training_exp(self, **settings: Any) -> None:
        groups = self.storage_policy.groups
        self.batch_size_mem = min(self.train_mb_size, sum(map(len, groups)))
        self.replay_loader = groups or None  # what Avalanche asks is only whether there is one
        super(DER, self)._before_training_exp(**settings)

    def _before_forward(self, **settings: Any) -> None:
        super(DER, self)._before_forward(**settings)
        if self.replay_loader is None:
            return
        old = draw(self.replay_loader, self.batch_size_mem, self.generator)
        self.mbatch = [join([a, b]) for a, b in zip(old.as_batch(), self.mbatch, strict=True)]
        self.remembered = old

    def training_epoch(self, **settings: Any) -> None:
        super(DER, self).training_epoch(**settings)  # with `criterion` as the loss

    def criterion(self) -> Tensor:
        """The task's loss; with a memory the last term of DER++'s, the others being added here."""
        old = self.remembered
        if old is None:
            loss: Tensor = super().criterion()
            return loss
        outputs, n = self.mb_output, len(old)
        units = self.model.foundation.units
        self.loss += self._criterion(outputs[n:], self.mb_y[n:])
        self.loss += self.alpha * mse_loss(units(outputs[:n], old.x), units(old.logits, old.x))
        last: Tensor = self.beta * self._criterion(outputs[:n], self.mb_y[:n])
        return last

    def forward(self) -> Tensor:
        if self.replay_loader is None or self.joint:
            return super().forward()
        places = torch.arange(len(self.mb_y)).split(
            [self.batch_size_mem, len(self.mb_y) - self.batch_size_mem]
        )
        old, new = (portable(take(self.mb_x, chosen)) for chosen in places)
        later = self.model(new)  # the domain's first: it is the memory that moves averages last
        return torch.cat([self.model(old), later])

    def _after_training_exp(self, **settings: Any) -> None:
        self.remembered = None
        super()._after_training_exp(**settings)
