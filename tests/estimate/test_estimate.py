"""Counting without values: equal to counting a real step, and honest where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import Method, registry
from bench.accelerator.determinism import as_in_a_run, seed_everything
from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import ModelledDevice, load_device
from bench.costs.factory import make_tracker
from bench.costs.step_tracer import StepTrace
from bench.costs.tracker import ChargedStep, CostTracker, StepObserver
from bench.errors import BenchError, Unsupported
from bench.estimate.fake_tensors import FakeMode, emptied, sample_inputs, without_values
from bench.estimate.fit import Price, Request, default_methods, default_shape, modelled
from bench.estimate.step_costs import MethodCosts, shape_costs
from bench.estimate.worker import made_up, price
from bench.run.window import Window

BATCH, SAMPLES, CLASSES = 4, 8, 5
SMALL: dict[str, tuple[dict[str, int], tuple[int, ...]]] = {
    "digits-vit": ({"width": 32, "depth": 2}, (1, 16, 16)),
    "bert-base": (
        {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "vocabulary": 50,
         "positions": 16},
        (12,),
    ),
    "small-segmenter": ({"width": 32, "depth": 2}, (3, 32, 32)),
    "small-detector": ({"width": 32, "depth": 2}, (3, 32, 32)),
    "small-tagger": ({"width": 32, "depth": 2}, (12,)),
    "small-lm": ({"width": 32, "depth": 2}, (12,)),
    "small-vqa": ({"width": 32, "depth": 2}, (3, 32, 32)),
}  # fmt: skip


def build(name: str) -> FoundationModel:
    settings, shape = SMALL[name]
    model_class = registry.load("model", name)
    torch.manual_seed(0)
    model: FoundationModel = model_class.build(
        model_class.Config.model_validate(settings), shape, CLASSES
    )
    return model


def request_of(model: str) -> Request:
    shape = SMALL[model][1]
    return Request(
        model=model, methods=(), devices=(), shape=shape, classes=CLASSES, batch=BATCH,
        samples=SAMPLES,
    )  # fmt: skip


def estimated(method: type[Method], model: str = "digits-vit") -> MethodCosts:
    """Counted on tensors without values."""
    fakes = FakeMode()
    empty = emptied(build(model), fakes)
    task = made_up(empty, fakes, request_of(model))
    with without_values(fakes):
        return shape_costs(method, lambda: empty, task)


class Traces(StepObserver):
    """Keeps the traces of the last domain."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, StepTrace]] = []

    def on_window(self) -> None:
        self.seen.clear()

    def on_step(self, step: ChargedStep) -> None:
        if step.trace is not None:
            self.seen.append((step.kind, step.trace))


def run(
    method_class: type[Method], model: str, settings: dict[str, Any] | None = None
) -> tuple[Traces, CostTracker]:
    """The method on real tensors through a plain tracker and window: one batch, then a domain."""
    shape, built = SMALL[model][1], build(model)

    def view(name: str, samples: int, labelled: bool) -> DomainView:
        x = sample_inputs(shape, samples, words=model == "small-vqa")
        x = torch.rand(samples, *shape) if isinstance(x, torch.Tensor) else x
        with torch.no_grad():
            y = built.rules.sample_labels(built(x), x, CLASSES) if labelled else None
        return DomainView(name, x, y, BATCH, torch.Generator().manual_seed(1), single_pass=True)

    with as_in_a_run():
        seed_everything(0)
        method = method_class(method_class.Config(**settings or {}))
        remembers = "replay_memory" in method.needs
        method.prepare(built.clone(), view("source", SAMPLES if remembers else BATCH, True))
        traces = Traces()
        tracker = make_tracker([load_device("xavier-nx")], method.stored, observers=[traces])
        for samples in (BATCH, SAMPLES):
            domain = view("target", samples, "target_labels" in method.needs)
            with Window(tracker, 1e9, None, lambda: method.model.module) as window:
                method.adapt(domain, window)
        x = view("test", BATCH, False).x
        with torch.no_grad():
            method.predict(x)
            tracker.inference(BATCH, partial(method.predict, x))
        tracker.finish()
    return traces, tracker


