"""What a check finds goes into the profile's file, from there into records, and into tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench.calibration import host as machine
from bench.calibration import measure_case as fresh
from bench.calibration.measure_case import trace_to_json
from bench.cli import app
from bench.costs.device_profile import PROFILES, ModelledDevice, load_device, profile_digest
from bench.costs.factory import make_tracker
from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError
from bench.records.record import Costs
from bench.run.results import results_on
from bench.testing import CountingMethod, make_device, run_method

COMMENT = "# By hand; the comment stays.\n"
WHY = "a round number, for a test"


@pytest.fixture
def my_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a shipped profile in which a product of 1e6 operations takes 10 ms."""
    content = yaml.safe_load((PROFILES / "raspberry-pi-5.yaml").read_text())
    content |= {
        "dispatch": "added",
        "launch_overhead": {"value": 1e-6, "source": WHY, "confidence": "measured"},
        "curves": {"source": WHY, "confidence": "measured", "kinds": {
            "mm.nn": {"of": "matmul", "points": {"float32": [[1e6, 1e4, 0.01]]}}}},
    }  # fmt: skip
    path = tmp_path / "my-board.yaml"
    path.write_text(COMMENT + yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "others_at_work", lambda: 0.0)
    return path


def check(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], *given: str) -> Any:
    """``bench device check`` of steps that are predicted as 100 ms and 30 MB and take these."""

    def measured(request: dict[str, Any], threads: int) -> dict[str, Any]:
        if request["method"] not in seconds:
            raise BenchError(f"{request['method']}: killed")
        call = ("mm.nn", "matmul", "float32", 1e6, 1e4)
        trace = StepTrace(Counter({call[1:]: 10}), 30_000_000, 10_000_000, Counter({call: 10}))
        sizes = {"resident_bytes": 40e6, "runtime_bytes": 5e8, "parameters": 7}
        took = [seconds[request["method"]]]
        return {"trace": trace_to_json(trace), "seconds": took, "busy": 1.0, **sizes}

    monkeypatch.setattr(fresh, "measure_fresh", measured)
    asked = ("--models", "resnet18", "--methods", "inference,full,tent", *given)
    return CliRunner().invoke(app, ["device", "check", "my-board", *asked])


TIMES = {"inference": 0.1, "full": 0.08, "tent": 0.125}
"""Errors of 0, +25 and -20 %."""


def test_the_check_states_its_medians_in_the_file(
    my_board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = my_board.read_text()
    digest = profile_digest(load_device(str(my_board)))
    assert load_device(str(my_board)).error is None
    done = check(monkeypatch, TIMES)
    assert my_board.read_text() == before
    done = check(monkeypatch, TIMES, "--state-error")
    assert "my-board.yaml states these errors" in done.output
    stated = load_device(str(my_board))
    assert isinstance(stated, ModelledDevice)
    assert stated.error is not None
    assert stated.error.time == pytest.approx(0.2, abs=2e-4)
    assert stated.error.memory == pytest.approx(0.25, abs=2e-4)
    assert stated.error.energy is None
    assert "median absolute error of 3 steps" in stated.error.source
    assert "25.0% in time (resnet18 full)" in stated.error.source
    assert profile_digest(stated) == digest  # runs are not made anew for it
    assert my_board.read_text().startswith(before)
    # A later check takes the place of the first.
    check(monkeypatch, dict.fromkeys(TIMES, 0.1), "--state-error")
    assert my_board.read_text().count("\nerror:") == 1
    again = load_device(str(my_board)).error
    assert again is not None
    assert again.time == pytest.approx(0, abs=2e-4)
    assert yaml.safe_load(my_board.read_text())["error"]["memory"] == 0.25
    shown = CliRunner().invoke(app, ["device", "show", str(my_board)]).output
    assert "memory 25 % (bench device check: median absolute error of 3 steps" in shown


def test_what_cannot_be_stated_is_refused_and_the_file_stays(
    my_board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = my_board.read_text()
    failed = check(monkeypatch, {"full": 0.1}, "--state-error")
    assert isinstance(failed.exception, BenchError)
    assert "2 cases failed" in str(failed.exception)
    assert my_board.read_text() == before
    flow = json.dumps(yaml.safe_load(before))
    my_board.write_text(flow)
    refused = check(monkeypatch, TIMES, "--state-error")
    assert "no key a line" in str(refused.exception)
    assert my_board.read_text() == flow
    shipped = CliRunner().invoke(app, ["device", "check", "xavier-nx", "--state-error"])
    assert "--state-error: xavier-nx is no file of yours" in str(shipped.exception)


def test_an_error_says_what_it_is_of(my_board: Path) -> None:
    before = my_board.read_text()
    for block, message in (
        ("error: {source: measured by nobody}", "give time, memory or energy"),
        ("error: {time: 0.2}", "key error.source is missing"),
        ("error: {time: -0.2, source: measured by nobody}", "key error.time: -0.2"),
        ("error: {tiem: 0.2, source: measured by nobody}", "error.tiem is unknown: did you mean"),
    ):
        my_board.write_text(before + block + "\n")
        with pytest.raises(BenchError, match=message) as told:
            load_device(str(my_board))
        assert "\n" not in str(told.value)


def test_other_power_modes_have_no_stated_error(tmp_path: Path) -> None:
    path = tmp_path / "nx.yaml"
    text = (PROFILES / "xavier-nx.yaml").read_text()
    path.write_text(text + "error: {time: 0.3, source: a guess of the test}\n")
    whole = load_device(str(path))
    assert isinstance(whole, ModelledDevice)
    assert whole.error is not None
    others = [whole.in_mode(mode).error for mode in whole.mode_names]
    assert others[0] is not None
    assert others[1:] == [None] * (len(others) - 1)
    assert len(others) > 1


def test_a_run_records_what_the_profile_states() -> None:
    def costs(error: dict[str, Any] | None) -> Costs:
        method = CountingMethod(SimpleNamespace())
        stream = run_method(method)
        given = make_device()
        device = ModelledDevice.model_validate(given.model_dump() | {"error": error})
        tracker = make_tracker([device], method.stored)
        import torch

        tracker.inference(1, lambda: method.predict(torch.zeros(1, 2)))
        (charged,) = tracker.devices
        spent = sum(stage.charges[charged.name].time_s for stage in stream.stages)
        tracker.counts["adapt"], charged.time_by_kind["adapt"] = 1, spent
        return results_on(charged, stream, tracker, None).costs

    told = costs({"time": 0.2, "source": "measured by somebody"})
    assert told.profile_error is not None
    assert (told.profile_error.time, told.profile_error.energy) == (0.2, None)
    again = Costs.model_validate_json(told.model_dump_json())
    assert again.profile_error == told.profile_error
    silent = costs(None).model_dump_json()
    assert "profile_error" not in silent  # records of others stay as they were
    assert Costs.model_validate_json(silent).profile_error is None
