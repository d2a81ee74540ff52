"""Which classes a cross-entropy covers, and that they are known from what arrived alone."""

from __future__ import annotations

import io

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench import registry
from bench.contracts.data import DomainView
from bench.methods._loss_classes import ClassLoss
from bench.testing import TinyModel

RESTRICTED = ("ewc", "mas", "si", "lwf", "gem", "a-gem")
EVERY = (*RESTRICTED, "replay", "joint", "fine-tune", "linear-probe", "bias-only")


def make(name, **settings):
    method = registry.load("method", name)
    return method(method.Config(**{"learning_rate": 0.01, "epochs": 2, **settings}))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


@pytest.fixture
def stream(data, view):
    """Views of the source with classes 0 and 1, of a domain of 1 and 2, and of one of 0 alone."""
    given = []
    for seed, classes in ((1, (0, 1)), (2, (1, 2)), (3, (0,))):
        x, _ = data(8, seed)
        given.append((x, torch.tensor(classes)[torch.arange(8) % len(classes)]))
    return lambda: [view(*domain, batch_size=4) for domain in given]


def test_the_published_choice_is_the_default():
    """Heads for each task: the task's; one head for all: all of it."""
    for name in EVERY:
        expected = "task" if name in RESTRICTED else "all"
        assert make(name).config.loss_classes == expected
    assert make("der++").config.loss_classes == "all"


@pytest.mark.parametrize("name", ["replay", "joint"])
def test_a_batch_of_several_domains_is_of_no_task(name):
    with pytest.raises(ValueError, match="'all' or 'seen'"):
        make(name, loss_classes="task")


@pytest.mark.parametrize("name", EVERY)
def test_where_every_domain_has_every_class_the_choices_are_the_same_bits(
    name, model, data, view, adapt
):
    results = []
    for choice in ("all", "seen", "task")[: 2 if name in ("replay", "joint") else 3]:
        twin = model.clone()
        method = make(name, loss_classes=choice)
        torch.manual_seed(0)
        given = []
        for seed in (1, 2, 3):
            x, y = data(9, seed)
            y[:3] = torch.arange(3)
            given.append(view(x, y, batch_size=4))
        method.prepare(twin, given[0])
        tracker = adapt(method, *given[1:])
        results.append((weights(twin), dict(tracker.counts)))
    for learned, counts in results[1:]:
        assert torch.equal(learned, results[0][0])
        assert counts == results[0][1]


def test_a_class_that_is_left_out_has_no_part_in_loss_and_gradient(model, data, view):
    outputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    loss = ClassLoss(model, "seen")
    loss.arrive(view(data(6)[0], y))
    value = loss(outputs, y)
    torch.testing.assert_close(value, cross_entropy(outputs[:, :2], y), rtol=1e-12, atol=0)
    value.backward()
    assert not outputs.grad[:, 2].any()
    assert outputs.grad[:, :2].all()


def test_classes_are_those_that_arrived_and_a_domain_has_its_own(model, stream):
    seen, task = ClassLoss(model, "seen"), ClassLoss(model, "task")
    met = []
    for domain in stream():
        for loss in (seen, task):
            loss.arrive(domain)
        met.append((sorted(seen.seen), sorted(task.current)))
    assert met == [([0, 1], [0, 1]), ([0, 1, 2], [1, 2]), ([0, 1, 2], [0])]
    outputs, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    parts = [cross_entropy(outputs[:2, :2], y[:2]), cross_entropy(outputs[2:, 1:], y[2:] - 1)]
    both = task(outputs, y, [([0, 1], 2), ([1, 2], 2)])
    torch.testing.assert_close(both, sum(parts) / 2)
    assert not task(outputs[:2], torch.zeros(2, dtype=torch.int64)).any()  # one class: certain


@pytest.mark.parametrize("name", EVERY)
def test_the_classes_seen_are_part_of_the_state(name, model, stream, adapt):
    choice = "seen"
    twin_model = model.clone()
    method, twin = make(name, loss_classes=choice), make(name, loss_classes=choice)
    for one, its in ((method, model), (twin, twin_model)):
        torch.manual_seed(0)
        one.prepare(its, stream()[0])
    adapt(method, stream()[1])
    file = io.BytesIO()
    torch.save(method.state(), file)
    file.seek(0)
    twin.load_state(torch.load(file, weights_only=True))
    for one in (method, twin):
        adapt(one, stream()[2])
    assert torch.equal(weights(model), weights(twin_model))


