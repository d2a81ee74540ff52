"""Several tasks at once: metric and loss against plain computations, and who sees which sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts.data import LazyInputs, Placed, subset, take
from bench.contracts.model import FoundationModel
from bench.contracts.stream import ApplicationFacts
from bench.contracts.task import make_task
from bench.errors import BenchError, Unsupported
from bench.tasks.applications import (
    NEVER,
    ApplicationForm,
    ApplicationModels,
    joined_labels,
    own_inputs,
    owners,
)

FACTS = (
    ApplicationFacts("classification", (2,), 3),
    ApplicationFacts("token-classification", (4,), 2),
    ApplicationFacts("visual-question-answering", (2,), 5),
)
FORMS = [ApplicationForm(app, facts) for app, facts in enumerate(FACTS)]
APP = torch.tensor([2, 0, 1, 1, 0, 2])


class Linear(FoundationModel):
    """Logits of a linear layer over all that it is given; remembers what that was."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.seen: list[Any] = []

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> Linear:
        return cls(nn.ModuleDict({"head": nn.Linear(input_shape[0], classes)}))

    def blocks(self) -> list[Any]:
        return []

    def __call__(self, x: Any) -> Tensor:
        self.seen.append(x)
        return self.module["head"](x["image"] if isinstance(x, dict) else x)


class Words(Linear):
    """One number of a token, to logits."""

    task = "token-classification"

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> Words:
        return cls(nn.ModuleDict({"head": nn.Linear(1, classes)}))

    def __call__(self, x: Any) -> Tensor:
        self.seen.append(x)
        return self.module["head"](x["input_ids"].unsqueeze(2).float())


class Questions(Linear):
    """Answers."""

    task = "visual-question-answering"


@pytest.fixture
def models() -> list[Linear]:
    torch.manual_seed(0)
    kinds = (Linear, Words, Questions)
    return [k.build(None, f.input_shape, f.classes) for k, f in zip(kinds, FACTS, strict=True)]


def joined() -> dict[str, Tensor]:
    """Inputs of six samples, whose other applications' parts are zero."""
    draw = torch.Generator().manual_seed(0)
    one, words = torch.tensor([1, 0, 0, 0]), torch.tensor([[0, 1, 1, 0], [0, 1, 1, 1]])
    x = {
        "app": APP,
        "unit_mask": torch.stack([one, one, *words, one, one]),
        "0": torch.rand(6, 2, generator=draw),
        "1.input_ids": torch.randint(1, 9, (6, 4), generator=draw),
        "1.unit_mask": words.repeat_interleave(3, dim=0),
        "2.image": torch.rand(6, 2, generator=draw),
    }  # fmt: skip
    for name, part in x.items():
        if name[0].isdigit():
            part[int(name[0]) != APP] = 0
    return x


def labels() -> Tensor:
    """Of `joined`, by hand."""
    none = -100
    return torch.tensor([
        [2, 4, none, none, none],
        [0, 1, none, none, none],
        [1, none, 0, 1, none],
        [1, none, 1, 1, 0],
        [0, 2, none, none, none],
        [2, 0, none, none, none],
    ])  # fmt: skip


# --- the metric ---------------------------------------------------------------------------------


def test_the_metric_is_the_mean_over_applications_of_the_accuracy_of_their_units() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs, y = torch.randn(6, 4, 5, generator=draw), labels()
    outputs[1, 0, 1] = outputs[3, 1, 1] = outputs[3, 2, 1] = 9.0  # some right ones
    chosen = outputs.argmax(dim=2)
    of_app = []
    for app in range(3):
        met = [
            int(chosen[i, unit] == y[i, 1 + unit])
            for i in range(6)
            for unit in range(4)
            if y[i, 0] == app and y[i, 1 + unit] != -100
        ]
        of_app.append(sum(met) / len(met))
    score = make_task("several-tasks").score()
    score.update(outputs[:2], y[:2])
    score.update(outputs[2:], y[2:])
    assert score.compute() == pytest.approx(sum(of_app) / 3)
    found = score.further()
    assert [found[f"application-{app}"] for app in range(3)] == pytest.approx(of_app)
    # The commonest classes: one of two images, three of five words, one of two answers.
    assert found["commonest-class"] == pytest.approx((1 / 2 + 3 / 5 + 1 / 2) / 3)


