"""Costs that a method knows besides those that are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.costs.factory import make_tracker
from bench.errors import BenchError
from bench.records.record import Amount, Costs
from bench.run.results import results_on
from bench.testing import CountingMethod, make_device, run_method

LATENCY = Amount(value=0.25, unit="s/sample", kind="modelled", how="bytes / rate")


def results(further: dict[str, Amount] | None) -> Any:
    method = CountingMethod(SimpleNamespace())
    stream = run_method(method)
    tracker = make_tracker([make_device()], method.stored)
    import torch

    tracker.inference(1, lambda: method.predict(torch.zeros(1, 2)))
    (device,) = tracker.devices  # another one than the stream's, with what that was charged
    spent = sum(stage.charges[device.name].time_s for stage in stream.stages)
    tracker.counts["adapt"], device.time_by_kind["adapt"] = 1, spent
    return results_on(device, stream, tracker, further)


def test_they_stand_beside_the_counted_ones_and_come_back_from_a_file() -> None:
    costs = results({"latency": LATENCY}).costs
    assert costs.get("latency") == LATENCY
    again = Costs.model_validate_json(costs.model_dump_json())
    assert again.get("latency") == LATENCY
    assert again.inference_time == costs.inference_time
    assert results(None).costs.get("latency") is None


def test_a_counted_one_is_not_replaced() -> None:
    with pytest.raises(BenchError, match="'inference_time', which is counted"):
        results({"inference_time": LATENCY})
