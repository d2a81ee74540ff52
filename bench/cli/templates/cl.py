"""my-idea: supervised fine-tuning that is pulled back towards the source weights."""

from __future__ import annotations

import torch

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, tunable


class MyIdeaConfig(MethodConfig):
    """Settings of the pull.

    ``learning_rate``: of SGD; ``pull``: alpha, the strength of the penalty; ``epochs``: passes
    over the adaptation split.
    """

    # Every setting is typed, bounded and explained above. `tunable` is what 'bench tune' searches:
    # default, low, high; ge and le bound what is accepted at all. Others: pydantic.Field(ge=, le=).
    learning_rate: float = tunable(1e-2, 1e-4, 1e-1, log=True, ge=1e-8, le=1.0)
    pull: float = tunable(0.1, 1e-3, 1.0, log=True, ge=0, le=100.0)
    epochs: int = tunable(3, 1, 15, log=True, unit="passes", le=100)


@register("method", "my-idea")
class MyIdea(Method):
    """Cross-entropy plus the squared distance from the source weights (L2-SP)."""

    # Literals, which 'bench list' reads without importing this file.
    Config = MyIdeaConfig
    family = "CL"
    tasks = ("classification",)
    shifts = ("domain", "class")  # what may change along the stream
    protocols = ("periodic", "online")  # online: adapt gets one batch, again and again
    needs = ("target_labels",)  # also "source_data" if kept on the device, "replay_memory"
    provenance = "chosen-here"
    paper = (
        "Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional "
        "Networks, ICML 2018"
    )
    equation = "min over all weights: CE(target) + alpha / 2 |w - w_source|^2"

    config: MyIdeaConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        """Offline and free. `source` has labels and is closed afterwards (see `needs`)."""
        # All that the object holds counts as the device's memory (see `Method.stored`), and is
        # saved and restored (see `Method.state`): keep tensors, modules, optimizers, plain values.
        self.model = model
        self.weights = list(model.module.parameters())
        self.source_weights = [p.detach().clone() for p in self.weights]
        self.optimizer = torch.optim.SGD(self.weights, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        """On the device. Each step is charged, and the loop ends when the window closes."""
        # Compute and change weights in window.steps(...) or 'with window.section("name")' alone.
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = self.model.loss(self.model(batch.x), batch.y)
            for now, start in zip(self.weights, self.source_weights, strict=True):
                loss = loss + self.config.pull / 2 * (now - start).pow(2).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            window.log(loss=loss.detach())  # a curve under 'bench run --tensorboard'

    # predict(x) is the model's output unless you override it; it must change nothing.
