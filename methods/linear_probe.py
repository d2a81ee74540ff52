"""Linear probe: the task head alone is trained on the target's labels."""

from __future__ import annotations

import torch

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.method import tunable
from bench.window import Window


class LinearProbeConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the adaptation split."""

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


@register("method", "linear-probe")
class LinearProbe(Method):
    """Cross-entropy on target labels over the task head; the features stay the source's.

    The cheapest supervised adaptation: no gradient enters the body, which runs in evaluation
    mode (no dropout, frozen statistics), so that the features are those of prediction.
    """

    Config = LinearProbeConfig
    family = "PEFT"
    shifts = ("domain", "class")
    protocols = ("periodic", "online")
    needs = ("target_labels",)
    provenance = "chosen-here"
    paper = (
        "Alain, Bengio: Understanding Intermediate Layers Using Linear Classifier Probes, "
        "ICLR-W 2017"
    )
    equation = "min over the head: CE(target)"

    config: LinearProbeConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        parameters = model.head_parameters()
        model.freeze_except(parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train(False)
        self.model.head.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = self.model.loss(self.model(batch.x), batch.y)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(loss=loss.detach())
