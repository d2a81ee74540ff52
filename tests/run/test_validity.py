"""What a stream's data and a method's outputs must look like: in a run, no wrong number is ok."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.contracts.stream import Domain, Split
from bench.errors import BenchError
from bench.run.validity import build_stream
from bench.testing import CountingMethod, LearningMethod, TinyStream, TinyStreamConfig, run_method


class Odd(TinyStream):
    """A tiny stream of which one domain is changed by a function."""

    def __init__(self, change: Any, place: str = "second", **config: Any) -> None:
        super().__init__(TinyStreamConfig(**config))
        self._change = change
        self._place = place

    def domain(self, name: str) -> Domain:
        domain = super().domain(name)
        return self._change(domain) if name == self._place else domain

    def source(self) -> Domain:
        domain = super().source()
        return self._change(domain) if self._place == "source" else domain


def replaced(part: str, **changes: Any) -> Any:
    def change(domain: Domain) -> Domain:
        split = getattr(domain, part)
        made = Split(changes.get("x", lambda x: x)(split.x), changes.get("y", lambda y: y)(split.y))
        both = {"adaptation": domain.adaptation, "test": domain.test, part: made}
        return Domain(domain.name, **both)

    return change


# --- streams -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (replaced("test", x=lambda x: x[:0], y=lambda y: y[:0]), "its test split is empty"),
        (
            replaced("adaptation", x=lambda x: x[:0], y=lambda y: y[:0]),
            "its adaptation split is empty",
        ),
        (replaced("test", y=lambda y: y + 1), "labels from 1 to 2; 2 classes are numbered from 0"),
        (replaced("test", y=lambda y: y - 1), "labels from -1 to 0"),
        (replaced("adaptation", y=lambda y: y * 5), "labels from 0 to 5"),
        (replaced("test", y=lambda y: y[:, None]), r"labels of shape \(4, 1\), not \(4,\)"),
        (replaced("test", y=lambda y: y.float()), "labels of type torch.float32"),
        (replaced("test", y=lambda y: y.numpy()), "labels of type ndarray"),
        (
            replaced("test", x=lambda x: x.clone().index_fill_(0, torch.tensor([1, 3]), torch.nan)),
            "2 of 4 samples with inputs that are not finite",
        ),
        (replaced("adaptation", x=lambda x: x / 0), "10 of 10 samples with inputs"),
        (
            replaced("test", x=lambda x: x[:, :, None]),
            r"samples of shape \(2, 1\), and the stream declares input_shape = \(2,\)",
        ),
        (
            lambda d: Domain(d.name, d.adaptation, d.adaptation),
            "10 of 10 test samples are also adaptation samples; the splits must be disjoint",
        ),
        (
            replaced("test", x=lambda x: torch.cat([x[1:], torch.tensor([[2.0, 3.0]])])),
            "1 of 4 test samples are also adaptation samples",
        ),
    ],
)
@pytest.mark.parametrize("place", ["second", "source"])
def test_a_wrong_split_is_named_before_anything_runs(
    change: Any, complaint: str, place: str
) -> None:
    if place == "source" and "1 of 4" in complaint:
        change = replaced("test", x=lambda x: torch.cat([x[1:], torch.tensor([[0.0, 3.0]])]))
    who = "source" if place == "source" else "domain 'second'"
    method = CountingMethod()
    with pytest.raises(BenchError, match=rf"{who}.*{complaint}"):
        run_method(method, stream=Odd(change, place))
    assert method.given == []


def test_a_test_sample_that_another_domain_learns_from_is_found() -> None:
    first = TinyStream().domain("first").adaptation
    leaking = Odd(replaced("test", x=lambda x: torch.cat([x[2:], first.x[:2]])))
    with pytest.raises(BenchError, match=r"domain 'second': 2 of 4 .* samples of domain 'first'"):
        build_stream(leaking)


def test_inputs_whose_sum_is_too_large_for_their_type_are_finite() -> None:
    build_stream(Odd(replaced("test", x=lambda x: 1e38 * (1 + x.abs() / x.abs().max()))))


def test_a_stream_may_say_that_samples_repeat() -> None:
    class Repeats(Odd):
        repeats_samples = True

    build_stream(Repeats(lambda d: Domain(d.name, d.adaptation, d.adaptation)))


def test_two_domains_of_one_name_and_a_domain_of_another_name_are_refused() -> None:
    class Twins(TinyStream):
        NAMES = ("first", "first", "third")

    class Renamed(TinyStream):
        def domain(self, name: str) -> Domain:
            domain = super().domain(name)
            return Domain("else", domain.adaptation, domain.test)

    with pytest.raises(BenchError, match="Twins has 2 domains named 'first'"):
        build_stream(Twins())
    with pytest.raises(BenchError, match="its domain 'first' says that its name is 'else'"):
        build_stream(Renamed())


# --- outputs -------------------------------------------------------------------------------


class Says(LearningMethod):
    """Predicts what a function makes of the logits, before or after it has adapted."""

    def __init__(self, change: Any, late: bool = False) -> None:
        super().__init__()
        self.late = late
        self.adapted = False
        type(self).change = staticmethod(change)

    def adapt(self, domain: Any, window: Any) -> None:
        super().adapt(domain, window)
        self.adapted = True

    def predict(self, x: Any) -> Any:
        logits = super().predict(x)
        return type(self).change(logits) if self.adapted or not self.late else logits


WRONG = [
    (lambda o: o[..., None], r"shape \(4, 2, 1\), not \(4, 2\) = \(samples, classes\)"),
    (lambda o: o.argmax(1), r"shape \(4,\), not \(4, 2\).*return logits, not class numbers"),
    (lambda o: o.argmax(1, keepdim=True), r"shape \(4, 1\), not \(4, 2\)"),
    (lambda o: torch.cat([o, o], 1), r"shape \(4, 4\), not \(4, 2\)"),
    (lambda o: o.t(), r"shape \(2, 4\), not \(4, 2\)"),
    (lambda o: o.sum(), r"shape \(\), not \(4, 2\)"),
    (lambda o: o.numpy(), "gave a ndarray"),
    (lambda o: None, "gave a NoneType"),
    (lambda o: [o], "gave a list"),
    (lambda o: o.long(), "outputs of type torch.int64"),
    (lambda o: o > 0, "outputs of type torch.bool"),
    (lambda o: o * torch.nan, "8 of 8 outputs that are not finite"),
    (lambda o: o.clone().fill_diagonal_(torch.inf), "2 of 8 outputs that are not finite"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG)
def test_outputs_that_are_not_finite_logits_end_the_run(change: Any, complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint) as early:
        run_method(Says(change), batch_size=5)
    assert "on the test split of 'source' after 0 steps" in str(early.value)
    with pytest.raises(BenchError, match=complaint) as late:
        run_method(Says(change, late=True), batch_size=5)
    assert "on the test split of 'first' after 2 steps" in str(late.value)
    assert "\n" not in str(late.value)


@pytest.mark.parametrize("name", ["online", "online-timed"])
def test_outputs_on_a_stream_are_looked_at_too(name: str) -> None:
    more = {"interval_s": 1000.0} if name == "online-timed" else {}
    with pytest.raises(BenchError, match="batch 2 of the stream of 'first' after 1 steps"):
        run_method(Says(lambda o: o * torch.nan, late=True), name=name, batch_size=5, **more)


def test_a_method_whose_weights_diverge_fails() -> None:
    class Diverges(LearningMethod):
        def adapt(self, domain: Any, window: Any) -> None:
            for batch in window.steps(domain.batches()):
                with torch.no_grad():
                    self.model.module.head.weight.mul_(batch.x.sum() * 1e38)

    with pytest.raises(
        BenchError, match=r"outputs that are not finite on the test split of 'first'"
    ):
        run_method(Diverges(), batch_size=5)


shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), max_size=3).map(tuple)
kinds = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
values = st.sampled_from([0.0, 1.0, -3.5, 1e38, float("nan"), float("inf")])
things = st.one_of(
    st.builds(
        lambda shape, dtype, value: torch.full(shape, value).to(dtype), shapes, kinds, values
    ),
    st.builds(lambda shape, value: np.full(shape, value), shapes, values),
    st.none(), st.integers(), st.text(max_size=3), st.lists(st.floats(), max_size=4),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
)  # fmt: skip


def fuzz_outputs(thing: Any) -> None:
    """A run that predicts ``thing`` has accuracies in [0, 1] or ends with one line."""
    try:
        result = run_method(Says(lambda o: thing), batch_size=4)
    except BenchError as error:
        line = str(error)
        assert "\n" not in line
    else:
        assert all(0 <= s.before <= 1 and 0 <= s.after <= 1 for s in result.stages)
        assert isinstance(thing, Tensor)
        assert thing.shape == (4, 2)
        assert thing.isfinite().all()


@settings(max_examples=60)
@given(thing=things)
def test_any_output_ends_in_an_accuracy_or_a_reason(thing: Any) -> None:
    fuzz_outputs(thing)


@pytest.mark.slow
@settings(max_examples=500)
@given(thing=things)
def test_any_output_ends_in_an_accuracy_or_a_reason_500_times(thing: Any) -> None:
    fuzz_outputs(thing)


def test_masks_of_another_size_than_their_images_are_refused() -> None:
    class Masks(TinyStream):
        task = "segmentation"
        input_shape = (3, 8, 10)

        def source(self) -> Domain:
            x = torch.rand(4, 3, 8, 10)
            return Domain("source", *(Split(x + i, torch.zeros(4, 8, 9).long()) for i in (0, 1)))

    said = r"source: its adaptation split has masks of \(8, 9\) pixels \(height, width\), and ima"
    with pytest.raises(BenchError, match=said):
        build_stream(Masks(TinyStreamConfig()))
