"""BitFit: supervised fine-tuning of the biases and the task head."""

from __future__ import annotations

import torch

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.errors import Unsupported
from bench.method import tunable
from bench.window import Window


class BiasOnlyConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the adaptation split."""

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


@register("method", "bias-only")
class BiasOnly(Method):
    """BitFit (Ben Zaken et al., ACL 2022): all bias terms and the task head, on target labels.

    Biases are the parameters whose name ends in ``bias``, those of normalisation layers
    included, as in the paper: about a thousandth of a transformer's weights.
    """

    Config = BiasOnlyConfig
    family = "PEFT"
    shifts = ("domain", "class")
    protocols = ("periodic", "online")
    needs = ("target_labels",)
    provenance = "chosen-here"
    paper = "Ben Zaken, Ravfogel, Goldberg: BitFit, ACL 2022"
    equation = "min over biases and head: CE(target)"

    config: BiasOnlyConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        head = model.head_parameters()
        known = {id(p) for p in head}
        biases = [
            p
            for name, p in model.module.named_parameters()
            if name.endswith("bias") and id(p) not in known
        ]
        if not biases:
            raise Unsupported(
                f"bias-only: {type(model).__name__} has no parameter named '...bias' outside its "
                "head; use linear-probe"
            )
        parameters = biases + head
        model.freeze_except(parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = self.model.loss(self.model(batch.x), batch.y)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(loss=loss.detach())
