"""``bench run --meter``: the named meter measures the run; what is wrong with it is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import registry
from bench.cli import app, main
from bench.records.record import Costs
from bench.records.store import Store


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text("time_s,power_w\n1.0,5.0\n2.0,5.0\n3.0,5.0\n")
    return path


TOYS = Path(__file__).parents[1] / "plugins"
SUITE = """
name: toys
description: nothing that takes long to train
stream: {name: toy-line, samples: 40}
model: {name: toy-net, width: 8}
protocol: {window_s: 60, batch_size: 8}
methods: [source-only]
seeds: 1
devices: host
"""


def arguments(tmp_path: Path, *more: str) -> list[str]:
    (tmp_path / "toys.yaml").write_text(SUITE)
    return [
        "run", "--suite", str(tmp_path / "toys.yaml"),
        "--plugin", str(TOYS / "toy_stream.py"), "--plugin", str(TOYS / "toy_model.py"),
        "--executor", "inline", "--store", str(tmp_path / "store"), *more,
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Costs]]:
    """``bench run --device host`` in this process, and the costs that it recorded."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()

    def go(*more: str) -> Costs:
        done = CliRunner().invoke(app, arguments(tmp_path, "--device", "host", *more))
        assert done.exit_code == 0, done.output
        (record,) = Store(tmp_path / "store")
        assert record.results is not None
        return record.results.costs

    with registry.isolated():
        yield go
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_the_named_meter_measures_the_run(log: Path, run: Callable[..., Costs]) -> None:
    costs = run("--meter", f"csv:{log}")
    assert f"energy of whole windows by external meter (what it feeds: {log})" in (
        costs.adaptation_time.how
    )


def test_a_run_without_the_option_takes_no_external_meter(run: Callable[..., Costs]) -> None:
    assert "external meter" not in run().adaptation_time.how


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