EXACT = [
    "cua", "dann", "deep-coral", "der++", "ewc", "feature-alignment", "fine-tune", "joint",
    "linear-probe", "lora", "lwf", "mas", "replay", "shot", "si", "source-fine-tune",
    "source-only", "source-stats", "tent",
]  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_a_step_without_values_counts_as_the_real_one(name: str) -> None:
    method = registry.load("method", name)
    found = estimated(method)
    traces, tracker = run(method, "digits-vit")
    real = dict(traces.seen)
    steps = {kind: trace for kind, (_, trace) in found.steps.items()}
    assert steps.keys() | {kind for kind, _ in found.sections} == real.keys()
    assert all(share == 1 for share, _ in found.steps.values())
    for kind, trace in [*steps.items(), *found.sections]:
        assert trace.operations == real[kind].operations, kind
        assert trace.details == real[kind].details, kind
        assert trace.peak_bytes == real[kind].peak_bytes, kind
    assert found.peak_bytes == tracker.devices[0].peak_bytes > 0


@pytest.mark.parametrize("name", ["fine-tune", "tent", "lora", "shot"])
def test_texts_too(name: str) -> None:
    method = registry.load("method", name)
    found = estimated(method, "bert-base")
    traces, tracker = run(method, "bert-base")
    real = dict(traces.seen)
    for kind, (_, trace) in found.steps.items():
        assert trace.operations == real[kind].operations
        assert trace.peak_bytes == real[kind].peak_bytes
    assert found.peak_bytes == tracker.devices[0].peak_bytes


@pytest.mark.parametrize("name", ["fine-tune", "tent", "lora", "feature-alignment"])
@pytest.mark.parametrize(
    "model", ["small-segmenter", "small-detector", "small-tagger", "small-lm", "small-vqa"]
)
def test_every_task_too(model: str, name: str) -> None:
    method = registry.load("method", name)
    if registry.load("model", model).task not in method.tasks:
        pytest.skip(f"{name} does not do the task of {model}")
    found = estimated(method, model)
    traces, tracker = run(method, model)
    real = dict(traces.seen)
    # Without values boxes are matched, and words selected, by places and not by masks.
    rel = 1e-3 if model in ("small-detector", "small-tagger") else 0.0
    for kind, (_, trace) in found.steps.items():
        assert trace.flops == pytest.approx(real[kind].flops, rel=rel)
        assert trace.peak_bytes == pytest.approx(real[kind].peak_bytes, rel=rel)
    assert found.peak_bytes == pytest.approx(tracker.devices[0].peak_bytes, rel=rel)


def test_the_price_is_that_of_the_steps_that_a_run_charges() -> None:
    """Pseudo-labels belong to the step of the batch they are for; what is done once does not."""
    method = registry.load("method", "shot")
    device = modelled("xavier-nx")
    found = price(estimated(method), device)
    _, tracker = run(method, "digits-vit")
    (device,) = tracker.devices
    steps = SAMPLES // BATCH
    assert tracker.counts == {"pseudo-label": 1 + steps, "adapt": 1 + steps, "centroids": 2}
    assert found.step_s is not None
    assert found.step_j is not None
    assert found.domain_j is not None
    assert device.window.energy_j is not None
    assert found.domain_s > 0
    assert steps * found.step_s + found.domain_s == pytest.approx(device.window.time_s, rel=1e-12)
    # The first step of an adaptation has no momentum to multiply yet, and costs a little less.
    assert steps * found.step_j + found.domain_j == pytest.approx(device.window.energy_j, rel=2e-4)


def test_a_method_without_steps_has_memory_alone() -> None:
    found = estimated(registry.load("method", "source-only"))
    device = modelled("xavier-nx")
    assert price(found, device) == Price(
        memory_bytes=found.peak_bytes, step_s=None, step_j=None, domain_s=0.0, domain_j=0.0
    )
    weights = sum(p.numel() * 4 for p in build("digits-vit").module.parameters())
    assert weights < found.peak_bytes < 3 * weights