@pytest.mark.parametrize(
    ("task", "shape", "labels", "restricted"),
    [
        ("token-classification", (2, 4, 3), (2, 4), lambda o: o[..., :2]),
        ("segmentation", (2, 3, 2, 2), (2, 4, 4), lambda o: o[:, :2]),
    ],
)
def test_units_of_other_tasks(task, shape, labels, restricted):
    """Padding, void and images larger than the outputs among them."""
    made = type("Made", (TinyModel,), {"task": task})(torch.nn.Linear(2, 3), head_name="")
    outputs = torch.randn(shape)
    y = torch.arange(torch.Size(labels).numel()).view(labels) % 2
    y.flatten()[0] = made.rules.ignore
    loss = ClassLoss(made, "task")
    loss.arrive(DomainView("d", torch.zeros(labels[0], 2), y, 5, torch.Generator()))
    assert loss.current == {0, 1}
    torch.testing.assert_close(loss(outputs, y), made.loss(restricted(outputs), y))


def test_answers_that_are_left_out_are_not_pushed_down():
    """Each is decided by itself: without its column the sum over answers is what is left."""
    made = type("Made", (TinyModel,), {"task": "visual-question-answering"})
    model = made(torch.nn.Linear(2, 3), head_name="")
    outputs, y = torch.randn(4, 3), torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.6, 0.0]] * 2)
    loss = ClassLoss(model, "task")
    loss.arrive(DomainView("d", torch.zeros(4, 2), y, 5, torch.Generator()))
    torch.testing.assert_close(loss(outputs, y), model.loss(outputs[:, :2], y[:, :2]))


def test_boxes_of_classes_that_are_left_out_are_no_ones_fault():
    """The loss of the detection head without that class; the boxes stay in it."""
    made = type("Made", (TinyModel,), {"task": "detection"})(torch.nn.Linear(2, 3), head_name="")
    outputs = torch.cat([torch.randn(2, 6, 3), torch.rand(2, 6, 4).sort(dim=2).values], dim=2)
    y = torch.tensor([[[0, 0.1, 0.2, 0.5, 0.7]], [[1, 0.0, 0.0, 0.9, 0.9]]])
    loss = ClassLoss(made, "seen")
    loss.arrive(DomainView("d", torch.zeros(2, 2), y, 2, torch.Generator()))
    without = torch.cat([outputs[..., :2], outputs[..., 3:]], dim=2)
    torch.testing.assert_close(loss(outputs, y), made.loss(without, y))


def test_words_belong_to_no_domain():
    made = type("Made", (TinyModel,), {"task": "generation"})(torch.nn.Linear(2, 3), head_name="")
    outputs, y = torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.int64)
    loss = ClassLoss(made, "task")
    loss.arrive(DomainView("d", torch.zeros(2, 2), y, 2, torch.Generator()))
    assert torch.equal(loss(outputs, y), made.loss(outputs, y))


def test_each_domain_begins_with_an_optimizer_of_its_own_unless_it_is_kept(
    model, data, view, adapt
):
    """As training anew from the weights that the first domain left."""
    x, y = data(9, 2)
    for name in ("fine-tune", "replay"):
        learned = {}
        for state in ("new", "kept"):
            twin = model.clone()
            method = make(name, optimizer_state=state)
            torch.manual_seed(0)
            method.prepare(twin, view(*data(9), batch_size=9))
            first = view(*data(9, 3), batch_size=9)
            first.name = "first"
            adapt(method, first)
            steps = [s["step"] for s in method.optimizer.state.values()]
            assert {float(s) for s in steps} == {2.0}
            second = view(x, y, batch_size=9)
            second.name = "second"
            adapt(method, second)
            steps = [s["step"] for s in method.optimizer.state.values()]
            assert {float(s) for s in steps} == {2.0 if state == "new" else 4.0}
            learned[state] = weights(twin)
        assert not torch.equal(learned["new"], learned["kept"])