def test_an_application_that_a_split_does_not_have_does_not_count() -> None:
    outputs = F.one_hot(torch.tensor([[0, 1]]), 2).float()
    score = make_task("several-tasks").score()
    score.update(outputs, torch.tensor([[3, 0, 0]]))
    assert score.compute() == 0.5
    assert score.further() == {"application-3": 0.5, "commonest-class": 1.0}


def test_what_is_wrong_with_labels_and_outputs_is_said() -> None:
    task = make_task("several-tasks")
    task.require_labels(labels(), 6, 5, "here")
    for wrong, said in (
        (labels().float(), "torch.float32"),
        (labels()[:, 0], "not (6, *)"),
        (torch.cat([APP.unsqueeze(1) + 7, labels()[:, 1:]], dim=1), "applications 7 to 9"),
        (labels() + 5, "numbered from 0"),
        (labels()[:, :1], "give the application and then a class"),
    ):
        with pytest.raises(BenchError) as caught:
            task.require_labels(wrong, 6, 5, "here")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match=r"samples, units, classes"):
        task.require_outputs((6, 5), 6, 5, "here")
    with pytest.raises(BenchError, match="outputs are of 3 units, and labels of 4"):
        task.score().update(torch.zeros(6, 3, 5), labels())
    with pytest.raises(BenchError, match="application 1 is segmentation, and several"):
        ApplicationForm(1, ApplicationFacts("segmentation", (3, 8, 8), 2))


def test_the_tasks_own_loss_is_the_mean_over_applications() -> None:
    outputs, y = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(2)), labels()
    each = [
        F.cross_entropy(outputs[y[:, 0] == app].flatten(0, 1), y[y[:, 0] == app, 1:].flatten())
        for app in range(3)
    ]
    assert float(make_task("several-tasks").loss(outputs, y)) == pytest.approx(float(sum(each)) / 3)


# --- models of their own ------------------------------------------------------------------------


def test_each_model_sees_its_own_samples_and_inputs_alone(models: list[Linear]) -> None:
    together, x = ApplicationModels(models, FACTS), joined()
    outputs = together(x)
    assert outputs.shape == (6, 4, 5)
    (images,), (words,), (questions,) = (model.seen for model in models)
    assert torch.equal(images, x["0"][APP == 0])
    assert sorted(words) == ["input_ids", "unit_mask"]
    assert torch.equal(words["input_ids"], x["1.input_ids"][APP == 1])
    assert list(questions) == ["image"]
    assert torch.equal(questions["image"], x["2.image"][APP == 2])
    for app, (model, form) in enumerate(zip(models, FORMS, strict=True)):
        own = model(take(own_inputs(x, app), (app == APP).nonzero().squeeze(1)))
        assert torch.equal(form.own_outputs(outputs[app == APP]), own)
    assert (outputs[APP == 0][:, :, 3:] == NEVER).all()
    assert (outputs[APP == 0][:, 1:] == NEVER).all()
    order = torch.tensor([4, 2, 0])
    assert torch.allclose(together(take(x, order)), outputs[order])
    task = make_task("several-tasks")
    assert task.units(outputs, x).shape == (2 + 2 + 2 + 3, 5)
    task.require_outputs(tuple(outputs.shape), 6, 5, "here")


def test_the_loss_is_the_mean_of_what_each_model_has_alone(models: list[Linear]) -> None:
    together, x, y = ApplicationModels(models, FACTS), joined(), labels()
    found = together.loss(together(x), y, label_smoothing=0.1)
    own = [own_inputs(take(x, (app == APP).nonzero().squeeze(1)), app) for app in range(3)]
    answers = F.one_hot(torch.tensor([4, 0]), 5).float()
    alone = [
        F.cross_entropy(models[0](own[0]), torch.tensor([1, 2]), label_smoothing=0.1),
        F.cross_entropy(
            models[1](own[1]).flatten(0, 1), y[APP == 1, 1:].flatten(), label_smoothing=0.1
        ),
        5 * F.binary_cross_entropy_with_logits(models[2](own[2]), answers),
    ]
    assert found.item() == pytest.approx(sum(alone).item() / 3, rel=1e-6)
    found.backward()
    given = [p.grad.clone() for p in together.module.parameters()]
    for p in together.module.parameters():
        p.grad = None
    (sum(alone) / 3).backward()
    for mine, theirs in zip(given, together.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad)


