"""T3A: class centroids of confident target features take the place of the classifier's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import FoundationModel, Method, MethodConfig, Unsupported, Window, register, tunable
from bench.contracts.data import DomainView, Inputs

from ._losses import at_least_float32, entropy


def most_certain(entropies: Tensor, labels: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` lowest ``entropies`` of each label, in the order of labels.

    Both have shape (n,); equal entropies stay in their order.
    """
    order = entropies.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    sorted_labels = labels[order]
    rank = torch.arange(len(order), device=order.device)
    rank -= torch.searchsorted(sorted_labels, sorted_labels)
    return order[rank < count]


class T3aConfig(MethodConfig):
    """``supports``: M, kept for each class; the paper chooses among 1, 5, 20, 50, 100 and all."""

    supports: int = tunable(20, 1, 100, unit="samples of a class", log=True, le=10_000)


@register("method", "t3a")
class T3a(Method):
    """Test-time classifier adjustment module (Iwasawa & Matsuo, NeurIPS 2021).

    No weight changes. Each class has a set of unit-length supports that begins with its row of
    the classifier; a feature joins the set of the class it is predicted as, and the supports of
    lowest entropy are kept. A sample is predicted by its product with the sets' centroids,
    brought to unit length.
    """

    Config = T3aConfig
    config: T3aConfig
    needs = ("replay_memory",)
    paper = (
        "Iwasawa, Matsuo: Test-Time Classifier Adjustment Module for Model-Agnostic Domain "
        "Generalization, NeurIPS 2021"
    )
    equation = "p(k | f) ∝ exp(f . c_k), c_k = the direction of the sum of class k's unit supports"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        head = model.head
        if not isinstance(head, nn.Linear):
            raise Unsupported(
                f"t3a takes its first supports from a linear head, and that of "
                f"{type(model).__name__} is {type(head).__name__}; use shot or lame"
            )
        self.model = model
        weights = head.weight.detach()
        with torch.no_grad():
            self.entropies = entropy(head(weights))
        self.labels = torch.arange(len(weights), device=weights.device)
        self.supports = F.normalize(weights, dim=1)
        self._centre(len(weights))

    @torch.no_grad()
    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train(False)
        for batch in window.steps(domain.batches(), data_dependent=True):
            logits, features = self.model.with_features(batch.x)
            entropies = torch.cat([self.entropies, entropy(logits)])
            labels = torch.cat([self.labels, logits.argmax(dim=1)])
            supports = torch.cat([self.supports, F.normalize(features, dim=1)])
            kept = most_certain(entropies, labels, self.config.supports)
            self.entropies, self.labels = entropies[kept], labels[kept]
            self.supports = supports[kept]
            self._centre(logits.shape[1])

    def predict(self, x: Inputs) -> Tensor:
        self.model.train(False)
        _, features = self.model.with_features(x)
        return at_least_float32(features) @ self.centroids.t()

    def _centre(self, classes: int) -> None:
        """Directions of the classes, of shape (classes, width)."""
        supports = at_least_float32(self.supports)
        total = supports.new_zeros(classes, supports.shape[1])
        self.centroids = F.normalize(total.index_add_(0, self.labels, supports), dim=1)
