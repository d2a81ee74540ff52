"""Linear probe: the task head alone is trained on the target's labels."""

from __future__ import annotations

from torch import nn

from bench import FoundationModel, register
from bench.models.surgery.linear import own_head

from ._supervised import SupervisedMethod


@register("method", "linear-probe")
class LinearProbe(SupervisedMethod):
    """Cross-entropy on target labels over the task head; the features stay the source's.

    The cheapest supervised adaptation: no gradient enters the body, which runs in evaluation
    mode (no dropout, frozen statistics), so that the features are those of prediction.
    """

    paper = (
        "Alain, Bengio: Understanding Intermediate Layers Using Linear Classifier Probes, "
        "ICLR-W 2017"
    )
    equation = "min over the head: CE(target)"

    def trained(self, model: FoundationModel) -> list[nn.Parameter]:
        return own_head(model, "linear-probe")

    def set_mode(self) -> None:
        self.model.train(False)
        self.model.head.train()