def test_labels_of_each_task_come_back_as_they_were() -> None:
    images, words = torch.tensor([1, 2]), labels()[APP == 1, 1:]
    scores = torch.zeros(2, 5)
    scores[0, 4], scores[1, 0], scores[1, 3] = 1.0, 0.9, 0.3
    y = joined_labels(list(zip(FORMS, (images, words, scores), strict=True)))
    assert y.shape == (6, 5)
    assert torch.equal(y[[4, 0, 2, 3, 1, 5]], labels())
    assert torch.equal(FORMS[0].labels(y[:2]), images)
    assert torch.equal(FORMS[1].labels(y[2:4]), words)
    best = F.one_hot(torch.tensor([4, 0]), 5).float()  # of a question the best answer
    assert torch.equal(FORMS[2].labels(y[4:]), best)


def test_an_augmentation_is_each_models_own(models: list[Linear]) -> None:
    together, x = ApplicationModels(models, FACTS), joined()
    models[2].augment = lambda own: {"image": own["image"] + 1}  # type: ignore[method-assign]
    made = together.augment(x)
    assert torch.equal(made["2.image"][APP == 2], x["2.image"][APP == 2] + 1)
    assert torch.equal(made["2.image"][APP != 2], x["2.image"][APP != 2])
    rest = [name for name in x if name != "2.image"]
    assert all(torch.equal(made[name], x[name]) for name in rest)


def test_what_several_models_do_not_do_is_said(models: list[Linear]) -> None:
    together = ApplicationModels(models, FACTS)
    assert together.blocks() == []
    assert len(together.head_parameters()) == 6
    with pytest.raises(Unsupported, match="features of their own"):
        together.with_features(joined())
    with pytest.raises(BenchError, match="take a stream of the task several-tasks"):
        ApplicationModels.build(None, (3, 8, 8), 2)
    with pytest.raises(BenchError, match=r"applications \[3\]"):
        together({**joined(), "app": torch.full((6,), 3)})
    with pytest.raises(BenchError, match="inputs of application 2 are missing"):
        own_inputs({"app": APP, "0": torch.zeros(6, 2)}, 2)


# --- lazy inputs --------------------------------------------------------------------------------


class Stored(LazyInputs):
    """`joined` as inputs that are read."""

    def __init__(self) -> None:
        super().__init__(torch.arange(6))

    def read(self, positions: Tensor) -> Any:
        return take(joined(), positions)

    def names(self, positions: Tensor) -> list[str]:
        return [f"sample {i}" for i in positions.tolist()]

    def column(self, name: str) -> Tensor | None:
        return joined()[name][self.positions] if name == "app" else None

    @property
    def sample_types(self) -> dict[str, Any]:
        return {name: (tuple(t.shape[1:]), t.dtype) for name, t in joined().items()}


@pytest.mark.parametrize("app", range(3))
def test_an_applications_part_of_lazy_inputs_is_that_of_tensors(app: int) -> None:
    wanted = own_inputs(joined(), app)
    stored = Placed(Stored(), torch.device("cpu"))
    for lazy in (own_inputs(Stored(), app), own_inputs(stored, app)):
        assert isinstance(lazy, LazyInputs)
        chosen = torch.tensor([5, 1])
        found, some = lazy[chosen], subset(lazy, chosen)
        if isinstance(wanted, dict):
            assert all(torch.equal(found[n], wanted[n][chosen]) for n in wanted)
            assert list(some.sample_types) == list(wanted)
        else:
            assert torch.equal(found, wanted[chosen])
            assert list(some.sample_types) == [""]
        assert some.sample_names() == ["sample 5", "sample 1"]
    assert owners(Stored()).tolist() == APP.tolist()
