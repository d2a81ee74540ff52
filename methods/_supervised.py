"""The training loop of the supervised methods that do nothing against forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, take, tunable
from bench.contracts.data import Inputs
from bench.contracts.state import capture

from ._loss_classes import ClassLoss, LossClasses
from ._losses import take_step, train_only
from ._optimizers import OptimizerName, OptimizerState, make_optimizer
from ._shared import Shared
from ._training_count import TrainingCount

if TYPE_CHECKING:
    from bench.costs.tracker import DeviceCosts
    from bench.records.record import Amount


class SupervisedConfig(MethodConfig):
    """Settings of every method that trains plainly on labels.

    ``learning_rate``: constant; ``optimizer``: ``sgd`` is without momentum; ``epochs``: passes
    over the adaptation split; ``loss_classes``: what the cross-entropy covers, ``all`` outputs of
    the head, as in mammoth's fine-tuning, the classes ``seen`` so far, or those of the current
    ``task``, its domain (online: of the batch), as FACIL's; of generation always all.
    ``optimizer_state``: ``new``, each domain begins with an optimizer of its own, as in both, or
    ``kept``, its moments go on from domain to domain.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 15, log=True, unit="passes", ge=1, le=100)
    loss_classes: LossClasses = "all"
    optimizer: OptimizerName = "adamw"
    optimizer_state: OptimizerState = "new"


class SupervisedMethod(Method):
    """Cross-entropy on the target's labels over the weights that `trained` names."""

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering", "generation",
    )  # fmt: skip
    family = "PEFT"
    shifts = ("domain", "class")
    needs = ("target_labels",)
    Config = SupervisedConfig
    config: SupervisedConfig

    def trained(self, model: FoundationModel) -> list[nn.Parameter]:
        """The parameters to train; by default all."""
        return list(model.module.parameters())

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.begin(source)
        self.train_only(self.trained(model))

    def begin(self, source: DomainView) -> None:
        """Note the source's classes, the first that have been seen."""
        self.seen: list[int] = []
        self.domain = ""
        self.count: Shared[TrainingCount] | None = None
        if self.model.task == "generation":
            first = take(source.x, torch.arange(1))
            self.count = Shared(TrainingCount.of(self.model, first))
        self._arrived(source)

    def _arrived(self, domain: DomainView) -> ClassLoss:
        """The loss on a domain whose labels have come."""
        loss = ClassLoss(self.model, self.config.loss_classes)
        loss.seen = set(self.seen)
        loss.arrive(domain)
        self.seen = sorted(loss.seen)
        return loss

    def train_only(self, parameters: list[nn.Parameter]) -> None:
        """Freeze the model but for these, and give them a new optimizer."""
        chosen, c = train_only(self.model, parameters), self.config
        self.optimizer = make_optimizer(c.optimizer, chosen, c.learning_rate, momentum=0.0)

    def set_mode(self) -> None:
        """Put the model into the mode in which it is trained."""
        self.model.train()

    def outputs(self, x: Inputs) -> Tensor:
        """What is trained on: the model's outputs."""
        return self.model(x)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.set_mode()
        if self.config.optimizer_state == "new" and domain.name != self.domain:  # online: batches
            self.optimizer.state.clear()
        self.domain = domain.name
        criterion = self._arrived(domain)
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = criterion(self.outputs(batch.x), batch.y)
            take_step(self.optimizer, loss)
            if self.count is not None:
                self.count.thing.step(self.model, self.optimizer, batch.x)
            window.log(loss=loss.detach())

    def state(self) -> dict[str, Any]:
        """All but the count of what was computed, which nothing that is predicted depends on."""
        return capture({name: value for name, value in vars(self).items() if name != "count"})

    def further_costs(self, device: DeviceCosts) -> Mapping[str, Amount]:
        """``training_count``: operations as GreenTrainer's paper counts them, for texts."""
        return {} if self.count is None else {"training_count": self.count.thing.amount()}
