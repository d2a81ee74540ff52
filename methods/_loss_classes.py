"""Which classes the cross-entropy of a labelled method covers, where new ones come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from bench import DomainView, FoundationModel
from bench.contracts.data import uncounted

LossClasses = Literal["all", "seen", "task"]
"""Over which outputs the softmax of the cross-entropy goes.

``all``: every output of the head, those of classes that have not come yet among them; ``seen``: the
classes that the labels named so far, the source's included; ``task``: those that the labels of the
current domain name. Where every domain has every class the three are the same numbers.
"""

Rows = Sequence[tuple[Collection[int], int]]
"""Of each domain that the samples of a batch are of, in their order: its classes, and how many."""


class ClassLoss:
    """The task's loss over the classes that ``over`` names, known from labels that arrived alone.

    Where it leaves a class out, the logits of that class have no part in the loss and get no
    gradient; of detection, whose classes are decided one by one, its targets are left out alike.
    Of generation it always covers all: its classes are the words of a vocabulary, which belong to
    no domain.

    ``seen``: the classes that labels named so far; ``current``: those of the current domain.
    """

    def __init__(self, model: FoundationModel, over: LossClasses) -> None:
        self.model = model
        self.over: LossClasses = "all" if model.rules.causal else over
        self.seen: set[int] = set()
        self.current: set[int] = set()

    def arrive(self, domain: DomainView) -> None:
        """The labels of a domain are there; LabelsHidden if they are needed and are not."""
        if self.over != "all":
            self.current = self.model.rules.present(domain.y)
            self.seen = self.seen | self.current

    def __call__(self, outputs: Tensor, y: Tensor, rows: Rows | None = None) -> Tensor:
        """A scalar; ``rows``: whose the samples are, if they are not the current domain's."""
        if self.over == "task":
            return self._loss(outputs, y, rows or [(self.current, len(y))])
        return self.of_seen(outputs, y)

    def of_seen(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss over all classes seen so far (``all``: over all there are), a scalar."""
        rows = [] if self.over == "all" else [(self.seen, len(y))]
        return self._loss(outputs, y, rows)

    def _loss(self, outputs: Tensor, y: Tensor, rows: Rows) -> Tensor:
        rules = self.model.rules
        axis = rules.class_axis % outputs.ndim
        count = outputs.shape[axis] - rules.further_outputs
        if all(len(classes) == count for classes, _ in rows):
            return self.model.loss(outputs, y)
        with uncounted():  # made of a list of numbers, as labels are fetched
            out = torch.zeros(len(rows), outputs.shape[axis], dtype=torch.bool)
            for place, (classes, _) in enumerate(rows):
                out[place, :count] = True
                out[place, list(classes)] = False
            if len(rows) > 1:
                out = out.repeat_interleave(torch.tensor([n for _, n in rows]), dim=0)
            shape = [1] * outputs.ndim
            shape[0], shape[axis] = out.shape
            out = out.view(shape).to(outputs.device)
        lowest = torch.finfo(outputs.dtype).min / 2  # not -inf, which resizing makes no number
        return self.model.loss(outputs.masked_fill(out, lowest), y)
