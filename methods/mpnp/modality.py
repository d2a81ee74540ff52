"""What methods that connect a modality at run time share: its stages, training and prediction."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bench import (
    DomainView,
    FoundationModel,
    Method,
    MethodConfig,
    Unsupported,
    Window,
    take,
    tunable,
)
from bench.contracts.data import Inputs
from bench.contracts.method import only_shapes
from bench.contracts.modal import ModalModel, require_modality

from .._losses import take_step
from .._optimizers import planned_steps


class ModalityConfig(MethodConfig):
    """Settings that all methods of this kind have.

    ``online``: at the first target domain the second modality takes the place of the first
    (``switch``) or comes beside it (``add``); ``learning_rate``: of AdamW, which falls linearly to
    0 within a domain, published for models of a billion parameters; ``epochs``: over a domain;
    ``offline_epochs``: over the source, to connect the first modality.
    """

    online: Literal["switch", "add"] = "switch"
    learning_rate: float = tunable(2e-5, 1e-6, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(8, 1, 20, log=True, unit="passes", ge=1, le=100)
    offline_epochs: int = Field(8, ge=0, le=100)


class ModalityMethod(Method):
    """Connects the first modality before deployment and the second one when a domain needs it.

    Subclasses say what connects a modality, and how it answers then. The encoders are frozen, and
    so is the decoder unless a subclass trains it.

    ``links``: what connects, a module; ``active``: the modalities that answers come from.
    """

    Config = ModalityConfig
    config: ModalityConfig
    family = "PEFT"
    protocols = ("periodic",)
    needs = ("target_labels",)
    conformance_on: ClassVar[dict[str, Any]] = {
        "stream": {
            "name": "modality-switch", "size": 16, "source_samples": 400, "samples": [400, 420],
        },
        "model": {
            "name": "digits-modal-lm", "width": 32, "depth": 3, "encoder_width": 16,
            "encoder_depth": 2, "tokens": 2, "heads": 2,
        },
    }  # fmt: skip
    conformance_config: ClassVar[dict[str, Any]] = {"epochs": 2, "offline_epochs": 1}

    model: ModalModel  # type: ignore[assignment]

    @abstractmethod
    def connect(self, sample: Inputs) -> nn.Module:
        """What connects both modalities, untrained; ``sample``: one of the source."""

    @abstractmethod
    def outputs(self, x: Inputs) -> Tensor:
        """Logits (n, classes) from the active modalities."""

    def trained(self, new: str) -> list[dict[str, Any]]:
        """Groups of parameters that are trained when ``new`` is connected: by default its link."""
        return [{"params": list(self.links.get_submodule(new).parameters())}]

    def trained_offline(self) -> list[dict[str, Any]]:
        """The same for the first modality, before deployment."""
        return self.trained(self.model.modalities[0])

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        if not isinstance(model, ModalModel):
            raise Unsupported(
                f"{self.registered_name} connects modalities, and {type(model).__name__} has none; "
                "take a model of several modalities, as its page says"
            )
        self.model = model
        sample = take(source.x, torch.arange(1))
        self.links = self.connect(sample).to(next(model.module.parameters()))
        self.active = [model.modalities[0]]
        groups = self.trained_offline()
        self._freeze(groups)
        epochs = 1 if only_shapes() else self.config.offline_epochs
        optimizer, schedule = self._optimizer(groups, epochs * source.batches_per_pass)
        for _ in range(epochs):
            for batch in source.batches():
                self._step(batch, optimizer, schedule)
        self._freeze([])

    def adapt(self, domain: DomainView, window: Window) -> None:
        first, second = self.model.modalities
        self.active = [second] if self.config.online == "switch" else [first, second]
        sample = take(domain.x, torch.arange(1))
        for name in self.active:
            require_modality(name, sample)
        groups = self.trained(second)
        self._freeze(groups)
        steps = planned_steps(domain, self.config.epochs)
        optimizer, schedule = self._optimizer(groups, steps)
        for batch in window.steps(domain.batches(self.config.epochs)):
            window.log(loss=self._step(batch, optimizer, schedule))
        self._freeze([])

    def predict(self, x: Inputs) -> Tensor:
        self.model.train(False)
        return self.outputs(x)

    def details(self) -> dict[str, Any]:
        """The active modalities, and how many parameters connect the second one."""
        groups = self.trained(self.model.modalities[1])
        count = sum(p.numel() for group in groups for p in group["params"])
        return {"modality": {"active": self.active, "trained_parameters": count}}

    def _step(self, batch: Any, optimizer: Any, schedule: LambdaLR) -> Tensor:
        loss = self.model.rules.loss(self.outputs(batch.x), batch.y)
        take_step(optimizer, loss)
        schedule.step()
        return loss.detach()

    def _optimizer(self, groups: list[dict[str, Any]], steps: int) -> tuple[Any, LambdaLR]:
        made = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        return made, LambdaLR(made, lambda step: max(1 - step / max(steps, 1), 0.0))

    def _freeze(self, groups: list[dict[str, Any]]) -> None:
        """Let gradients flow to the parameters of these groups alone; others keep none."""
        known = {id(p) for group in groups for p in group["params"]}
        for p in (*self.model.module.parameters(), *self.links.parameters()):
            p.requires_grad_(id(p) in known)
            if id(p) not in known:
                p.grad = None
        self.model.train(False)
