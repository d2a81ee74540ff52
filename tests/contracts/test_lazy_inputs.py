"""Inputs that are read when a batch needs them are to everybody what the same tensors are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts.data import DomainView, Inputs, LazyInputs, SampleType, subset, take
from bench.contracts.model import inputs_digest, source_digest
from bench.contracts.stream import Domain, Split
from bench.errors import BenchError
from bench.operators.live_memory import live_bytes
from bench.run.validity import build_stream
from bench.snapshots.content import content_of
from bench.testing import LearningMethod, TinyStream, run_method


class Kept(LazyInputs):
    """A tensor that is handed out sample by sample; ``reads`` remembers which."""

    def __init__(self, x: Tensor, width: int | None = None) -> None:
        super().__init__(torch.arange(len(x)))
        self.all = x
        self.reads: list[list[int]] = []
        self.width = x.shape[1] if width is None else width

    def read(self, positions: Tensor) -> Inputs:
        self.reads.append(positions.tolist())
        return self.all[positions]

    def names(self, positions: Tensor) -> list[str]:
        return [str(self.all[i].tolist()) for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((self.width,), torch.float32)}


class LazyStream(TinyStream):
    """A tiny stream whose inputs are lazy."""

    def _split(self, *arguments: Any) -> Split:
        split = super()._split(*arguments)
        return Split(Kept(split.x), split.y)


def lazy(n: int = 10) -> Kept:
    return Kept(torch.arange(2.0 * n).reshape(n, 2))


def test_a_view_reads_each_batch_when_it_is_asked_for() -> None:
    x = lazy()
    view = DomainView("d", x, torch.arange(10), 4, torch.Generator().manual_seed(0))
    assert (len(view), view.nbytes, x.reads) == (10, 10 * 2 * 4 + 10 * 8, [])
    batches = iter(view.batches())
    batch = next(batches)
    assert x.reads == [batch.sample_ids.tolist()]
    assert torch.equal(batch.x, x.all[batch.sample_ids])
    assert [len(b) for b in batches] == [4, 2]


def test_a_subset_reads_nothing_and_counts_from_its_own_start() -> None:
    x = lazy()
    part = subset(subset(x, torch.tensor([7, 3, 5])), torch.tensor([2, 0]))
    assert (len(part), x.reads) == (2, [])
    assert torch.equal(take(part, torch.tensor([1, 0])), x.all[[7, 5]])
    assert part.sample_names() == ["[10.0, 11.0]", "[14.0, 15.0]"]


def test_the_digest_is_that_of_the_samples_in_their_order() -> None:
    x = lazy()
    forward, back = x.subset(torch.tensor([1, 2])), x.subset(torch.tensor([2, 1]))
    assert inputs_digest(forward) == inputs_digest(lazy().subset(torch.tensor([1, 2])))
    assert inputs_digest(forward) != inputs_digest(back)
    y, generator = torch.zeros(2, dtype=torch.int64), torch.Generator()
    views = [DomainView("source", each, y, 2, generator) for each in (forward, back)]
    assert source_digest(views[0]) != source_digest(views[1])
    assert x.reads == []


def test_a_method_that_holds_lazy_inputs_holds_no_memory_of_their_samples() -> None:
    x = lazy()
    held = {"x": x}
    assert live_bytes(held) == 0
    before = content_of(held).all
    take(x, torch.arange(3))  # a cache may have filled
    assert content_of(held).all == before
    held["x"] = x.subset(torch.tensor([1]))
    assert content_of(held).all != before


@pytest.mark.parametrize("protocol", ["periodic", "online"])
def test_a_run_on_lazy_inputs_gives_the_numbers_of_the_same_tensors(protocol: str) -> None:
    results = [
        run_method(LearningMethod(), stream=stream(), name=protocol, batch_size=4, samples=7)
        for stream in (TinyStream, LazyStream)
    ]
    scores = [[(s.before, s.after) for s in r.stages] for r in results]
    charges = [[s.charges for s in r.stages] for r in results]
    assert scores[0] == scores[1]
    assert repr(charges[0]) == repr(charges[1])


def test_reading_is_not_charged() -> None:
    class Costly(Kept):
        def read(self, positions: Tensor) -> Inputs:
            return super().read(positions) @ torch.eye(2)

    class CostlyStream(LazyStream):
        def _split(self, *arguments: Any) -> Split:
            split = super()._split(*arguments)
            return Split(Costly(split.x.all), split.y)

    plain, costly = (run_method(LearningMethod(), stream=s()) for s in (TinyStream, CostlyStream))
    assert repr([s.charges for s in plain.stages]) == repr([s.charges for s in costly.stages])


class Changed(LazyStream):
    """A stream with one changed domain."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def domain(self, name: str) -> Domain:
        domain = super().domain(name)
        return self.change(domain) if name == "second" else domain


def test_a_sample_that_is_learned_and_tested_is_found_by_its_name() -> None:
    def leak(domain: Domain) -> Domain:
        return Domain(domain.name, domain.adaptation, domain.adaptation)

    with pytest.raises(BenchError, match="10 of 10 test samples are also adaptation samples"):
        build_stream(Changed(leak))


def test_few_samples_are_read_to_check_a_stream() -> None:
    built = build_stream(LazyStream())
    assert [len(r) for r in built.source.adaptation.x.reads] == [8]


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (lambda x: Kept(x, width=3), "its test split says that samples are .*correct sample_types"),
        (lambda x: Kept(x * float("nan")), "4 of 4 samples with inputs that are not finite"),
        (lambda x: Kept(torch.cat([x, x], 1)), r"samples of shape \(4,\)"),
    ],
)
def test_lazy_inputs_that_are_not_as_declared_are_refused(x: Any, complaint: str) -> None:
    def change(domain: Domain) -> Domain:
        return Domain(domain.name, domain.adaptation, Split(x(domain.test.x.all), domain.test.y))

    with pytest.raises(BenchError, match=complaint):
        build_stream(Changed(change))


def test_a_copied_view_shares_the_samples() -> None:
    view = DomainView("d", lazy(), None, 4, torch.Generator())
    assert copy.deepcopy(view).x is view.x
