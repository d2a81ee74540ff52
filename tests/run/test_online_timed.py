"""The online-timed protocol: the stream does not wait, and the last ready model predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
from event_log import EventLog
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import registry
from bench.accelerator.determinism import seed_everything
from bench.conformance.method_fixture import MODEL, setting, source_model
from bench.contracts.data import DomainView, uncounted
from bench.contracts.method import Method, MethodConfig
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Domain, Split, Stream, StreamConfig
from bench.costs.device_profile import MeasuredDevice, load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, Unsupported
from bench.meters.base import Unavailable
from bench.run.protocols.base import Deployment, StreamResult, run_stream
from bench.run.validity import build_stream
from bench.run.window import Window
from bench.study.plan import Plan, make_cells
from bench.study.suite import load_suite
from bench.testing import TinyModel, TinyStream

NAMES = TinyStream().domain_names()
SAMPLES, TESTS = TinyStream().config.samples, TinyStream().config.tests


class Counts(Method):
    """Predicts in one launch and adapts in some; both tell a list how often it had adapted by then.

    On the toy device a launch takes a second.
    """

    def __init__(self, launches: int) -> None:
        super().__init__(MethodConfig())
        torch.manual_seed(0)
        self.model = TinyModel(nn.Linear(2, 2), "")
        self.launches = launches
        self.version = torch.zeros(1)
        Counts.events = EventLog()

    events: EventLog

    def predict(self, x: Tensor) -> Tensor:
        with uncounted():
            place, k = x[0].tolist()
            where = NAMES[int(place) - 1] if place else "source"
            what = "predict" if place and k < TinyStream.TEST_MARK else "test"
            Counts.events.append((what, where, int(self.version)))
        return x * 1.0

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            for _ in range(self.launches):
                batch.x + 1.0
            with uncounted():
                Counts.events.append(("adapt", domain.name, int(self.version)))
                self.version += 1


Run = Callable[..., StreamResult]


def streamed(method: Method, tracker: CostTracker, **protocol: Any) -> StreamResult:
    config = protocol_config({"name": "online-timed", "batch_size": 4, **protocol})
    stream = build_stream(TinyStream())
    return run_stream(config, Deployment(method, stream, tracker, False, 0))


@pytest.fixture(scope="session")
def run(make_device: Callable[..., Any]) -> Run:
    def go(method: Method, devices: Any = None, **protocol: Any) -> StreamResult:
        return streamed(
            method, make_tracker(devices or [make_device("toy")], method.stored), **protocol
        )

    return go


def told(what: str, where: str) -> list[int]:
    """With which version batches were predicted or adapted, or test splits evaluated."""
    return [version for kind, of, version in Counts.events if (kind, of) == (what, where)]


def order() -> str:
    """p: a batch is predicted; a: it is adapted on; a domain ends with a space."""
    stream = [(kind, where) for kind, where, _ in Counts.events if kind != "test"]
    return " ".join("".join(kind[0] for kind, of in stream if of == name) for name in NAMES)


# --- which batches are adapted on, and what predicts which ------------------------------

# Of an interval of 4 s the device predicts for 1 s and adapts for 3 s.


@pytest.mark.parametrize(
    ("launches", "expected"),
    [
        (1, "papapa papapa"),
        (3, "papapa papapa"),  # ready just when the next batch arrives
        (4, "pappa ppap"),  # 5 1/3 s: every other batch, across the domains
        (6, "pappa ppap"),
        (7, "papp papp"),
        (9, "papp papp"),
        (10, "papp ppap"),
        (1000, "papp ppp"),
    ],
)
def test_a_batch_that_arrives_while_the_method_is_busy_is_not_adapted_on(
    run: Run, launches: int, expected: str
) -> None:
    stream = run(Counts(launches), interval_s=4.0)
    assert order() == expected
    for stage, domain in zip(stream.stages, expected.split(), strict=True):
        assert stage.adapted == domain.count("a") / 3
        charge = stage.charges["toy"]
        assert charge.steps == domain.count("a")
        assert charge.time_s == launches * domain.count("a")  # where it began, until its end
        assert stage.adaptation_samples == SAMPLES
        assert stage.window_closed is False


def test_the_last_ready_model_predicts(run: Run) -> None:
    run(Counts(9), interval_s=4.0)  # ready 12 s later: with the fourth batch, of the next domain
    assert (told("predict", "first"), told("adapt", "first")) == ([0, 0, 0], [0])
    assert (told("predict", "second"), told("adapt", "second")) == ([1, 1, 1], [1])
    # On arrival and at the end of each domain, and both at the end of the stream.
    assert told("test", "first") == [0, 1, 2]
    assert told("test", "second") == [1, 2, 2]
    assert told("test", "source") == [0, 2]


def test_what_is_in_the_making_is_carried_over_into_the_next_domain(run: Run) -> None:
    run(Counts(6), interval_s=4.0)  # ready 8 s later: two batches
    # Batches 0, 2 and 4 of the stream are adapted on; from the third to the fourth the second
    # adaptation goes on, so that the second domain begins with the model of the first.
    assert told("predict", "first") == [0, 0, 1]
    assert told("predict", "second") == [1, 2, 2]
    assert told("test", "first") == [0, 1, 3]
    assert told("test", "second") == [1, 3, 3]


def test_what_is_not_ready_when_the_stream_ends_predicts_nothing(run: Run) -> None:
    run(Counts(10), interval_s=4.0)  # ready 13 1/3 s later: with the fifth batch
    assert told("predict", "first") == [0, 0, 0]
    assert told("predict", "second") == [0, 1, 1]
    assert told("adapt", "second") == [1]
    assert told("test", "second") == [0, 1, 1]
    assert told("test", "source") == [0, 1]


def test_all_domains_are_evaluated_with_what_is_ready_after_each(run: Run) -> None:
    stream = run(Counts(6), interval_s=4.0, evaluate_all=True)
    assert stream.matrix is not None
    assert len(stream.matrix) == 3
    assert told("test", "source") == [0, 0, 1, 3, 3]
    for i, stage in enumerate(stream.stages, start=1):
        assert stage.before == stream.matrix[i - 1][i]
        assert stage.after == stream.matrix[i][i]


def test_a_reset_drops_what_is_in_the_making(run: Run) -> None:
    stream = run(Counts(6), interval_s=4.0, reset="domain")
    assert order() == "pappa pappa"  # the second domain begins anew, with a method that is free
    for name in NAMES:
        assert told("predict", name) == [0, 0, 1]
        assert told("test", name) == [0, 1]  # and the third adaptation was not ready at the end
    assert [s.adapted for s in stream.stages] == [2 / 3, 2 / 3]


@given(
    interval=st.integers(2, 9),
    launches=st.integers(1, 60),
    batch_size=st.integers(1, SAMPLES),
    samples=st.integers(1, SAMPLES),
)
def test_any_costs_by_hand(
    run: Run, interval: int, launches: int, batch_size: int, samples: int
) -> None:
    # Inference was priced on batches of at most TESTS samples, one launch each.
    inference = Fraction(max(batch_size, TESTS), TESTS)
    protocol = {"interval_s": float(interval), "batch_size": batch_size, "samples": samples}
    if inference >= interval:
        with pytest.raises(Unsupported):
            run(Counts(launches), **protocol)
        return
    stream = run(Counts(launches), **protocol)
    batches = -(-samples // batch_size)
    done, ready_s, shown = 0, Fraction(0), 0
    for i, (name, stage) in enumerate(zip(NAMES, stream.stages, strict=True)):
        predicted, adapted = [], 0
        for now in range(i * batches * interval, (i + 1) * batches * interval, interval):
            if ready_s <= now:
                shown = done
            predicted.append(shown)
            if ready_s <= now:
                ready_s = now + launches / (1 - inference / interval)
                done, adapted = done + 1, adapted + 1
        assert told("predict", name) == predicted
        assert stage.adapted == adapted / batches


# --- a method that is fast enough -------------------------------------------------------


class Learns(Counts):
    """Trains with Adam, and keeps a moving average and a list.

    On the toy device it predicts in 2 s and adapts in 27.
    """

    seen: EventLog

    def __init__(self) -> None:
        super().__init__(1)
        type(self).seen = EventLog()
        self.optimizer = torch.optim.Adam(self.model.module.parameters(), lr=0.3)
        self.mean = torch.zeros(2)
        self.memory: list[Tensor] = []

    def predict(self, x: Tensor) -> Tensor:
        with uncounted():
            if x[0, 0] and x[0, 1] < TinyStream.TEST_MARK:  # the stream itself
                weights = self.model.module.weight.detach().flatten()
                type(self).seen.append(torch.cat([weights, self.mean]))
        return self.model(x - self.mean)

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            p = self.model(batch.x).softmax(dim=1)
            loss = -(p * p.log()).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.mean = 0.9 * self.mean + 0.1 * batch.x.mean(dim=0)
            self.memory.append(batch.x)


@pytest.mark.parametrize("reset", ["never", "domain"])
def test_a_method_that_is_always_ready_ends_as_under_online(run: Run, reset: str) -> None:
    def outcome(**protocol: Any) -> tuple[StreamResult, dict[str, Tensor]]:
        method = Learns()
        stream = run(method, evaluate_all=True, reset=reset, **protocol)
        return stream, {**method.model.module.state_dict(), "mean": method.mean}

    timed, ends = outcome(interval_s=1e6)
    online, weights = outcome(name="online", window_s=999.0)
    assert [s.adapted for s in timed.stages] == [1.0, 1.0]
    assert [s.adapted for s in online.stages] == [None, None]
    for stage in timed.stages:
        stage.adapted = None
    assert timed == online
    assert all(torch.equal(ends[name], weights[name]) for name in weights)


class Digits(Stream):
    """The two domains of the checks, 80 samples each."""

    classes = 10
    input_shape = (1, 16, 16)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return "digits"

    def source(self) -> Domain:
        source = setting().source
        x, y = source.x, source.y
        return Domain("source", Split(x[:80], y[:80]), Split(x[80:], y[80:]))

    def domain_names(self) -> tuple[str, ...]:
        return NAMES

    def domain(self, name: str) -> Domain:
        whole = setting().domains[NAMES.index(name)]
        test = Split(whole.test.x[:80], whole.test.y[:80])
        return Domain(name, Split(whole.adaptation.x[:80], whole.adaptation.y[:80]), test)


def digits(method_name: str, device: Any, **protocol: Any) -> StreamResult:
    seed_everything(0)
    method_class = registry.load("method", method_name)
    method = method_class(method_class.Config.model_validate(method_class.conformance_config))
    model, source = source_model(MODEL).clone(), setting().source
    generator = torch.Generator().manual_seed(0)
    method.prepare(model, DomainView("source", source.x[:80], source.y[:80], 20, generator))
    config = protocol_config({"batch_size": 20, **protocol})
    tracker = make_tracker([device], method.stored)
    stream = build_stream(Digits(StreamConfig(), 0))
    return run_stream(config, Deployment(method, stream, tracker, False, 0))


@pytest.mark.parametrize("name", ["feature-alignment", "rotta", "t3a"])
def test_registered_methods_end_as_under_online_if_they_are_always_ready(name: str) -> None:
    device = load_device("xavier-nx")
    online = digits(name, device, name="online")
    timed = digits(name, device, name="online-timed", interval_s=1e6)
    for stage in timed.stages:
        assert stage.adapted == 1.0
        stage.adapted = None
    assert timed == online


def test_weights_and_all_else_that_it_learned_are_of_one_time(run: Run) -> None:
    run(Learns(), interval_s=20.0)  # ready 27 s / 0.9 later: every other batch
    every = Learns.seen
    for older, again in (every[:2], every[2:4], every[4:]):
        assert torch.equal(older, again)
    run(Learns(), interval_s=1e6)
    assert torch.equal(Learns.seen[1], every[2])  # what it learned of the first batch
    assert len({tuple(seen.tolist()) for seen in Learns.seen}) == 6


def test_what_a_device_holds_twice_is_on_its_bill(make_device: Callable[..., Any]) -> None:
    class Forgets(Learns):
        def adapt(self, domain: DomainView, window: Window) -> None:
            for batch in window.steps(domain.batches()):
                work = torch.ones(1000)
                for _ in range(20):
                    work.mul_(0.5)
                with torch.no_grad():
                    self.model.module.weight += work.sum() * batch.x.mean()

    def peak(**protocol: Any) -> float:
        method = Forgets()
        tracker = make_tracker([make_device("toy")], method.stored)
        streamed(method, tracker, **protocol)
        return tracker.devices[0].peak_bytes

    alone = peak(interval_s=1e6)  # no batch arrives while it adapts
    assert alone == peak(name="online", window_s=999.0)
    weights, prediction = 4 * 2 * 2, 3 * 4 * (4 * 2)  # of four samples: inputs, less mean, outputs
    assert peak(interval_s=20.0) == alone + weights + prediction


def test_a_method_without_steps_is_always_free(run: Run) -> None:
    class Still(Counts):
        def adapt(self, domain: DomainView, window: Window) -> None:
            Counts.events.append(("adapt", domain.name, 0))

    stream = run(Still(0), interval_s=1.5)
    assert order() == "papapa papapa"
    assert [s.adapted for s in stream.stages] == [0.0, 0.0]  # there was nothing to adapt


# --- the device -------------------------------------------------------------------------


def test_a_device_that_cannot_predict_the_stream_is_told_so_with_the_cure(run: Run) -> None:
    with pytest.raises(Unsupported) as caught:
        run(Counts(1), interval_s=1.0)
    assert str(caught.value) == (
        "predicting a batch of 4 takes 1 s on toy, and one arrives every 1 s: the device cannot "
        "keep up with the stream; lengthen interval_s, or use a smaller model"
    )
    assert {kind for kind, _, _ in Counts.events} == {"test"}  # before the stream begins
    run(Counts(1), interval_s=1.01)


def test_a_price_for_fewer_samples_than_a_batch_is_scaled(run: Run) -> None:
    with pytest.raises(Unsupported, match=r"predicting a batch of 10 takes 2\.5 s"):
        run(Counts(1), interval_s=2.5, batch_size=10)  # tests have 4 samples, in one launch
    run(Counts(1), interval_s=2.6, batch_size=10)


def test_a_faster_device_adapts_on_more(run: Run, make_device: Callable[..., Any]) -> None:
    shares = []
    for launch in (0.125, 0.5, 1.0):
        stream = run(Counts(8), [make_device(launch=launch)], interval_s=2.0, batch_size=1)
        shares.append([stage.adapted for stage in stream.stages])
    # 8 launches, one of prediction: 1 s of 15/16, 4 s of 3/4, 8 s of 1/2 of the device.
    assert shares == [[1.0, 1.0], [0.4, 0.3], [0.2, 0.1]]


def test_devices_do_not_share_a_run(run: Run, make_device: Callable[..., Any]) -> None:
    with pytest.raises(BenchError, match="a, b share a run under online-timed"):
        run(Counts(1), [make_device("a"), make_device("b")], interval_s=4.0)


def test_each_device_gets_a_run_of_its_own() -> None:
    def groups(name: str, devices: list[str]) -> list[list[str]]:
        suite, path = load_suite(name)
        methods = [r for r in suite.methods if r.name == "tent"]
        changes = {
            "methods": methods,
            "supervised_references": [],
            "devices": devices,
            "seeds": [0],
        }
        suite = suite.model_copy(update=changes)
        cells = make_cells(suite, path)
        return [
            [c.device for c in group] for group in Plan(suite, path, cells, {}, cells).shared_runs()
        ]

    devices = ["agx-orin", "jetson-tx2"]
    assert groups("domain-shift-online", devices) == [devices]
    assert groups("real-time", devices) == [["agx-orin"], ["jetson-tx2"]]


def test_a_measured_device_is_timed_by_its_wall_clock() -> None:
    host = MeasuredDevice(name="host", title="this machine", cost="measured")
    relaxed = digits("tent", host, name="online-timed", interval_s=1e4)
    assert [s.adapted for s in relaxed.stages] == [1.0, 1.0]
    with pytest.raises(Unsupported, match="on host, and one arrives every 1e-06 s"):
        digits("tent", host, name="online-timed", interval_s=1e-6)


@pytest.mark.parametrize(
    ("protocol", "energy", "memory"),
    [
        ({"name": "periodic"}, "", ""),
        ({"name": "periodic", "reset": "domain"}, "", "copies of the method"),
        ({"name": "online"}, "predictions and adaptation alternate", ""),
        (
            {"name": "online-timed", "interval_s": 1e4},
            "predictions and adaptation alternate",
            "copies of the method",
        ),
    ],
)
def test_what_cannot_be_measured_under_a_protocol_is_said(
    protocol: dict[str, Any], energy: str, memory: str
) -> None:
    host = MeasuredDevice(name="host", title="this machine", cost="measured")
    method = Learns()
    tracker = make_tracker([host], method.stored, Unavailable("no tracker in this test", {}))
    (device,) = tracker.devices
    device.energy_unavailable = ""  # as if there were a tracker
    streamed(method, tracker, **protocol)
    assert energy in device.energy_unavailable
    assert bool(device.energy_unavailable) == bool(energy)
    assert memory in device.memory_unavailable
    assert bool(device.memory_unavailable) == bool(memory)


# --- the method's state -----------------------------------------------------------------


class Holds(Counts):
    """Holds a running stream of source batches."""

    def __init__(self) -> None:
        super().__init__(1)
        view = DomainView("source", torch.rand(8, 2), None, 2, torch.Generator())
        self.beside = view.infinite()


def test_a_method_whose_state_cannot_be_copied_is_told_so(run: Run) -> None:
    with pytest.raises(Unsupported, match=r"online-timed needs a method whose state can be copied"):
        run(Holds(), interval_s=4.0)


def test_a_predict_that_changes_the_older_model_is_refused(run: Run) -> None:
    class Leaks(Counts):
        def predict(self, x: Tensor) -> Tensor:
            if self.version == 0 and Counts.events[-1:] == [("adapt", "first", 0)]:
                self.model.module.weight.add_(1.0)
            return super().predict(x)

    with pytest.raises(BenchError, match="predict of Leaks changes the method's state"):
        run(Leaks(1000), interval_s=4.0)


def test_a_copied_view_shares_its_data_and_draws_for_itself() -> None:
    view = DomainView("source", torch.rand(9, 2), None, 3, torch.Generator().manual_seed(1))
    made = copy.deepcopy([view, view])
    assert made[0] is made[1]
    assert made[0] is not view
    assert made[0].x.data_ptr() == view.x.data_ptr()
    drawn = [batch.sample_ids.tolist() for batch in made[0].batches()]
    assert drawn == [batch.sample_ids.tolist() for batch in view.batches()]
    view.close("over")
    assert len(made[0]) == 9


# --- the configuration ------------------------------------------------------------------


def test_cells_of_the_other_protocols_hold_what_they_held() -> None:
    rest = {"window_s": 60.0, "batch_size": 64, "samples": None, "reset": "never",
            "evaluate_all": False}  # fmt: skip
    for mode in ("json", "python"):
        for name in ("periodic", "online"):
            dumped = protocol_config({"name": name}).model_dump(mode=mode)
            assert list(dumped.items()) == list(({"name": name} | rest).items())
    suite, path = load_suite("smoke")
    assert make_cells(suite, path)[0].protocol == {
        "name": "periodic", "window_s": 60.0, "batch_size": 50, "samples": 100, "reset": "never",
        "evaluate_all": False,
    }  # fmt: skip


def test_the_interval_is_part_of_the_identity_and_a_window_is_not() -> None:
    suite, path = load_suite("real-time")
    cells = make_cells(suite, path)
    protocol = cells[0].protocol
    assert protocol == {
        "name": "online-timed", "interval_s": suite.protocol["interval_s"], "batch_size": 50,
        "samples": 200, "reset": "never", "evaluate_all": False,
    }  # fmt: skip
    assert protocol_config(protocol).model_dump() == protocol
    slower = suite.model_copy(update={"protocol": {**suite.protocol, "interval_s": 1}})
    assert not {c.identity for c in make_cells(slower, path)} & {c.identity for c in cells}


@pytest.mark.parametrize(
    ("fields", "key", "part"),
    [
        ({"name": "online-timed"}, "interval_s", "needs the seconds from one batch to the next"),
        ({"interval_s": 1.0}, "interval_s", "under periodic the stream waits; remove it, or take"),
        ({"name": "online", "interval_s": 1.0}, "interval_s", "under online the stream waits"),
        ({"name": "online-timed", "interval_s": 0.0}, "interval_s", "greater than 0"),
        ({"name": "online-timed", "interval_s": float("inf")}, "interval_s", "finite"),
        (
            {"name": "online-timed", "interval_s": 1.0, "window_s": 60.0},
            "window_s", "online-timed has no window, the stream limits adaptation; remove it",
        ),
    ],
)  # fmt: skip
def test_a_protocol_that_does_not_fit_names_the_key_and_the_cure(
    fields: dict[str, Any], key: str, part: str, tmp_path: Path
) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        protocol_config(fields)
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    assert part in error["msg"]
    suite, _ = load_suite("smoke")
    path = tmp_path / "mine.yaml"
    with pytest.raises(BenchError) as planned:
        make_cells(suite.model_copy(update={"protocol": fields}), path)
    assert str(planned.value).startswith(f"suite {path}: protocol: key '{key}': ")
    assert "\n" not in str(planned.value)
