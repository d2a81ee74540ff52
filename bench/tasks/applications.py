"""Several applications that share a device: samples, labels and models of each.

Inputs of several applications say in ``app`` whose each sample is. Where the applications have
tasks of their own (task ``several-tasks``), inputs also hold the inputs of each, filled up with
zeros where a sample is another's: those of application 1 are called ``1.input_ids`` and so on, or
``1`` where they are one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.data import (
    Inputs,
    LazyInputs,
    Placed,
    SampleType,
    batch_length,
    join_labels,
    placed,
    take,
)
from bench.contracts.model import Block, FoundationModel
from bench.contracts.stream import ApplicationFacts
from bench.contracts.task import Task, make_task
from bench.errors import BenchError, Unsupported

APP, UNITS = "app", "unit_mask"
"""The input that says whose a sample is, and the one that says which of its units count."""
IGNORED = -100
"""The class of a unit that does not count."""
NEVER = -1e4
"""The logit of a class, or of a unit, that an application does not have."""
MOST = 8
"""At most so many applications have tasks of their own."""


def owners(x: Inputs) -> Tensor:
    """The application of each sample, int64 of shape (n,): the inputs' ``app``, else 0."""
    owner: Tensor | None = None
    if isinstance(x, LazyInputs):
        owner = x.column(APP)
    elif isinstance(x, dict):
        owner = x.get(APP)
    if owner is not None:
        return owner
    return torch.zeros(batch_length(x), dtype=torch.int64)


