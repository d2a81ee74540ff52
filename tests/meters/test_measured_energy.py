"""The energy of a measured run: whole windows, predictions, and reasons where there is none."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from bench.contracts.data import DomainView
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.meters import measurement as protocol
from bench.meters.base import Unavailable
from bench.meters.power import PowerMeter
from bench.run.window import Window


def view() -> DomainView:
    return DomainView("d", torch.rand(6, 2), None, 2, torch.Generator())


@pytest.fixture
def sensor(clock, sampling, lock) -> PowerMeter:
    """5 W, and 1 W more for each second since the clock began."""
    return PowerMeter(
        "sensor", "board", lambda: 5.0 + (clock.now - 1000.0), ceiling_w=1e3, sampling=sampling,
        lock=lock,
    )  # fmt: skip


def adapt(meter: CostTracker, clock: Any, seconds: float) -> Any:
    with Window(meter, 1e9) as window:
        for _ in window.steps(view().batches()):
            clock.sleep(seconds)
    return meter.devices[0]


def test_each_window_is_measured_as_a_whole(clock, sensor) -> None:
    meter = make_tracker([load_device("host")], tuple, sensor)
    device = adapt(meter, clock, 1.0)  # 5 to 8 W during 3 s
    assert device.window.energy_j == pytest.approx(19.5, abs=1 / 8**2 / 2)
    clock.sleep(10.0)
    device = adapt(meter, clock, 2.0)  # 18 to 24 W during 6 s
    assert device.window.energy_j == pytest.approx(126.0, abs=1 / 8**2 / 2)
    assert device.energy_unavailable == ""
    assert "; energy of whole windows by sensor (board)" in device.how
    assert clock.running == 0


def test_a_window_that_is_too_short_makes_energy_unavailable(clock, sensor) -> None:
    meter = make_tracker([load_device("host")], tuple, sensor)
    device = adapt(meter, clock, 0.1)
    assert device.window.energy_j is None
    assert "sensor: " in device.energy_unavailable
    assert "0.3" in device.energy_unavailable
    clock.sleep(1.0)
    assert adapt(meter, clock, 2.0).window.energy_j is None  # one run, one kind of number
    assert device.inference_energy_unavailable == ""  # predictions are repeated for long enough


def test_a_window_without_steps_took_no_energy(clock, sensor) -> None:
    meter = make_tracker([load_device("host")], tuple, sensor)
    for _ in range(2):
        with Window(meter, 1e9):
            pass
        assert meter.devices[0].window.energy_j == 0.0
        assert meter.devices[0].energy_unavailable == ""
    clock.sleep(1.0)
    assert adapt(meter, clock, 2.0).window.energy_j > 0
    assert clock.running == 0


def test_a_run_in_which_windows_hold_predictions_has_energy_of_predictions_alone(
    clock, sensor
) -> None:
    meter = make_tracker([load_device("host")], tuple, sensor)
    meter.mark_unavailable(energy="the stream is online")
    device = adapt(meter, clock, 2.0)
    assert (device.window.energy_j, device.energy_unavailable) == (None, "the stream is online")
    assert device.inference_energy_unavailable == ""
    assert clock.running == 0


def test_an_error_in_a_step_leaves_no_meter_running(clock, sensor) -> None:
    meter = make_tracker([load_device("host")], tuple, sensor)

    def broken() -> None:
        with Window(meter, 1e9) as window:
            for _ in window.steps(view().batches()):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert clock.running == 0
    clock.sleep(1.0)
    sensor.begin()  # the device is free again
    sensor.cancel()


def test_predictions_are_repeated_until_the_sensor_sees_them(
    clock, sampling, lock, monkeypatch
) -> None:
    readings = itertools.cycle([5.0, 5.5])  # one that never changes would be taken for stuck
    steady = PowerMeter(
        "sensor", "board", lambda: next(readings), ceiling_w=1e3, sampling=sampling, lock=lock,
    )  # fmt: skip
    monkeypatch.setattr(protocol.measure, "__kwdefaults__", {
        **protocol.measure.__kwdefaults__, "clock": clock, "sleep": clock.sleep,
    })  # fmt: skip
    meter = make_tracker([load_device("host")], tuple, steady)
    calls = []

    def predict() -> None:
        calls.append(clock.sleep(0.25))

    meter.inference(50, predict)
    device = meter.devices[0]
    assert device.inference_samples == 50
    assert len(calls) == 1 + 1 + 3 * 4  # timed, warm-up, three repeats of a second
    assert device.inference.energy_j == pytest.approx(0.25 * 5.25, rel=0.05)


def test_without_a_meter_the_reason_stands_in_the_bill(clock) -> None:
    meter = make_tracker(
        [load_device("host")], tuple, Unavailable("no energy meter can be used", {})
    )
    device = adapt(meter, clock, 1.0)
    assert device.window.energy_j is None
    assert device.energy_unavailable == "no energy meter can be used"
    assert device.inference_energy_unavailable == "no energy meter can be used"
    meter.inference(1, lambda: None)
    assert math.isnan(device.inference.energy_j)
