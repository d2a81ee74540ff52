"""What a method has learned survives a file, and the method goes on exactly as it would have."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.contracts.method import Method, MethodConfig
from bench.contracts.model import FoundationModel
from bench.contracts.state import capture, restore
from bench.costs.factory import make_tracker
from bench.errors import BenchError
from bench.run.window import Window
from bench.testing import TinyModel


def build() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "2")


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def moved(values: dict[str, Any], into: dict[str, Any]) -> dict[str, Any]:
    restore(into, through_a_file(capture(values)))
    return into


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# --- each kind of attribute -------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: m.module])
def test_a_module_gets_its_parameters_and_buffers_and_stays_the_object(
    wrap: Callable[[TinyModel], Any],
) -> None:
    learned, fresh = build(), build()
    learned.module(torch.randn(8, 3))  # moves the running statistics
    with torch.no_grad():
        learned.module[0].weight.add_(1)
    weight = fresh.module[0].weight
    into = moved({"model": wrap(learned)}, {"model": wrap(fresh)})
    assert into["model"] is not wrap(learned)
    for key, value in learned.module.state_dict().items():
        assert torch.equal(fresh.module.state_dict()[key], value)
    assert fresh.module[0].weight is weight


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    ],
)
def test_an_optimizer_goes_on_with_its_moments_on_the_restored_module(
    make: Callable[..., torch.optim.Optimizer],
) -> None:
    def prepared() -> dict[str, Any]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return {"model": model, "optimizer": make(model.parameters())}

    values = prepared()
    for _ in range(3):
        step(**values)
    into = moved(values, prepared())
    for _ in range(3):
        step(**values)
        step(**into)
        assert torch.equal(values["model"].weight, into["model"].weight)


def test_a_generator_goes_on_with_its_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    torch.rand(5, generator=generator)
    into = moved({"g": generator}, {"g": torch.Generator().manual_seed(2)})
    assert into["g"] is not generator
    assert torch.equal(torch.rand(9, generator=generator), torch.rand(9, generator=into["g"]))


def view(seed: int) -> DomainView:
    x = torch.arange(30.0).reshape(10, 3)
    return DomainView("source", x, torch.arange(10), 4, torch.Generator().manual_seed(seed))


def test_a_view_goes_on_in_its_order_and_its_data_are_not_in_the_state() -> None:
    source = view(0)
    list(source.batches())
    state = capture({"source": source})
    fresh = view(1)
    restore(values := {"source": fresh}, through_a_file(state))
    assert values["source"] is fresh
    for a, b in zip(source.batches(2), fresh.batches(2), strict=True):
        assert torch.equal(a.sample_ids, b.sample_ids)
    assert state["source"][1].dtype == torch.uint8  # of the generator alone


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
tensors = st.lists(st.floats(-9, 9), max_size=4).map(torch.tensor) | st.just(
    torch.zeros(2, dtype=torch.bfloat16)
)
values_ = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


@given(values_, plain)
def test_plain_values_and_tensors_in_containers_come_back_as_they_were(
    value: Any, before: Any
) -> None:
    into = moved({"memory": value}, {"memory": before})
    assert same(into["memory"], value)


@given(st.lists(plain | tensors, max_size=5), st.none() | st.integers(0, 6))
def test_a_deque_keeps_its_bound_even_where_there_was_none_before(
    items: list[Any], bound: int | None
) -> None:
    kept = deque(items, bound)
    for before in (None, deque(maxlen=3), [1]):
        into = moved({"memory": kept}, {"memory": before})
        assert same(into["memory"], kept)
        assert into["memory"].maxlen == bound


# --- copies -----------------------------------------------------------------------------


def everything() -> dict[str, Any]:
    model = build()
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.module.parameters(), lr=0.1, momentum=0.9),
        "prompt": nn.Parameter(torch.ones(2)),
        "memory": deque([torch.ones(3)], 5),
        "nested": {"a": [torch.ones(1)]},
        "generator": torch.Generator().manual_seed(0),
    }


def work(values: dict[str, Any]) -> None:
    """Change everything in place."""
    step(values["model"].module, values["optimizer"])
    with torch.no_grad():
        values["prompt"].add_(1)
    values["memory"][0].add_(1)
    values["memory"].append(torch.zeros(3))
    values["nested"]["a"][0].add_(1)
    torch.rand(1, generator=values["generator"])


def test_a_state_is_a_copy_that_later_work_does_not_change() -> None:
    values = everything()
    work(values)
    state = capture(values)
    expected = copy.deepcopy(state)
    work(values)
    assert same_state(state, expected)


def test_a_state_can_be_restored_twice() -> None:
    values = everything()
    work(values)
    state = capture(values)
    expected = copy.deepcopy(state)
    for _ in range(2):
        into = everything()
        restore(into, state)
        work(into)  # must not reach into the state
        assert same_state(state, expected)


def same_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    def flat(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: flat(v) for k, v in value.items()}
        return value

    return same({k: (kind, flat(v)) for k, (kind, v) in a.items()},
                {k: (kind, flat(v)) for k, (kind, v) in b.items()})  # fmt: skip


# --- parameters -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hold",
    [
        lambda m: list(m.parameters()),
        lambda m: tuple(m.parameters()),
        lambda m: dict(m.named_parameters()),
        lambda m: {"scale": [m.weight], "shift": [m.bias]},
        lambda m: m.weight,
        lambda m: deque([m.weight]),
    ],
)
def test_references_to_a_modules_parameters_are_neither_kept_twice_nor_replaced(
    hold: Callable[[nn.Linear], Any],
) -> None:
    learned, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    state = capture({"model": learned, "trained": hold(learned)})
    assert list(state) == ["model"]
    held = hold(fresh)
    values = {"model": fresh, "trained": held}
    restore(values, through_a_file(state))
    assert values["trained"] is held
    assert torch.equal(fresh.weight, learned.weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Parameter(torch.randn(3)),
        lambda: [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))],
        lambda: {"prompt": nn.Parameter(torch.randn(3), requires_grad=False)},
        lambda: torch.randn(3, requires_grad=True),
    ],
)
def test_parameters_of_the_methods_own_are_learned_too_and_stay_with_their_optimizer(
    make: Callable[[], Any],
) -> None:
    def leaves(value: Any) -> list[Tensor]:
        if isinstance(value, dict):
            value = list(value.values())
        return value if isinstance(value, list) else [value]

    own, fresh = make(), make()
    optimizer = torch.optim.SGD(leaves(fresh), lr=1.0)
    into = moved({"prompts": own}, {"prompts": fresh})
    assert into["prompts"] is fresh
    for a, b in zip(leaves(own), leaves(fresh), strict=True):
        assert torch.equal(a, b)
        b.grad = torch.ones_like(b)
    optimizer.step()
    for a, b in zip(leaves(own), leaves(into["prompts"]), strict=True):
        assert torch.equal(a - 1, b)


def test_a_parameter_of_another_shape_is_refused_and_not_broadcast() -> None:
    state = capture({"prompt": nn.Parameter(torch.ones(1))})
    with pytest.raises(BenchError, match=r"state of 'prompt' does not fit.*\(1,\), not \(3,\)"):
        restore({"prompt": nn.Parameter(torch.zeros(3))}, state)


def test_parameters_among_other_values_are_refused_since_they_would_be_replaced() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(BenchError, match="attribute 'named' holds parameters among other values"):
        capture({"model": model, "named": list(model.named_parameters())})


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64"])
def test_an_array_comes_back_as_it_was_and_independent(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    torch.save(capture({"kept": array}), tmp_path / "state")
    array[:] = 0
    values: dict[str, Any] = {"kept": array}
    restore(values, torch.load(tmp_path / "state", weights_only=True))
    assert values["kept"].dtype == np.dtype(dtype)
    assert np.array_equal(values["kept"], np.arange(6).reshape(2, 3).astype(dtype))


# --- errors -----------------------------------------------------------------------------


class Color(StrEnum):
    red = "red"


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (lambda x: x, "function"),
        ({1, 2}, "set"),
        ([1, {"a": object()}], "object"),
        (iter([1]), "list_iterator"),
        (np.array(["a"]), "ndarray"),
        ([np.zeros(2)], "ndarray"),
        ([np.float64(0.5)], "float64"),
        (Color.red, "Color"),
        (Pair(1, 2), "Pair"),
        (OrderedDict(a=1), "OrderedDict"),
        ({"a": deque([1], 3)}, "deque"),
        ([nn.Linear(1, 1)], "Linear"),
        ({"o": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)}, "SGD"),
        (torch.float32, "dtype"),
    ],
)
def test_what_no_file_would_give_back_alike_is_named_with_the_cure(value: Any, kind: str) -> None:
    with pytest.raises(BenchError) as caught:
        capture({"fine": 1, "odd": value})
    text = str(caught.value)
    assert f"attribute 'odd' holds a {kind}, whose state cannot be saved" in text
    assert "override state() and load_state()" in text


def test_the_settings_are_no_state() -> None:
    assert capture({"config": MethodConfig(), "count": 1}) == {"count": ("value", 1)}


@pytest.mark.parametrize(
    ("learned", "fresh"),
    [
        ({"x": nn.Linear(3, 2)}, {"x": nn.Linear(3, 4)}),
        ({"x": nn.Linear(3, 2)}, {"x": None}),
        ({"x": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)}, {"x": None}),
        (
            {"x": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)},
            {"x": torch.optim.SGD([nn.Parameter(torch.ones(1)) for _ in range(2)], lr=1.0)},
        ),
        ({"x": torch.Generator()}, {"x": 3}),
        ({"x": nn.Parameter(torch.ones(1))}, {"x": [nn.Parameter(torch.ones(1))] * 2}),
        ({"x": nn.Parameter(torch.ones(1))}, {"x": 1.0}),
    ],
)
def test_a_state_that_does_not_fit_names_the_attribute_and_the_cure(
    learned: dict[str, Any], fresh: dict[str, Any]
) -> None:
    with pytest.raises(BenchError, match=r"state of 'x' does not fit this method: .* prepare"):
        restore(fresh, capture(learned))


def test_an_attribute_that_prepare_does_not_make_is_named() -> None:
    with pytest.raises(BenchError, match="state of 'late': the prepared method has no such"):
        restore({"early": 1}, capture({"late": torch.ones(1)}))


# --- a method ---------------------------------------------------------------------------


class Learner(Method):
    """Trains with momentum on its batches and a drawn sample of its memory."""

    def __init__(self, seed: int) -> None:
        super().__init__(MethodConfig())
        self.prepare(build(), view(seed))

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model, self.source = model, source
        self.trained = list(model.module.parameters())
        self.optimizer = torch.optim.SGD(self.trained, lr=0.01, momentum=0.9)
        self.generator = torch.Generator().manual_seed(1)
        self.memory: deque[Tensor] = deque(maxlen=6)
        self.average: Tensor | None = None
        self.seen = 0

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch, old in zip(window.steps(domain.batches()), self.source.infinite(), strict=False):
            self.memory.extend(batch.x.clone())
            chosen = torch.randint(len(self.memory), (2,), generator=self.generator)
            x = torch.cat([batch.x, old.x, *(self.memory[int(i)][None] for i in chosen)])
            loss = self.model(x).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            mean = batch.x.mean(dim=0)
            self.average = mean if self.average is None else 0.9 * self.average + 0.1 * mean
            self.seen += len(batch)


def adapt(method: Method, device: Any, *seeds: int) -> None:
    tracker = make_tracker([device], method.stored)
    for seed in seeds:
        x = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))
        with Window(tracker, 1e9, None, lambda: method.model.module) as window:
            method.adapt(DomainView("d", x, None, 4, torch.Generator().manual_seed(seed)), window)


def test_a_restored_method_goes_on_bit_by_bit_as_the_one_that_never_stopped(
    make_device: Callable[..., Any],
) -> None:
    device = make_device()
    whole = Learner(0)
    adapt(whole, device, 1, 2)
    state = through_a_file(whole.state())
    resumed = Learner(7)  # prepared with another order of its source: the state has it
    resumed.load_state(state)
    assert same_state(resumed.state(), whole.state())
    for method in (whole, resumed):
        adapt(method, device, 3, 4)
    assert same_state(resumed.state(), whole.state())
    assert resumed.seen == 40
    x = torch.randn(5, 3)
    assert torch.equal(resumed.predict(x), whole.predict(x))


def test_a_state_from_before_is_not_the_state_after(make_device: Callable[..., Any]) -> None:
    method = Learner(0)
    before = method.state()
    adapt(method, make_device(), 1)
    assert not same_state(method.state(), before)
    method.load_state(before)
    assert same_state(method.state(), before)