def by_owner(owner: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each application that has samples, rising, and the positions of its samples."""
    for app in owner.unique().tolist():
        yield app, (owner == app).nonzero().squeeze(1)


def routed(x: Inputs, applications: int, outputs_of: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Outputs of n samples in their order; ``outputs_of`` gives those of an application's samples
    at some positions. BenchError for a sample of an application that there is not.
    """
    owner = owners(x)
    require_known(owner, applications)
    rows, outputs = [], []
    for app, chosen in by_owner(owner):
        rows.append(chosen)
        outputs.append(outputs_of(app, chosen))
    return torch.cat(outputs)[torch.cat(rows).argsort()]


def require_known(owner: Tensor, applications: int) -> None:
    """BenchError unless every sample is of one of so many applications."""
    if len(owner) and not 0 <= int(owner.min()) <= int(owner.max()) < applications:
        raise BenchError(
            f"inputs of applications {owner.unique().tolist()}, and the source has those from 0 to "
            f"{applications - 1}; give the source a sample of each"
        )


# --- what is an application's own ---------------------------------------------------------------


def named(x: Inputs, app: int) -> dict[str, Any]:
    """An application's inputs, or the types of its samples, under their names in joined ones."""
    if not isinstance(x, dict):
        return {str(app): x}
    return {f"{app}.{name}" if name else str(app): part for name, part in x.items()}


def own_inputs(x: Inputs, app: int) -> Inputs:
    """Of joined inputs those that an application has, as its model takes them; of all samples."""
    if isinstance(x, Placed):
        return placed(own_inputs(x.inputs, app), x.device)
    if isinstance(x, LazyInputs):
        return _Own(x, app)
    return _own(x, app)


def _own(x: dict[str, Any], app: int) -> Any:
    """As `own_inputs`, of tensors or of the types of samples."""
    if str(app) in x:
        return x[str(app)]
    start = f"{app}."
    found = {name.removeprefix(start): part for name, part in x.items() if name.startswith(start)}
    if not found:
        raise BenchError(
            f"inputs of application {app} are missing: there are {', '.join(x)}; take a stream of "
            "the task several-tasks"
        )
    return found


class _Own(LazyInputs):
    """What an application has of lazy inputs."""

    def __init__(self, joined: LazyInputs, app: int) -> None:
        super().__init__(torch.arange(len(joined)))
        self._joined, self._app = joined, app

    def read(self, positions: Tensor) -> Inputs:
        return _own(self._joined[positions], self._app)

    def names(self, positions: Tensor) -> list[str]:
        every = self._joined.sample_names()
        return [every[i] for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        found = _own(self._joined.sample_types, self._app)
        return found if isinstance(found, dict) else {"": found}

    def settings(self) -> Any:
        return [self._app, self._joined.settings()]


class ApplicationForm:
    """How samples of one application stand in joined labels (n, 1 + units) and outputs (n, units,
    classes), and what is its own in them.

    ``units``: most decisions in one of its samples; ``rules``: its task. BenchError for a task
    whose labels are no class of each unit.
    """

    def __init__(self, app: int, facts: ApplicationFacts) -> None:
        self.app, self.facts, self.rules = app, facts, _rules(app, facts)
        self.units = facts.input_shape[0] if self.rules.dense else 1

    def labels(self, y: Tensor) -> Tensor:
        """The task's own labels of samples that are all this application's, from joined ones."""
        if self.rules.dense:
            return y[:, 1 : 1 + self.units]
        return self.rules.packed(y[:, 1], self.facts.classes)

    def unit_classes(self, y: Tensor) -> Tensor:
        """The class of each unit, int64 (n, units), from the task's own labels; of several answers
        that are right in part the best one.
        """
        return y if self.rules.dense else self.rules.unit_labels(y, None).unsqueeze(1)

    def unit_mask(self, x: Inputs) -> Tensor:
        """Which units of its samples count, bool (n, units); ``x``: its own inputs."""
        n = batch_length(x)
        if not self.rules.dense:
            return torch.ones(n, 1, dtype=torch.bool)
        mask: Tensor = self.rules.places(torch.empty(n, self.units, 0), x)
        return mask

    def own_outputs(self, outputs: Tensor) -> Tensor:
        """The task's own outputs of samples that are all this application's, from joined ones."""
        own = outputs[:, : self.units, : self.facts.classes]
        return own if self.rules.dense else own.squeeze(1)

    def joined_outputs(self, outputs: Tensor, units: int, classes: int) -> Tensor:
        """The task's own outputs, filled up to so many units and classes with `NEVER`."""
        own = outputs if self.rules.dense else outputs.unsqueeze(1)
        missing = (0, classes - own.shape[2], 0, units - own.shape[1])
        return nn.functional.pad(own, missing, value=NEVER)


def _rules(app: int, facts: ApplicationFacts) -> Task:
    # Named, as what a label looks like is no fact that a task declares.
    known = ("classification", "token-classification", "visual-question-answering")
    if facts.task not in known:
        raise BenchError(
            f"application {app} is {facts.task}, and several applications on one device are of "
            f"{', '.join(known)}: give it other data"
        )
    return make_task(facts.task)


class ApplicationModels(FoundationModel):
    """The foundation model of each application as one: a sample is seen by its own alone.

    A model is given its own samples and of them its own inputs, as if it were alone. Surgery is
    done on the models one by one: together they declare no blocks.

    Attributes
    ----------
    models : of the applications, in their order
    forms : of their samples in joined labels and outputs
    """

    task = "several-tasks"

    def __init__(
        self, models: Sequence[FoundationModel], applications: Sequence[ApplicationFacts]
    ) -> None:
        super().__init__(nn.ModuleList(model.module for model in models))
        self.models = list(models)
        self.forms = [ApplicationForm(app, facts) for app, facts in enumerate(applications)]
        self._units = max(form.units for form in self.forms)
        self._classes = max(form.facts.classes for form in self.forms)

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> FoundationModel:
        name = getattr(cls, "registered_name", cls.__name__)
        raise BenchError(
            f"{name}: is built for a stream that says what its applications are, and not for "
            f"samples of shape {tuple(input_shape)}: take a stream of the task several-tasks"
        )

    def blocks(self) -> list[Block]:
        return []

    def of(self, models: Sequence[FoundationModel]) -> ApplicationModels:
        """The same applications, with other models."""
        return ApplicationModels(models, [form.facts for form in self.forms])

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, units, classes): most units and most classes of an application, and `NEVER`
        where a sample's own application has fewer.
        """

        def outputs_of(app: int, chosen: Tensor) -> Tensor:
            own = self.models[app](take(own_inputs(x, app), chosen))
            return self.forms[app].joined_outputs(own, self._units, self._classes)

        return routed(x, len(self.models), outputs_of)

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean over the applications of the loss that each one's own model has."""
        losses = []
        for app, chosen in by_owner(y[:, 0]):
            form, own = self.forms[app], self.models[app]
            given, labels = form.own_outputs(outputs[chosen]), form.labels(y[chosen])
            losses.append(own.loss(given, labels, label_smoothing))
        return torch.stack(losses).mean()

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        """Mean over the applications of the loss that each one's own model has."""
        losses = []
        for app, chosen in by_owner(owners(x)):
            form, own = self.forms[app], take(own_inputs(x, app), chosen)
            given, wanted = (form.own_outputs(each[chosen]) for each in (outputs, teacher))
            losses.append(self.models[app].distillation_loss(given, wanted, own))
        return torch.stack(losses).mean()

    def augment(self, x: Inputs) -> Inputs:
        """Each sample as its own model augments it."""
        made = dict(x)
        for app, chosen in by_owner(owners(x)):
            own = self.models[app].augment(take(own_inputs(x, app), chosen))
            for name, part in named(own, app).items():
                made[name] = made[name].index_copy(0, chosen, part)
        return made

    def with_features(self, x: Inputs) -> tuple[Tensor, Tensor]:
        raise Unsupported(
            f"{type(self).__name__}: the applications' models have features of their own, which "
            "cannot be compared; take a method that treats each application by itself"
        )

    @property
    def head(self) -> nn.Module:
        """The heads of all models."""
        return nn.ModuleList(model.head for model in self.models)

    @property
    def least_batch(self) -> int:
        return max(model.least_batch for model in self.models)

    def train(self, mode: bool = True) -> None:
        for model in self.models:
            model.train(mode)


def joined_labels(parts: Sequence[tuple[ApplicationForm, Tensor]]) -> Tensor:
    """Labels of samples, application by application, int64 of shape (n, 1 + units): the
    application, then the class of each unit, `IGNORED` where there is none.

    ``parts``: how an application's samples stand there, and the task's own labels of them.
    """
    units = max(form.units for form, _ in parts)
    made = []
    for form, y in parts:
        classes = form.unit_classes(y)
        filled = nn.functional.pad(classes, (0, units - classes.shape[1]), value=IGNORED)
        made.append(torch.cat([torch.full((len(y), 1), form.app), filled], dim=1))
    return join_labels(made)
