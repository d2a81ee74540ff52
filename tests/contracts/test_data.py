"""What a method is handed: no labels unless allowed, every sample once, the seed's order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import islice
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.contracts.data import Batch, DomainView
from bench.contracts.model import inputs_digest, source_digest, tensors_digest
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Domain, Split
from bench.errors import BenchError, LabelsHidden
from bench.io.digest import digest
from bench.run.arrivals import target_view

N = 10
LABELS = torch.arange(1000, 1000 + N)
TEST_LABELS = torch.arange(5000, 5000 + N)


def make_view(
    labelled: bool, n: int = N, batch_size: int = 4, seed: int = 0, dicts: bool = False
) -> DomainView:
    x: Any = torch.arange(n, dtype=torch.float32).unsqueeze(1).repeat(1, 3)
    if dicts:
        x = {"a": x, "b": x[:, 0].long()}
    y = torch.arange(1000, 1000 + n) if labelled else None
    return DomainView("d", x, y, batch_size, torch.Generator().manual_seed(seed))


def reachable(root: Any) -> Iterator[Any]:
    """Every object that can be reached from ``root``, short of code, classes and modules."""
    seen: set[int] = set()
    keep: list[Any] = []
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(
            thing, type | ModuleType | FunctionType | BuiltinFunctionType
        ):
            continue
        seen.add(id(thing))
        keep.append(thing)
        yield thing
        todo += gc.get_referents(thing)
        todo += list(vars(thing).values()) if hasattr(thing, "__dict__") else []
        for kind in type(thing).__mro__:
            slots = getattr(kind, "__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if not slot.startswith("__") and slot in vars(kind):
                    todo.append(vars(kind)[slot].__get__(thing) if hasattr(thing, slot) else None)
        if isinstance(thing, Tensor):
            todo += [thing._base, thing.grad]


def holds_any_of(root: Any, labels: Tensor) -> bool:
    """Whether a tensor or number reachable from ``root``, or a tensor's storage, has a label."""
    wanted = set(labels.tolist())
    for thing in reachable(root):
        if isinstance(thing, Tensor):
            whole = thing.new_empty(0).set_(thing.untyped_storage())
            if wanted & set(whole.double().flatten().tolist()):
                return True
        elif isinstance(thing, int) and thing in wanted:
            return True
    return False


def domain() -> Domain:
    x = torch.arange(N, dtype=torch.float32).unsqueeze(1)
    return Domain("d", Split(x, LABELS.clone()), Split(x + 100, TEST_LABELS.clone()))


def test_the_search_for_labels_finds_them_where_they_are() -> None:
    view = target_view(domain(), protocol_config({"batch_size": 4}), labelled=True, seed=0)
    assert holds_any_of(view, LABELS)
    assert holds_any_of(next(view.batches()), LABELS)
    assert holds_any_of([{"a": domain()}], TEST_LABELS)


def test_an_unlabelled_view_reaches_no_labels_and_no_test_data() -> None:
    view = target_view(domain(), protocol_config({"batch_size": 4}), labelled=False, seed=0)
    running, endless = view.batches(), view.infinite()
    held = [view, next(running), next(endless), running, endless]
    assert not holds_any_of(held, LABELS)
    assert not holds_any_of(held, TEST_LABELS)
    assert not holds_any_of(held, torch.arange(100, 100 + N))  # the inputs of the test split


def test_a_labelled_view_reaches_nothing_of_the_test_split() -> None:
    view = target_view(domain(), protocol_config({"batch_size": 4}), labelled=True, seed=0)
    held = [view, next(view.batches())]
    assert not holds_any_of(held, TEST_LABELS)
    assert not holds_any_of(held, torch.arange(100, 100 + N))


@pytest.mark.parametrize("dicts", [False, True])
def test_asking_an_unlabelled_view_or_batch_for_labels_raises(dicts: bool) -> None:
    view = make_view(labelled=False, dicts=dicts)
    assert view.labelled is False
    for thing in (view, next(view.batches()), next(view.infinite())):
        with pytest.raises(LabelsHidden, match="needs = \\('target_labels',\\)"):
            thing.y  # noqa: B018
        assert not hasattr(thing, "y")


def test_a_labelled_batch_has_the_labels_of_its_inputs() -> None:
    view = make_view(labelled=True)
    assert view.labelled is True
    for batch in [*view.batches(), *islice(view.infinite(), 3)]:
        assert batch.y.dtype == torch.int64
        assert torch.equal(batch.y, batch.x[:, 0].long() + 1000)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    "use",
    [
        lambda v: v.x, lambda v: v.y, len, lambda v: v.nbytes,
        lambda v: next(v.batches()), lambda v: next(v.infinite()),
    ],
)  # fmt: skip
def test_a_closed_view_gives_nothing_but_its_reason(
    labelled: bool, use: Callable[[DomainView], Any]
) -> None:
    view = make_view(labelled)
    view.close("closed for a reason")
    with pytest.raises(BenchError, match="closed for a reason"):
        use(view)


@pytest.mark.parametrize("kind", ["batches", "infinite"])
def test_a_pass_begun_before_closing_ends_with_the_reason(kind: str) -> None:
    view = make_view(labelled=True)
    running = getattr(view, kind)()
    next(running)
    view.close("closed for a reason")
    with pytest.raises(BenchError, match="closed for a reason"):
        next(running)


