"""``bench run --meter``: the named meter measures the run; what is wrong with it is one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app, main
from bench.errors import Unsupported
from bench.meters.external import ExternalMeter
from bench.run import run_cell


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text("time_s,power_w\n1.0,5.0\n2.0,5.0\n3.0,5.0\n")
    return path


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The cost trackers of runs, which end before anything is trained."""
    seen: list[Any] = []

    def execute(cell: Any, method: Any, tracker: Any, logger: Any) -> Any:
        seen.append(tracker)
        raise Unsupported("enough for a test")

    monkeypatch.setattr(run_cell, "_execute", execute)
    threads = torch.get_num_threads()
    yield seen
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return [
        "run", "--suite", "smoke", "--methods", "source-only", "--seeds", "0",
        "--executor", "inline", "--store", str(tmp_path / "store"), *more,
    ]  # fmt: skip


def test_the_named_meter_measures_the_run(tmp_path: Path, log: Path, trackers: Any) -> None:
    given = arguments(tmp_path, "--device", "host", "--meter", f"csv:{log}")
    CliRunner().invoke(app, given)
    (tracker,) = trackers
    (device,) = tracker.devices
    assert f"energy of whole windows by external meter (what it feeds: {log})" in device.how


def test_a_run_without_the_option_takes_the_meter_of_the_machine(
    tmp_path: Path, log: Path, trackers: Any
) -> None:
    CliRunner().invoke(app, arguments(tmp_path, "--device", "host"))
    (tracker,) = trackers
    assert not isinstance(tracker.devices[0]._energy, ExternalMeter)


@pytest.mark.parametrize(
    ("device", "meter", "part"),
    [
        ("host", "rpal", "unknown energy meter 'rpal': did you mean 'rapl'?"),
        ("host", "csv:none.csv", "No such file or directory; start its logger before the run"),
        ("host", "csv:", "names no file; give it as csv:FILE"),
        ("xavier-nx", "csv:log.csv", "the devices of this run are modelled; add --device host"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any,
    device: str, meter: str, part: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = ["bench", *arguments(tmp_path, "--device", device, "--meter", meter)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert part in line
    assert not (tmp_path / "store" / "records").exists()