def test_on_a_calibrated_device_memory_is_the_processs_and_unknown_joules_are_none() -> None:
    def quantity(value: float) -> dict[str, Any]:
        return {"value": value, "source": "made up for a test", "confidence": "estimate"}

    plain = modelled("raspberry-pi-5")
    parts = {"stored": 1.5, "step": 2.0, "convolution": 0.5, "added": 7e6}
    device = ModelledDevice.model_validate(
        plain.model_dump()
        | {
            "resident_memory": {part: quantity(value) for part, value in parts.items()},
            "energy_unavailable": "no watts were given",
        }
    )
    found = estimated(registry.load("method", "shot"))
    priced = price(found, device)
    assert (priced.step_j, priced.domain_j) == (None, None)
    assert priced.step_s == price(found, plain).step_s
    assert priced.memory_bytes == max(
        1.5 * h.stored + 2.0 * h.step + 0.5 * h.convolution + 7e6 for h in found.footprints
    )
    assert price(found, plain).memory_bytes == found.peak_bytes < priced.memory_bytes


@pytest.mark.parametrize(
    ("window_s", "domain_s", "steps"),
    [(60.0, 0.0, 600), (60.0, 0.05, 599), (60.0, 60.0, 0), (60.0, 90.0, 0), (0.05, 0.0, 0)],
)
def test_steps_fill_the_window_beside_the_work_for_a_domain(
    window_s: float, domain_s: float, steps: int
) -> None:
    price = Price(memory_bytes=1.0, step_s=0.1, step_j=1.0, domain_s=domain_s, domain_j=0.0)
    assert price.steps_in(window_s) == steps


# --- what cannot be counted ---------------------------------------------------------------

DEPENDS = "its work depends on the data; a run counts it"


def assumed(name: str) -> int:
    """How often counting a method took a value for known."""
    fakes = FakeMode()
    empty = emptied(build("digits-vit"), fakes)
    task = made_up(empty, fakes, request_of("digits-vit"))
    fakes.assumed = 0
    with without_values(fakes):
        shape_costs(registry.load("method", name), lambda: empty, task)
    return fakes.assumed


