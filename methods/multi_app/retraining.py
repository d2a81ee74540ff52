"""Retraining of proxies for a number of iterations, and what an iteration costs by sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from torch import Tensor

from bench import Batch, DomainView, Unsupported, Window

from ..edgeta.method import EdgeTA
from ..edgeta.retraining import ProxyAlignment, first_batch
from ..feature_alignment import FeatureAlignmentConfig

Profile = tuple[tuple[float, ...], tuple[float, ...]]
"""Seconds of an iteration, and bytes, by sparsity."""


class Retraining(ProxyAlignment):
    """Feature alignment of an application's proxy, by the iteration instead of by the pass.

    ``sparsity`` names the steps: those at one sparsity of one model cost the same; ``of``: the name
    of a model that not all applications have.
    """

    def __init__(self, app: EdgeTA, of: str = "") -> None:
        rate, weight = app.config.learning_rate, app.config.mmd_weight
        settings = FeatureAlignmentConfig(learning_rate=rate, mmd_weight=weight)
        super().__init__(settings, qkv_bias=app.config.qkv_bias)
        self.prepare(app.model, app.source)
        self.kind = f"adapt {of} at {app.sparsity:g}" if of else f"adapt at {app.sparsity:g}"

    def run(self, view: DomainView, window: Window, iterations: int) -> int:
        """At most ``iterations``, fewer if the window or its time slice ends; returns how many."""
        self.model.train()
        source = self.source.infinite()
        made = 0
        for batch in window.steps(islice(view.infinite(), iterations), self.kind):
            task, added = self.step(batch, next(source))
            window.log(task=task, alignment=added)
            made += 1
        self.model.train(False)
        return made

    def step(self, batch: Batch, labelled: Batch) -> tuple[Tensor, Tensor]:
        """One iteration on a batch of the target and one of the source; its two losses."""
        logits, features = self.model.with_features(labelled.x)
        features = self.model.pooled(features, labelled.x)
        added = self.adaptation_loss(features, batch, 0.0)
        task = self.model.loss(logits, labelled.y)
        self.optimizer.zero_grad()
        (task + added).backward()
        self.optimizer.step()
        return task.detach(), added.detach()


def make_proxy(app: EdgeTA, view: DomainView, sparsity: float) -> None:
    """The application's next proxy, from a batch of its samples, as EdgeTA makes it."""
    app.sparsity = sparsity
    app.model, app.slices = app.generate(first_batch(view))


def profiled(
    app: EdgeTA, view: DomainView, window: Window, sparsities: Sequence[float], of: str = ""
) -> Profile:
    """Seconds of the whole device that an iteration takes, and bytes, by sparsity.

    Read off the device's clock: two iterations of a proxy of each sparsity, of which the second
    counts, for the first also makes the optimizer's state. The bytes are those of model,
    knowledge base, index and the proxy with its gradients and AdamW's two moments; activations,
    alike for all, are left out. Work and iterations are charged; what was trained is thrown away.
    ``of``: see `Retraining`. Raises Unsupported if the window closes before.
    """
    seconds, memory = [], []
    kept = app.model, app.slices, app.sparsity
    held = [*app.fm.module.parameters(), *app.kb.module.parameters(), *app.index.parameters()]
    base = sum(p.nbytes for p in held)
    for sparsity in sparsities:
        with window.section("profile"):
            make_proxy(app, view, sparsity)
        retraining = Retraining(app, of)
        made = retraining.run(view, window, 1)
        before = window.spent_s
        made += retraining.run(view, window, 1)
        if made < 2:
            raise Unsupported(
                f"the window of {window.budget_s:.3g} s closes before {len(sparsities)} sparsities "
                "were tried once for their costs; lengthen window_s"
            )
        seconds.append(window.spent_s - before)
        proxy = app.model.module
        trained = sum(p.nbytes for p in proxy.parameters() if p.requires_grad)
        memory.append(float(base + sum(p.nbytes for p in proxy.parameters()) + 3 * trained))
    app.model, app.slices, app.sparsity = kept
    return tuple(seconds), tuple(memory)
