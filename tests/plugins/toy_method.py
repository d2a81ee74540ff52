"""A method in one file: it reverses the model's decisions in the first domains."""

from __future__ import annotations

import torch

from bench import Method, MethodConfig, register
from bench.contracts.method import tunable


class FlipConfig(MethodConfig):
    """In how many domains it reverses them."""

    domains: int = tunable(1, 0, 5)


@register("method", "toy-flip")
class Flip(Method):
    """Negates the head's weights in one step on the first batch of a domain."""

    Config = FlipConfig
    family = "reference"
    paper = "none"
    equation = "W <- -W"

    def prepare(self, model, source):
        super().prepare(model, source)
        self.left = self.config.domains

    def adapt(self, domain, window):
        if not self.left:
            return
        self.left -= 1
        first = next(domain.batches())
        for batch in window.steps([first]):
            with torch.no_grad():
                self.model(batch.x)
                for parameter in self.model.head_parameters():
                    parameter.neg_()