def test_a_closed_view_holds_no_data() -> None:
    view = make_view(labelled=True)
    view.close("why")
    assert not [t for t in reachable(view) if isinstance(t, Tensor)]


def order(batches: Iterator[Batch]) -> list[list[int]]:
    return [b.x[:, 0].long().tolist() for b in batches]


@given(n=st.integers(1, 30), batch_size=st.integers(1, 12), epochs=st.integers(1, 3))
def test_every_epoch_gives_every_sample_once(n: int, batch_size: int, epochs: int) -> None:
    batches = order(make_view(False, n, batch_size).batches(epochs))
    per_epoch = -(-n // batch_size)
    assert len(batches) == epochs * per_epoch
    for epoch in range(epochs):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(i for b in part for i in b) == list(range(n))
        assert all(len(b) == batch_size for b in part[:-1])


@given(n=st.integers(1, 30), batch_size=st.integers(1, 12))
def test_endless_gives_full_batches_only_and_no_sample_twice_in_a_pass(
    n: int, batch_size: int
) -> None:
    size = min(n, batch_size)
    per_pass = max(n // batch_size, 1)
    batches = order(islice(make_view(False, n, batch_size).infinite(), 3 * per_pass))
    assert all(len(b) == size for b in batches)
    for start in range(0, 3 * per_pass, per_pass):
        drawn = [i for b in batches[start : start + per_pass] for i in b]
        assert len(set(drawn)) == len(drawn)


def test_the_generators_seed_fixes_the_order_and_labels_do_not_change_it() -> None:
    first = order(make_view(False, 40, seed=1).batches(2))
    assert order(make_view(True, 40, seed=1).batches(2)) == first
    assert order(make_view(False, 40, seed=2).batches(2)) != first
    assert first[:10] != first[10:]  # a new order in each pass


def test_the_global_generator_has_no_part_in_the_order() -> None:
    torch.manual_seed(0)
    first = order(make_view(False, 40).batches())
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert order(make_view(False, 40).batches()) == first
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(1).get_state())
    assert not torch.equal(state, torch.get_rng_state())


def test_without_shuffling_the_order_is_that_of_the_split() -> None:
    assert order(make_view(False).batches(shuffle=False)) == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9],
    ]  # fmt: skip


def test_inputs_of_several_tensors_are_batched_together() -> None:
    view = make_view(labelled=True, dicts=True)
    assert len(view) == N
    for batch in view.batches():
        assert torch.equal(batch.x["a"][:, 0].long(), batch.x["b"])
        assert torch.equal(batch.y, batch.x["b"] + 1000)
        assert len(batch) == len(batch.x["b"])


def test_storage_counts_inputs_and_labels() -> None:
    assert make_view(labelled=False).nbytes == N * 3 * 4
    assert make_view(labelled=True).nbytes == N * 3 * 4 + N * 8
    assert make_view(labelled=False, dicts=True).nbytes == N * 3 * 4 + N * 8


def test_masks_may_be_kept_as_bytes_and_are_received_as_class_numbers() -> None:
    """An eighth of the memory, and the same batches, labels, storage and digest."""
    draw = torch.Generator().manual_seed(0)
    x, wide = torch.rand(9, 3, 8, 8, generator=draw), torch.randint(3, (9, 8, 8), generator=draw)
    wide[:, :2] = 255
    narrow = wide.to(torch.uint8)
    views = [DomainView("a", x, y, 4, torch.Generator().manual_seed(1)) for y in (wide, narrow)]
    for one, other in zip(*(view.batches(2) for view in views), strict=True):
        assert torch.equal(one.x, other.x)
        assert other.y.dtype == torch.int64
        assert torch.equal(one.y, other.y)
    expected, found = views
    assert torch.equal(found.y, wide)
    assert torch.equal(found.labels_at(torch.tensor([7, 2])), wide[[7, 2]])
    assert found.nbytes == expected.nbytes == x.nbytes + wide.nbytes
    whole = digest([inputs_digest(x), tensors_digest({"y": wide}), 4])
    assert source_digest(found) == source_digest(expected) == whole
    with pytest.raises(LabelsHidden):
        DomainView("a", x, None, 4, torch.Generator()).labels_at(torch.tensor([0]))


def test_a_split_needs_a_label_for_each_input() -> None:
    with pytest.raises(BenchError, match="3 inputs and 2 labels"):
        Split(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))


def test_what_is_drawn_aside_leaves_the_order_as_it_was() -> None:
    view, twin = make_view(True, 40, seed=3), make_view(True, 40, seed=3)
    running, alike = view.batches(2), twin.batches(2)
    assert order(islice(running, 10)) == order(islice(alike, 10))
    with view.preserve_rng():
        aside = order(view.batches())
    with view.preserve_rng():
        assert order(view.batches()) == aside
    assert order(running) == order(alike)  # a pass that was under way goes on as well
    assert torch.equal(view.rng_state, twin.rng_state)
    other = make_view(True, 40, seed=4)
    with other.preserve_rng():
        assert order(other.batches()) == aside  # whatever the seed


def test_the_order_comes_back_after_an_error() -> None:
    view = make_view(True, 40, seed=3)
    state = view.rng_state

    def fail() -> None:
        with view.preserve_rng():
            next(view.batches())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(view.rng_state, state)