@pytest.mark.parametrize(
    ("name", "all_selected"),
    [
        ("eata", {"entropy_share": 1.0, "similarity_bound": 1e3}),
        ("cotta", {"confidence_threshold": 1.0}),
        ("pseudo-label", {"threshold": 0.0}),
        ("edgeta", {"lora_steps": 2, "kb_steps": 4, "index_steps": 4, "checkpoints": 1}),
        ("edgeta-supervised", {"lora_steps": 2, "kb_steps": 4, "index_steps": 4}),
    ],
)
def test_what_reads_values_counts_as_a_run_in_which_all_is_selected(
    name: str, all_selected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    method = registry.load("method", name)
    found = estimated(method)
    assert list(tmp_path.iterdir()) == []  # no stage was trained, and nothing kept
    traces, _ = run(method, "digits-vit", all_selected)
    real = dict(traces.seen)
    for kind, (_, trace) in found.steps.items():
        # A selection of all has the same rows; fetching them by a mask or by places may not count
        # alike, a few operations of thousands.
        assert trace.flops == pytest.approx(real[kind].flops, rel=1e-4), kind
        if name.startswith("edgeta"):
            assert trace.operations == real[kind].operations, kind


@pytest.mark.parametrize("name", ["eata", "sar", "deyo", "gem", "a-gem", "cotta", "rotta", "t3a"])
def test_what_is_assumed_is_said(name: str) -> None:
    assert assumed(name) > 0


@pytest.mark.parametrize("name", ["tent", "shot", "fine-tune", "edgeta"])
def test_what_reads_no_value_assumes_nothing(name: str) -> None:
    assert assumed(name) == 0


class Adapting(Method):
    """Does ``body`` with each batch."""

    body: Callable[[Any, Any], Any]

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            type(self).body(self, batch)


def adapting(body: Callable[[Any, Any], Any], **facts: Any) -> type[Method]:
    return type("Mine", (Adapting,), {"body": staticmethod(body), **facts})


def test_every_condition_holds_also_in_a_backward_hook() -> None:
    def body(method: Method, batch: Any) -> None:
        outputs = method.model(batch.x)
        outputs.register_hook(lambda g: g if g.sum() > 0 else 2 * g)
        outputs.sum().backward()

    assert estimated(adapting(body)).steps["adapt"][1].flops > 0


def test_values_for_numpy_are_assumed_too() -> None:
    def body(method: Method, batch: Any) -> None:
        assert set(method.model(batch.x).detach().numpy().ravel().tolist()) == {np.float32(0.1)}

    assert estimated(adapting(body)).steps["adapt"][1].flops > 0


def test_what_cannot_be_told_is_left_to_a_run() -> None:
    def body(method: Method, batch: Any) -> None:
        method.model(batch.x).flatten().unique()  # how many there are is not known

    with pytest.raises(Unsupported) as caught:
        estimated(adapting(body))
    assert str(caught.value) == DEPENDS


def test_other_trouble_is_told_as_it_is() -> None:
    def body(method: Method, batch: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(Unsupported, match=r"without values \(RuntimeError: mine\)"):
        estimated(adapting(body))


def test_a_method_that_reads_the_clock_is_left_to_a_run() -> None:
    with pytest.raises(Unsupported, match="depends on the device's clock"):
        estimated(adapting(lambda *_: None, uses_device_clock=True))


def test_a_loop_that_the_method_leaves_is_counted() -> None:
    class Leaves(Method):
        """One batch of a domain is enough."""

        def adapt(self, domain: DomainView, window: Window) -> None:
            for batch in window.steps(domain.batches()):
                self.model(batch.x)
                break

    found = estimated(Leaves)
    assert found.steps["adapt"][0] == 1
    assert found.steps["adapt"][1].flops > 0


def test_steps_of_another_kind_are_shared_out() -> None:
    """Two looks at each batch, then one step of adaptation for it."""

    class Looks(Method):
        """Looks twice."""

        def adapt(self, domain: DomainView, window: Window) -> None:
            for batch in domain.batches():
                for _ in window.steps([batch, batch], kind="look"):
                    batch.x.sum()
                for _ in window.steps([batch]):
                    self.model(batch.x)

    found = estimated(Looks)
    assert {kind: share for kind, (share, _) in found.steps.items()} == {"look": 2, "adapt": 1}


# --- tensors without values ---------------------------------------------------------------


@pytest.fixture
def fakes() -> Iterator[FakeMode]:
    fakes = FakeMode()
    with without_values(fakes):
        yield fakes


def test_integers_have_values_and_floats_have_none(fakes: FakeMode) -> None:
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert int(torch.randint(7, 8, ())) == 7
    weights = torch.rand(5)[order]
    assert fakes.assumed == 0
    assert float(weights[0]) == float(order.float()[0]) == pytest.approx(0.1)
    assert fakes.assumed == 2


def test_every_sample_is_selected(fakes: FakeMode) -> None:
    weights = torch.rand(3, 2)
    chosen = weights[:, 0] > 0.5
    assert chosen.tolist() == [True, True, True]
    assert chosen.nonzero().tolist() == [[0], [1], [2]]
    assert weights[chosen].shape == (3, 2)
    assert weights[weights > 0.5].shape == (6,)
    weights[chosen] = 0.0
    assert bool(chosen.any())
    assert fakes.assumed > 0


def test_a_call_gives_the_same_when_its_result_is_remembered(fakes: FakeMode) -> None:
    """Shapes and places in memory, as real tensors have them."""

    def calls() -> list[Any]:
        x = torch.ones(2, 3, 4)
        added = x + 1
        grown = x.clone()
        grown.unsqueeze_(0)
        more = [torch.ones(3), torch.ones(4)]
        torch._foreach_add_(more, 1.0)
        given = [
            x, x.transpose(0, 1), x[:, 1:], *x.split(1), added, added.add_(x), grown, *more,
            x.sum(1), x.sum(1, keepdim=True), x.sum(), *torch._foreach_mul(more, more),
            *torch.nn.functional.layer_norm(x, (4,)).unbind(1), x.flatten(), x.to(torch.float64),
        ]  # fmt: skip
        where = [each.untyped_storage()._cdata for each in given]
        return [
            (each.shape, each.stride(), each.storage_offset(), each.dtype, where.index(place))
            for each, place in zip(given, where, strict=True)
        ]

    first, again = calls(), calls()
    with torch.utils._python_dispatch._disable_current_modes():
        real = calls()
    assert first == again == real


def test_a_known_number_stays_known_when_it_is_changed(fakes: FakeMode) -> None:
    """As the count of an optimizer's steps."""
    for _ in range(2):
        steps = torch.tensor(0.0)
        for n in range(1, 4):
            steps += 1
            assert steps.item() == n


def test_a_copied_model_stays_without_values_in_one_mode() -> None:
    fakes = FakeMode()
    model = emptied(build("digits-vit"), fakes)
    with without_values(fakes):
        copied = model.clone()
        assert copied.module.to("cpu") is copied.module
    parameters: list[Any] = list(copied.module.parameters())
    assert all(p.fake_mode is fakes for p in parameters)
    assert [p.shape for p in parameters] == [p.shape for p in model.module.parameters()]


def test_shared_parameters_stay_shared() -> None:
    model = build("digits-vit")
    head: Any = model.head
    model.module.register_module("again", torch.nn.Linear(1, 1))
    again: Any = model.module.get_submodule("again")
    again.weight = head.weight
    emptied(model, FakeMode())
    assert again.weight is head.weight
    assert isinstance(head.weight, torch.nn.Parameter)


def test_torch_is_left_as_it_was() -> None:
    from torch.utils._foreach_utils import _foreach_supported_types

    before = (torch.nn.Module._apply, torch.nn.functional.one_hot, [*_foreach_supported_types])
    with pytest.raises(ZeroDivisionError), without_values(FakeMode()):
        raise ZeroDivisionError
    assert before == (
        torch.nn.Module._apply,
        torch.nn.functional.one_hot,
        [*_foreach_supported_types],
    )
    assert float(torch.ones(())) == 1.0


# --- names --------------------------------------------------------------------------------


def test_every_model_here_has_a_shape_that_it_takes() -> None:
    for name, entry in registry.entries("model").items():
        if entry.facts.get("task") == "several-tasks":
            with pytest.raises(BenchError, match="declares no input_shape: give --shape"):
                default_shape(name)
        else:
            assert default_shape(name)


def test_methods_are_those_for_the_task() -> None:
    every = registry.entries("method")
    known = {
        n for n, e in every.items() if "classification" in e.facts.get("tasks", ("classification",))
    }
    assert set(default_methods("digits-vit")) == known
    assert set(every) - known == {"prefix-tuning"}


def test_a_model_that_declares_its_shape_is_believed(tmp_path: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from bench import register\nfrom bench.contracts.model import FoundationModel\n\n\n"
        '@register("model", "fit-declares")\nclass Mine(FoundationModel):\n    """Mine."""\n\n'
        "    input_shape = (3, 8, 8)\n\n\n"
        '@register("model", "fit-silent")\nclass Silent(FoundationModel):\n    """Mine."""\n'
    )
    with registry.isolated():
        registry.add_plugin(file)
        assert default_shape("fit-declares") == (3, 8, 8)
        with pytest.raises(BenchError, match="declares no input_shape: give --shape, as 3,224,224"):
            default_shape("fit-silent")
