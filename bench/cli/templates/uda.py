"""my-idea: information maximisation on the normalization layers' scale and shift."""

from __future__ import annotations

import torch

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, tunable
from bench.methods._losses import entropy


class MyIdeaConfig(MethodConfig):
    """``learning_rate``: of SGD; ``epochs``: passes over the adaptation split."""

    # Every setting is typed, bounded and explained above. `tunable` is what 'bench tune' searches:
    # default, low, high; ge and le bound what is accepted at all. Others: pydantic.Field(ge=, le=).
    learning_rate: float = tunable(1e-2, 1e-4, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, log=True, unit="passes", le=100)


@register("method", "my-idea")
class MyIdea(Method):
    """Each prediction should be certain, and all of them together diverse."""

    # Literals, which 'bench list' reads without importing this file.
    Config = MyIdeaConfig
    family = "UDA"
    tasks = ("classification",)
    shifts = ("domain",)  # "class" too, if new classes may come along the stream
    protocols = ("periodic", "online")  # online: adapt gets one batch, again and again
    needs = ()  # "source_data" if kept on the device, "target_labels", "replay_memory"
    provenance = "chosen-here"
    paper = "none: a template; the loss is SHOT's (ICML 2020), the parameters are Tent's"
    equation = "min over normalization scale and shift: mean_i H(p_i) - H(mean_i p_i)"

    config: MyIdeaConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        """Offline and free. `source` has labels and is closed afterwards (see `needs`)."""
        # All that the object holds counts as the device's memory (see `Method.stored`), and is
        # saved and restored (see `Method.state`): keep tensors, modules, optimizers, plain values.
        self.model = model
        parameters = model.normalization_parameters()
        model.freeze_except(parameters)
        self.optimizer = torch.optim.SGD(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        """On the device. Each step is charged, and the loop ends when the window closes."""
        # Compute and change weights in window.steps(...) or 'with window.section("name")' alone.
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            logits = self.model(batch.x)  # batch.y is hidden; `needs` decides
            mean = logits.softmax(dim=1).mean(dim=0, keepdim=True)
            loss = entropy(logits).mean() - entropy(mean.log()).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            window.log(loss=loss.detach())  # a curve under 'bench run --tensorboard'

    # predict(x) is the model's output unless you override it; it must change nothing.
