"""The device: windows that close by the device's clock, and devices that part company."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from bench.accelerator.choice import Kind
from bench.contracts.data import Batch, DomainView
from bench.costs import measured
from bench.costs.device_profile import MeasuredDevice, ModelledDevice, load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported
from bench.meters import process_memory
from bench.meters.base import Unavailable
from bench.run.window import Window

Device = Callable[..., Any]
X = torch.rand(2)


def batches(n: int = 100, size: int = 2) -> Iterator[Batch]:
    view = DomainView("d", torch.rand(n * size, 3), None, size, torch.Generator())
    return view.batches(shuffle=False)


def launch(x: Tensor, times: int = 1) -> None:
    """``times`` operators: as many seconds on the toy device."""
    for _ in range(times):
        x + 1.0


def nothing() -> tuple[()]:
    return ()


def spend(
    window: Window, launches: int = 1, n: int = 100, kind: str = "adapt", size: int = 2
) -> int:
    """Steps of ``launches`` operators until the window closes; how many there were."""
    steps = 0
    for batch in window.steps(batches(n, size), kind):
        launch(batch.x, launches)
        steps += 1
    return steps


@pytest.fixture(autouse=True)
def _clean_stack() -> Iterator[None]:
    yield
    assert _get_current_dispatch_mode_stack() == []


# --- one device -------------------------------------------------------------------


@given(budget=st.integers(1, 60), launches=st.integers(1, 7), quarter=st.integers(0, 3))
def test_a_window_closes_after_exactly_floor_of_window_over_step(
    make_device: Device, budget: int, launches: int, quarter: int
) -> None:
    seconds = budget + quarter / 4
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, seconds)
    if launches > seconds:
        with pytest.raises(Unsupported):
            spend(window, launches)
        return
    steps = spend(window, launches)
    assert steps == int(seconds // launches)
    assert window.closed
    charge = tracker.devices[0].window
    assert (charge.time_s, charge.steps) == (steps * launches, steps)
    assert tracker.counts == {"adapt": steps}
    assert tracker.launches == steps * launches


def test_a_step_that_fills_the_window_to_the_end_is_taken(make_device: Device) -> None:
    assert spend(Window(make_tracker([make_device()], nothing), 6.0), 2) == 3


def test_a_window_is_filled_to_the_last_step_whatever_the_rounding_of_its_seconds(
    make_device: Device,
) -> None:
    """60 s / 0.1 s is 600 steps."""
    tracker = make_tracker([make_device(launch=0.1)], nothing)
    assert spend(Window(tracker, 60.0), n=700) == 600


def test_data_that_end_before_the_window_leave_it_open(make_device: Device) -> None:
    window = Window(make_tracker([make_device()], nothing), 10.0)
    assert spend(window, n=4) == 4
    assert not window.closed


def test_a_window_that_is_closed_gives_no_more_steps(make_device: Device) -> None:
    window = Window(make_tracker([make_device()], nothing), 3.0)
    assert spend(window) == 3
    assert spend(window) == 0
    assert spend(window, kind="another") == 0


def test_a_new_window_starts_at_zero_and_knows_the_price(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    for _ in range(3):
        window = Window(tracker, 4.5)
        assert spend(window) == 4
        window.close()
    assert tracker.devices[0].window.time_s == 4.0
    assert tracker.counts["adapt"] == 12


def test_kinds_and_shapes_have_prices_of_their_own(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 1000.0)
    spend(window, 1, n=4, kind="a")
    spend(window, 5, n=4, kind="b")
    spend(window, 7, n=4, kind="a", size=3)
    assert tracker.devices[0].window.time_s == 4 * 1 + 4 * 5 + 4 * 7
    assert tracker.counts == {"a": 8, "b": 4}


def test_the_time_of_each_kind_adds_up_over_windows_and_steps_that_are_cut_short(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device(), make_device(launch=2.0, name="slow")], nothing)
    total: Counter[str] = Counter()
    for _ in range(2):
        with Window(tracker, 1000.0) as window:
            spend(window, 1, n=4, kind="a")
            with window.section("build"):
                launch(X, 3)
            for batch in window.steps(batches(9), "b"):
                launch(batch.x, 5)
                break
        total.update({device.name: device.window.time_s for device in tracker.devices})
    first, slow = tracker.devices
    assert first.time_by_kind == {"a": 2 * 4, "build": 2 * 3, "b": 2 * 5}
    assert slow.time_by_kind == {"a": 4 * 4, "build": 4 * 3, "b": 4 * 5}
    for device in tracker.devices:
        assert sum(device.time_by_kind.values()) == total[device.name]
    assert tracker.counts.keys() == first.time_by_kind.keys()


def test_the_first_two_steps_are_counted_and_the_others_charged_as_the_second(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 1000.0)
    counted = []
    for i, batch in enumerate(window.steps(batches(6))):
        counted.append(len(_get_current_dispatch_mode_stack()))
        launch(batch.x, 10 - i)
    assert counted == [1, 1, 0, 0, 0, 0]
    assert tracker.devices[0].window.time_s == 10 + 9 + 4 * 9
    assert tracker.launches == 10 + 9 + 4 * 9


def test_work_that_depends_on_the_data_is_counted_each_time(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 1000.0)
    for i, batch in enumerate(window.steps(batches(6), data_dependent=True)):
        launch(batch.x, i + 1)
    assert tracker.devices[0].window.time_s == 1 + 2 + 3 + 4 + 5 + 6


def test_optimizer_state_of_the_first_step_is_on_the_peak(make_device: Device) -> None:
    weight = nn.Parameter(torch.rand(1000))
    optimizer = torch.optim.Adam([weight])
    tracker = make_tracker([make_device(launch=1e-9)], lambda: [weight, optimizer])
    window = Window(tracker, 1000.0)
    for batch in window.steps(batches(3)):
        (weight * batch.x.mean()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert tracker.devices[0].peak_bytes >= 4 * 4 * 1000  # weight, gradient, two moments
    assert tracker.devices[0].peak_bytes < 4 * 8 * 1000


def test_energy_is_idle_power_over_the_time(make_device: Device) -> None:
    tracker = make_tracker([make_device(idle=7.0)], nothing)
    spend(Window(tracker, 5.5))
    assert tracker.devices[0].window.energy_j == pytest.approx(7.0 * 5.0)


def test_a_section_is_charged_each_time_even_past_the_end(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 5.5)
    with window.section("build"):
        launch(X, 2)
    with window.section("build"):
        launch(X, 1)
    assert tracker.devices[0].window.time_s == 3.0
    assert spend(window) == 2
    with window.section("build"):
        launch(X, 4)
    assert tracker.devices[0].window.time_s == 3.0 + 2.0 + 4.0
    assert tracker.counts == {"build": 3, "adapt": 2}


def test_a_library_that_owns_its_loop_is_charged_the_same(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 6.5)
    steps = 0
    batch = Batch(torch.rand(2, 3), torch.arange(2))
    fits = True
    while fits:
        with window.step(batch) as fits:
            if fits:
                launch(batch.x, 2)
                steps += 1
    assert steps == 3
    assert window.closed
    assert tracker.devices[0].window.time_s == 6.0


def test_a_single_step_that_fails_is_charged_what_it_did_and_its_error_passes(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 6.5)
    batch = Batch(torch.rand(2, 3), torch.arange(2))

    def fail() -> None:
        with window.step(batch):
            launch(batch.x, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not tracker.is_open
    assert tracker.devices[0].window.time_s == 2.0
    with window.step(batch) as fits:  # the price of a whole step is not known yet
        assert fits
        launch(batch.x, 3)
    with window.step(batch) as fits:
        assert not fits
    assert (tracker.devices[0].window.time_s, window.closed) == (5.0, True)


def test_inputs_of_several_tensors_have_a_shape(make_device: Device) -> None:
    x = {"a": torch.rand(6, 2), "b": torch.zeros(6)}
    view = DomainView("d", x, None, 2, torch.Generator())
    tracker = make_tracker([make_device()], nothing)
    for batch in Window(tracker, 100.0).steps(view.batches()):
        launch(batch.x["a"])
    assert tracker.devices[0].window.time_s == 3.0


# --- steps that do not end as they should ----------------------------------------------


def test_steps_do_not_nest(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)

    def nest() -> None:
        for _ in window.steps(batches(), "outer"):
            spend(window, kind="inner")

    with pytest.raises(BenchError, match="step 'inner' begins inside step 'outer': do not nest"):
        nest()
    window.close()


def test_leaving_the_loop_charges_the_step_and_leaves_no_counting(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)
    for batch in window.steps(batches()):
        launch(batch.x, 3)
        break
    assert _get_current_dispatch_mode_stack() == []
    assert tracker.devices[0].window.time_s == 3.0
    assert tracker.devices[0].window.steps == 1
    with window.section("after"):
        launch(X)
    assert tracker.devices[0].window.time_s == 4.0


def test_leaving_a_loop_whose_iterator_is_kept_charges_the_step_too(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)
    steps = window.steps(batches())
    for batch in steps:
        launch(batch.x, 3)
        break
    window.close()
    assert _get_current_dispatch_mode_stack() == []
    assert tracker.devices[0].window.time_s == 3.0


def test_an_exception_in_the_loop_leaves_no_counting(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)

    def fail() -> None:
        for batch in window.steps(batches()):
            launch(batch.x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    window.close()  # as the protocol does, while the exception still holds the loop's frame
    assert caught.value is not None
    assert _get_current_dispatch_mode_stack() == []


def test_an_exception_that_the_method_handles_ends_the_step(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)
    try:
        for batch in window.steps(batches()):
            launch(batch.x, 2)
            raise KeyError
    except KeyError:
        pass
    assert _get_current_dispatch_mode_stack() == []
    assert tracker.devices[0].window.time_s == 2.0
    assert spend(window, 2, n=3) == 3


def test_an_exception_in_a_section_is_charged_and_passed_on(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)

    def fail() -> None:
        with window.section("build"):
            launch(X, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _get_current_dispatch_mode_stack() == []
    assert tracker.devices[0].window.time_s == 2.0


def test_a_step_cut_short_does_not_set_the_price_of_whole_ones(make_device: Device) -> None:
    """A method that stops early in its second step works on in the next window."""
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 100.0)
    for i, batch in enumerate(window.steps(batches())):
        launch(batch.x)
        if i == 1:
            break
        launch(batch.x, 3)
    window.close()
    window = Window(tracker, 100.0)
    assert spend(window, 4, n=10) == 10
    assert tracker.devices[0].window.time_s == 40.0


# --- devices that cannot ------------------------------------------------------------


def test_a_window_shorter_than_a_step_is_unsupported(make_device: Device) -> None:
    window = Window(make_tracker([make_device("slow")], nothing), 3.0)
    with pytest.raises(Unsupported) as caught:
        spend(window, 4)
    assert str(caught.value) == (
        "one adapt step takes 4 s on slow, longer than the whole window of 3 s; "
        "lengthen window_s or use a smaller batch"
    )


def test_a_device_without_the_memory_leaves_and_the_other_goes_on(make_device: Device) -> None:
    small = make_device("small", memory=1000.0, runtime=100.0)
    tracker = make_tracker([small, make_device("large")], nothing)
    window = Window(tracker, 5.5)
    steps = 0
    for batch in window.steps(batches()):
        torch.ones(400) + batch.x.sum()
        steps += 1
    assert [b.name for b in tracker.devices] == ["large"]
    assert tracker.deferred == []
    assert set(tracker.dropped) == {"small"}
    assert isinstance(tracker.dropped["small"], DeviceOutOfMemory)
    text = str(tracker.dropped["small"])
    assert "a adapt step needs" in text or "an adapt step needs" in text
    assert "on small, which leaves 0.0 MB to applications" in text
    assert steps == 1  # three launches each: fill, sum, add
    assert tracker.devices[0].window.time_s == 3.0


def test_memory_that_just_suffices_is_enough(make_device: Device) -> None:
    def run(memory: float) -> CostTracker:
        tracker = make_tracker([make_device(memory=memory, runtime=100.0)], nothing)
        for _ in Window(tracker, 100.0).steps(batches(2)):
            torch.ones(250)
        return tracker

    assert run(1100.0).devices[0].peak_bytes == 1000.0
    with pytest.raises(DeviceOutOfMemory):
        run(1099.0)


def test_what_the_process_takes_decides_where_it_is_known(make_device: Device) -> None:
    def run(memory: float) -> CostTracker:
        part = {"source": "made up for this test", "confidence": "estimate"}
        known = {"stored": 1.5, "step": 2.0, "convolution": 1.0, "added": 7.0}
        profile = make_device(memory=memory, runtime=100.0).model_dump()
        profile["resident_memory"] = {k: {"value": v, **part} for k, v in known.items()}
        kept = [torch.ones(100)]
        tracker = make_tracker([ModelledDevice.model_validate(profile)], lambda: kept)
        with Window(tracker, 100.0) as window:
            for _ in window.steps(batches(2)):
                torch.ones(250)
            kept.append(torch.ones(50))
        tracker.finish()
        return tracker

    (device,) = run(1e4).devices
    assert (device.peak_bytes, device.resident_bytes) == (1600, 1.5 * 600 + 2.0 * 1000 + 7)
    run(100 + 2907)
    with pytest.raises(DeviceOutOfMemory, match=r"adaptation needs 0.0 MB"):
        run(100 + 2906)
    with pytest.raises(DeviceOutOfMemory, match=r"a adapt step needs"):
        run(100 + 2600)


def test_an_optimizer_in_a_local_variable_is_in_memory(make_device: Device) -> None:
    module = nn.Linear(100, 10, bias=False)

    def peak(kept: Any) -> float:
        tracker = make_tracker([make_device()], lambda: kept)
        optimizer = torch.optim.Adam(module.parameters())
        if kept is not module:
            kept.append(optimizer)
        with Window(tracker, 100.0) as window:
            for _ in window.steps(batches(3)):
                optimizer.zero_grad()
                module(torch.ones(2, 100)).sum().backward()
                optimizer.step()
        tracker.finish()
        return tracker.devices[0].peak_bytes

    assert peak(module) == peak([module]) > 4 * 4000  # weights, gradients and two moments


def test_a_first_step_that_leaves_state_is_not_the_price_of_its_window(make_device: Device) -> None:
    kept: list[Tensor] = []
    tracker = make_tracker([make_device()], lambda: kept)
    for _ in range(3):
        kept.clear()  # a new optimizer for each domain
        with Window(tracker, 1e3) as window:
            for _ in window.steps(batches(5)):
                if not kept:
                    kept.append(torch.ones(10))  # one launch more
                launch(kept[0], 2)
        assert tracker.devices[0].window.time_s == 5 * 2.0 + 1.0


def test_a_step_left_by_break_is_no_guide_to_others_on_a_measured_device() -> None:
    tracker = make_tracker([load_device("host")], nothing, Unavailable("no meter here", {}))
    with Window(tracker, 100.0) as window:
        for _ in window.steps(batches(1)):
            time.sleep(0.02)
        expected = tracker.devices[0].expected_s(("adapt", (2, 3)))
        for _ in window.steps(batches(1)):
            break
        assert tracker.devices[0].expected_s(("adapt", (2, 3))) == expected > 0.02


def test_what_is_held_twice_counts_from_the_next_look_on(make_device: Device) -> None:
    tracker = make_tracker([make_device()], nothing)
    with Window(tracker, 100.0) as window:
        for _ in window.steps(batches(2)):
            torch.ones(250)
        tracker.add_double_buffer(300)
        tracker.add_double_buffer(200)
    tracker.finish()
    assert tracker.devices[0].peak_bytes == 1300
    assert tracker.devices[0].resident_bytes is None  # the profile does not know


def test_the_only_device_out_of_memory_ends_the_run_with_its_reason(make_device: Device) -> None:
    tracker = make_tracker([make_device("small", memory=100.0)], nothing)

    def adapt() -> None:
        for _ in Window(tracker, 100.0).steps(batches()):
            torch.ones(1000)

    with pytest.raises(DeviceOutOfMemory, match="on small"):
        adapt()
    assert tracker.devices == []


def test_memory_that_grows_after_the_counted_steps_is_on_the_bill(make_device: Device) -> None:
    kept: list[Tensor] = []
    tracker = make_tracker([make_device()], lambda: kept)
    window = Window(tracker, 100.0)
    for _ in window.steps(batches(10)):
        kept.append(torch.ones(1000))
    window.close()
    tracker.finish()
    assert tracker.devices[0].peak_bytes >= 10 * 4000
    assert tracker.devices[0].peak_bytes <= 11 * 4000


def test_what_a_step_leaves_behind_is_counted_once(make_device: Device) -> None:
    kept: list[Tensor] = []
    tracker = make_tracker([make_device()], lambda: kept)
    for _ in range(2):  # one step in a window: the only one that was counted
        with Window(tracker, 100.0) as window:
            for _ in window.steps(batches(1)):
                kept[:] = kept or [torch.ones(1000)]  # as an optimizer makes its state
                torch.ones(250)
    tracker.finish()
    assert tracker.devices[0].peak_bytes == 4000 + 1000


def test_growth_beyond_the_memory_ends_the_run(make_device: Device) -> None:
    kept: list[Tensor] = []
    tracker = make_tracker([make_device(memory=20_000.0)], lambda: kept)
    window = Window(tracker, 100.0)
    for _ in window.steps(batches(10)):
        kept.append(torch.ones(1000))
    window.close()
    with pytest.raises(DeviceOutOfMemory):
        Window(tracker, 100.0)


# --- several devices ------------------------------------------------------------------


def alone(device: Any, budget: float, launches: int, n: int = 100) -> tuple[int, float]:
    tracker = make_tracker([device], nothing)
    steps = spend(Window(tracker, budget), launches, n)
    return steps, tracker.devices[0].window.time_s


def test_the_slower_device_is_deferred_when_its_window_would_have_closed(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device("fast"), make_device("slow", launch=2.0)], nothing)
    window = Window(tracker, 10.5)
    for steps, batch in enumerate(window.steps(batches())):
        assert tracker.deferred == ([] if steps < 5 else ["slow"])
        launch(batch.x)
    assert tracker.deferred == ["slow"]
    assert [b.name for b in tracker.devices] == ["fast"]
    assert tracker.dropped == {}


def test_the_faster_device_goes_on_to_the_end_of_its_own_window(make_device: Device) -> None:
    fast, slow = make_device("fast"), make_device("slow", launch=2.0)
    tracker = make_tracker([fast, slow], nothing)
    window = Window(tracker, 10.5)
    steps = spend(window)
    assert (steps, tracker.devices[0].window.time_s) == alone(fast, 10.5, 1) == (10, 10.0)
    assert window.closed


@given(
    speeds=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=2, max_size=4),
    budget=st.integers(6, 30),
    launches=st.integers(1, 2),
    n=st.integers(1, 40),
)
def test_a_device_that_stays_was_charged_as_it_would_have_been_alone(
    make_device: Device, speeds: list[float], budget: int, launches: int, n: int
) -> None:
    devices = {f"d{i}": make_device(f"d{i}", launch=s) for i, s in enumerate(speeds)}
    tracker = make_tracker(list(devices.values()), nothing)
    steps = spend(Window(tracker, float(budget)), launches, n)
    assert tracker.devices
    for device in tracker.devices:
        expected = alone(devices[device.name], float(budget), launches, n)
        assert (steps, device.window.time_s) == expected
    for name in tracker.deferred:  # deferred exactly because it would have done otherwise
        assert alone(devices[name], float(budget), launches, n)[0] != steps
    assert {b.name for b in tracker.devices} | set(tracker.deferred) == set(devices)


def test_devices_that_would_do_the_same_stay_together(make_device: Device) -> None:
    tracker = make_tracker([make_device("fast"), make_device("slow", launch=2.0)], nothing)
    assert spend(Window(tracker, 100.0), n=20) == 20
    assert {b.name: b.window.time_s for b in tracker.devices} == {"fast": 20.0, "slow": 40.0}
    assert tracker.deferred == []


def test_a_deferred_device_run_alone_takes_the_steps_of_a_fresh_run(make_device: Device) -> None:
    fast, slow = make_device("fast"), make_device("slow", launch=2.0)
    tracker = make_tracker([fast, slow], nothing)
    spend(Window(tracker, 10.5))
    assert tracker.deferred == ["slow"]
    assert alone(slow, 10.5, 1) == (5, 10.0)


def test_a_device_whose_window_is_shorter_than_a_step_leaves_the_others(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device("slow", launch=9.0), make_device("fast")], nothing)
    assert spend(Window(tracker, 5.5)) == 5
    assert isinstance(tracker.dropped["slow"], Unsupported)
    assert tracker.deferred == []
    assert [b.name for b in tracker.devices] == ["fast"]


def test_when_all_have_left_the_last_reason_is_raised(make_device: Device) -> None:
    tracker = make_tracker([make_device("a", launch=9.0), make_device("b", memory=10.0)], nothing)
    with pytest.raises((Unsupported, DeviceOutOfMemory)):
        spend(Window(tracker, 5.5))
    assert set(tracker.dropped) == {"a", "b"}


def test_inference_out_of_memory_leaves_and_the_others_are_priced(make_device: Device) -> None:
    tracker = make_tracker(
        [make_device("small", memory=10.0), make_device("large", launch=2.0)], nothing
    )
    out = tracker.inference(4, lambda: torch.ones(1000))
    assert torch.equal(out, torch.ones(1000))
    assert isinstance(tracker.dropped["small"], DeviceOutOfMemory)
    (large,) = tracker.devices
    assert large.inference is not None
    assert (large.inference.time_s, large.inference_samples) == (2.0, 4)
    assert large.peak_bytes == 4000


# --- measured ---------------------------------------------------------------------------


def test_a_measured_device_cannot_share_a_run(make_device: Device) -> None:
    with pytest.raises(BenchError, match="cannot share a run"):
        make_tracker([load_device("host"), make_device()], nothing)


def test_a_measured_device_is_charged_the_clock_and_no_energy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    clock = iter(float(t) for t in range(0, 1000, 2))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    tracker = make_tracker([load_device("host")], nothing)
    window = Window(tracker, 7.0)
    counted = []
    steps = 0
    for _ in window.steps(batches()):
        counted.append(len(_get_current_dispatch_mode_stack()))
        steps += 1
    device = tracker.devices[0]
    assert (steps, device.window.time_s, device.window.energy_j) == (3, 6.0, None)
    assert counted == [0, 0, 0]  # counting would slow what is measured
    assert window.closed


def test_a_measured_peak_is_above_the_start_of_the_run() -> None:
    process_memory.settle("cpu")  # what earlier tests left must not be given back meanwhile
    tracker = make_tracker([load_device("host")], nothing)
    tracker.start()
    big = torch.ones(64 * 2**20)  # 256 MiB
    tracker.finish()
    assert tracker.devices[0].kind == "measured"
    assert 192 * 2**20 < tracker.devices[0].peak_bytes < 400 * 2**20
    del big


# --- the log ------------------------------------------------------------------------------


def test_what_a_method_logs_goes_to_the_logger_with_the_step(make_device: Device) -> None:
    heard: list[tuple[str, float, int]] = []
    window = Window(
        make_tracker([make_device()], nothing), 100.0, lambda *event: heard.append(event)
    )
    for i, batch in enumerate(window.steps(batches(3))):
        launch(batch.x)
        window.log(loss=torch.tensor(0.5 * i), rate=2)
    assert heard == [
        ("loss", 0.0, 0), ("rate", 2.0, 0), ("loss", 0.5, 1), ("rate", 2.0, 1),
        ("loss", 1.0, 2), ("rate", 2.0, 2),
    ]  # fmt: skip
    assert all(type(value) is float for _, value, _ in heard)


def test_logging_without_a_logger_is_nothing(make_device: Device) -> None:
    window = Window(make_tracker([make_device()], nothing), 100.0)
    window.log(loss=torch.tensor(1.0))


@pytest.mark.parametrize("listens", [False, True])
def test_a_logger_does_not_change_the_bill(make_device: Device, listens: bool) -> None:
    tracker = make_tracker([make_device()], nothing)
    window = Window(tracker, 10.5, (lambda *_: None) if listens else None)
    for batch in window.steps(batches()):
        loss = batch.x + 1.0
        window.log(loss=loss[0, 0])
    assert tracker.devices[0].window.steps == 10
    assert tracker.devices[0].window.time_s == 10.0


def test_what_torch_caches_from_before_the_stream_is_given_back_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peak of what a GPU's allocator has reserved starts at what it holds then."""
    done: list[tuple[str, str]] = []
    for name in ("settle", "reset_peak"):
        monkeypatch.setattr(
            process_memory, name, lambda where, name=name: done.append((name, where))
        )
    device = MeasuredDevice(name="host", title="This machine", cost="measured")
    kinds: tuple[Kind, ...] = ("cpu", "cuda")
    for kind in kinds:
        measured.MeasuredCosts(device, Unavailable("no meter", {}), kind).start()
    assert done == [("reset_peak", "cpu"), ("settle", "cuda"), ("reset_peak", "cuda")]
