"""``bench device check``: predicted beside measured, the bars, and how real steps are watched."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner
from warm_bench import warm_subprocess

from bench.calibration import host as machine
from bench.calibration import measure_case as fresh
from bench.calibration import validate as check
from bench.calibration.measure_case import measured_case, trace_from_json, trace_to_json
from bench.calibration.memory_fit import warm_runtime
from bench.calibration.reference_workloads import METHODS, MODELS, ModelSpec, chosen
from bench.calibration.step_timer import WARM, Watch
from bench.calibration.validate import Row, verdicts
from bench.cli import app, main
from bench.costs.device_profile import PROFILES, ModelledDevice, load_device
from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError
from bench.io import subprocess_call
from bench.meters import process_memory as memory

WHY = "a round number, for a test"


def quantity(value: float) -> dict[str, Any]:
    return {"value": value, "source": WHY, "confidence": "measured"}


@pytest.fixture
def my_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibrated profile ``my-box.yaml`` in the working folder, of an idle machine.

    A product of 1e6 operations takes 10 ms, a step adds 1.5 of its live memory, and dispatch 1 us.
    """
    content = yaml.safe_load((PROFILES / "raspberry-pi-5.yaml").read_text())
    content |= {
        "name": "my-box", "dispatch": "added", "threads": 1, "accelerator": "cpu",
        "launch_overhead": quantity(1e-6),
        "resident_memory": {"stored": quantity(1.0), "step": quantity(1.5),
                            "convolution": quantity(1e-6), "added": quantity(1e6)},
        "curves": {"source": WHY, "confidence": "measured", "kinds": {
            "mm.nn": {"of": "matmul", "points": {"float32": [[1e6, 1e4, 0.01]]}}}},
    }  # fmt: skip
    (tmp_path / "my-box.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "others_at_work", lambda: 0.0)
    return tmp_path


def answer(seconds: list[float], resident: float, busy: float = 1.0) -> dict[str, Any]:
    """Of a process whose step is 10 products, stores 10 MB and adds 20 MB."""
    call = ("mm.nn", "matmul", "float32", 1e6, 1e4)
    trace = StepTrace(Counter({call[1:]: 10}), 30_000_000, 10_000_000, Counter({call: 10}))
    return {"trace": trace_to_json(trace), "seconds": seconds, "busy": busy,
            "resident_bytes": resident, "runtime_bytes": 5e8, "parameters": 7}  # fmt: skip


class FakeProcess:
    """Answers by (model, method); others do not apply."""

    def __init__(self, answers: dict[tuple[str, str], Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: dict[str, Any], threads: int) -> dict[str, Any]:
        self.asked.append({**request, "threads": threads})
        found = self.answers.get((request["model"], request["method"]))
        if isinstance(found, BenchError):
            raise found
        return found or {"skipped": f"{request['model']} declares no blocks"}


def run(monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[str, str], Any], *given: str) -> Any:
    process = FakeProcess(answers)
    monkeypatch.setattr(fresh, "measure_fresh", process)
    done = CliRunner().invoke(app, ["device", "check", "my-box", *given])
    return done, process


def refused(given: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["bench", "device", "check", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


# Predicted for the step above: 10 x (10 ms + 1 us) and 10 + 1.5 x 20 + 1 = 41 MB.


def test_the_table_by_hand(my_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("resnet18", "inference"): answer([0.2, 0.1, 0.1, 0.11, 0.3], 41e6),
        ("resnet18", "full"): answer([0.08], 50e6),
    }
    done, process = run(
        monkeypatch, answers, "--models", "resnet18", "--methods", "inference,full,lora",
        "--batch", "4", "--repeats", "3",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "model     method       time  predicted  error  allocated  resident  predicted  error",
        "resnet18  inference  100 ms     100 ms    +0%      30 MB     41 MB      41 MB    +0%",
        "resnet18  full        80 ms     100 ms   +25%      30 MB     50 MB      41 MB   -18%",
        "",
        "not applicable: resnet18 lora: resnet18 declares no blocks",
        "time: median absolute error 12.5% (bar 15%), worst 25.0% (bar 35%) at resnet18 full: met",
        "memory: median absolute error 9.0% (bar 15%), worst 18.0% (bar 35%) at resnet18 full: met",
    ]
    assert "bench: 3/3 resnet18 lora" in done.stderr
    first = process.asked[0]
    assert (first["batch"], first["repeats"], first["threads"]) == (4, 3, 1)
    assert (first["accelerator"], first["clock"]) == ("cpu", "wall")


@pytest.mark.parametrize(
    ("seconds", "resident"), [(0.07, 41e6), (0.1, 29e6)], ids=["slow in time", "off in memory"]
)
def test_a_bar_that_is_not_met_is_exit_code_1(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, resident: float
) -> None:
    answers = {("resnet18", "full"): answer([seconds], resident)}
    done, _ = run(monkeypatch, answers, "--models", "resnet18", "--methods", "full")
    assert done.exit_code == 1
    assert done.stdout.count("NOT met") == 1


def test_a_case_that_fails_is_exit_code_1_and_stops_nothing(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        ("vit-tiny", "full"): BenchError("vit-tiny full: MemoryError"),
        ("vit-tiny", "tent"): answer([0.1], 41e6),
    }
    done, _ = run(monkeypatch, answers, "--models", "vit-tiny", "--methods", "full,tent")
    assert done.exit_code == 1
    assert "failed: vit-tiny full: MemoryError" in done.stdout
    assert "NOT met" not in done.stdout


def test_all_cases_are_the_default(my_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {("bert-base", "tent"): answer([0.1], 41e6)}
    done, process = run(monkeypatch, answers)
    assert done.exit_code == 0
    pairs = {(a["model"], a["method"]) for a in process.asked}
    assert pairs == {(model, method) for model in MODELS for method in METHODS}
    assert list(MODELS) == [
        "vit-tiny", "vit-b16", "bert-mini", "bert-base", "resnet18", "mobilenetv2",
    ]  # fmt: skip
    assert list(METHODS) == [
        "inference", "full", "bias-only", "last-half", "lora", "tent", "edgeta",
    ]  # fmt: skip


def test_measurements_are_kept_and_compared_again(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {("resnet18", "full"): answer([0.08], 50e6)}
    given = ("--models", "resnet18", "--methods", "full,lora", "--save", "kept.json")
    first, _ = run(monkeypatch, answers, *given)
    kept = json.loads((my_box / "kept.json").read_text())
    assert kept["rows"][0]["time_error"] == pytest.approx(0.25, abs=1e-3)
    assert (kept["machine"]["threads"], kept["clock"]) == (1, "wall")
    again, process = run(monkeypatch, {}, "--from", "kept.json")
    assert again.stdout == first.stdout
    assert process.asked == []


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["my-bux"], "unknown device 'my-bux'"),
        (["host"], "its costs are measured"),
        (["my-box", "--models", "resnet19"], "--models: unknown name 'resnet19': did you mean"),
        (["my-box", "--methods", ","], "names nothing"),
        (["my-box", "--from", "none.json"], "--from none.json: No such file"),
        (["my-box", "--from", "my-box.yaml"], "is no file that 'bench device check --save'"),
        (["my-box", "--save", "nodir/x.json"], "--save nodir/x.json: No such file"),
        (["my-box", "--save", "."], "--save .: Is a directory; name another file"),
        (["my-box", "--from", "none.json", "--batch", "8"], "--batch: nothing is measured"),
        (["my-box", "--from", "none.json", "--repeats", "7"], "--repeats: nothing is measured"),
        (["my-box", "--from", "none.json", "--cpu-time"], "--cpu-time: nothing is measured"),
        (["my-box", "--from", "none.json", "--force"], "--force: nothing is measured"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, given: list[str], part: str
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(fresh, "measure_fresh", lambda *given, **more: asked.append(given))
    before = sorted(my_box.iterdir())
    assert part in refused(given, monkeypatch, capfd)
    assert asked == []
    assert sorted(my_box.iterdir()) == before


# --- the file of an earlier check -----------------------------------------------------------


def keep(folder: Path, **changes: Any) -> dict[str, Any]:
    """The content of ``kept.json`` as ``--save`` writes it, but for the changes."""
    content = {
        "device": "my-box", "digest": "0" * 64, "rows": [], "clock": "wall",
        "machine": {"date": "2030-01-02", "processor": "another", "cores": 64, "threads": 1,
                    "torch": "9", "system": "Linux", "load": [0.0, 0.0, 0.0]},
        "measured": [["resnet18", "full", answer([0.1], 41e6)],
                     ["vit-tiny", "tent", answer([0.1], 41e6)]],
        "skipped": ["resnet18 lora: resnet18 declares no blocks"],
        "failed": [],
    } | changes  # fmt: skip
    (folder / "kept.json").write_text(json.dumps(content))
    return content


def test_where_and_when_it_was_measured_stays_with_the_measurements(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = keep(my_box, clock="cpu")
    done, _ = run(monkeypatch, {}, "--from", "kept.json", "--save", "again.json")
    assert done.exit_code == 0, done.output
    again = json.loads((my_box / "again.json").read_text())
    for key in ("machine", "clock", "measured", "skipped", "failed"):
        assert again[key] == content[key]


def test_models_and_methods_choose_among_the_saved_cases(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(my_box, failed=["vit-tiny full: MemoryError"])
    given = ("--from", "kept.json", "--models", "resnet18", "--methods", "lora,full")
    done, _ = run(monkeypatch, {}, *given)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:2]] == [["resnet18", "full"]]
    assert "not applicable: resnet18 lora: resnet18 declares no blocks" in lines
    assert not any("vit-tiny" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["--models", "resnet19"], "--models: unknown name 'resnet19': did you mean 'resnet18'"),
        (["--models", "bert-base"], "--models bert-base: the file of --from has no such case"),
        (["--methods", "edgeta"], "has no such case, but full, tent, lora: name one of these"),
        (["--models", "vit-tiny", "--methods", "full"], "nothing was measured"),
    ],
)
def test_cases_that_were_not_saved_are_refused(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, given: list[str], part: str
) -> None:
    keep(my_box)
    assert part in refused(["my-box", "--from", "kept.json", *given], monkeypatch, capfd)


@pytest.mark.parametrize(
    ("profile", "facts", "part"),
    [
        ({"threads": 2}, {}, "measured with threads 1, but my-box.yaml has threads 2"),
        ({"accelerator": "cuda"}, {}, "measured with accelerator cpu, but my-box.yaml has"),
        ({}, {"accelerator": "H100"}, "measured with accelerator cuda, but my-box.yaml has"),
    ],
)
def test_measurements_of_another_kind_of_machine_are_refused(
    my_box: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    profile: dict[str, Any],
    facts: dict[str, Any],
    part: str,
) -> None:
    path = my_box / "my-box.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | profile))
    keep(my_box, machine={"threads": 1, **facts})
    assert part in refused(["my-box", "--from", "kept.json"], monkeypatch, capfd)


def test_a_saved_check_of_an_accelerator_needs_none(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*given: object) -> None:
        raise AssertionError("cuda was asked")

    for name in ("is_available", "get_device_name", "utilization", "mem_get_info", "init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    path = my_box / "my-box.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"accelerator": "cuda"}))
    keep(my_box, machine={"threads": 1, "accelerator": "H100"})
    done, _ = run(monkeypatch, {}, "--from", "kept.json", "--save", "again.json")
    assert done.exit_code == 0, done.output


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in answer([0.1], 41e6).items() if k != key}


TRACE = answer([0.1], 41e6)["trace"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"measured": [["a", "b", without("busy")]]}, "measured.0.2.busy: Field required"),
        ({"measured": [["a", "b", answer([0.1], 0)]]}, "resident_bytes: Input should be greater"),
        ({"measured": [["a", "b", answer([], 1)]]}, "measured.0.2.seconds: "),
        ({"measured": [["a", "b", answer([0.0], 1)]]}, "measured.0.2.seconds.0: "),
        ({"measured": [["a", "b", answer([float("nan")], 1)]]}, "measured.0.2.seconds.0: "),
        ({"measured": [["a", "b", answer(["0.1"], 1)]]}, "measured.0.2.seconds.0: "),  # type: ignore[list-item]
        ({"measured": [["a", "b", answer([0.1], 1) | {"trace": {**TRACE, "details": [[1]]}}]]},
         "measured.0.2.trace.details.0.0: "),
        ({"measured": [["a", "b", answer([0.1], 1) | {"trace": {
            **TRACE, "operations": [["magic", "float32", 1.0, 1.0, 1]]}}]]},
         "'magic' is no class of operators"),
        ({"measured": [["a", "b"]]}, "measured.0.2: Field required"),
        ({"failed": ["all of them"]}, "failed.0: Value error, it begins with no case"),
        ({"machine": {}}, "machine.threads: Field required"),
        ({"clock": "sun"}, "clock: "),
    ],
)  # fmt: skip
def test_a_file_that_is_not_sound_is_refused(
    my_box: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    changes: dict[str, Any],
    where: str,
) -> None:
    keep(my_box, **changes)
    line = refused(["my-box", "--from", "kept.json"], monkeypatch, capfd)
    assert "--from kept.json: is no file that 'bench device check --save' wrote (" in line
    assert where in line


def test_a_file_without_a_clock_holds_seconds_of_the_wall(my_box: Path) -> None:
    content = keep(my_box)
    del content["clock"]
    (my_box / "kept.json").write_text(json.dumps(content))
    assert check.read_check(my_box / "kept.json").clock == "wall"


def test_all_failures_are_printed_where_every_case_failed(
    my_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        ("vit-tiny", "full"): BenchError("vit-tiny full: MemoryError"),
        ("vit-tiny", "tent"): answer([0.1], 0.0),
    }
    given = ("--models", "vit-tiny", "--methods", "full,tent,lora", "--save", "kept.json")
    done, _ = run(monkeypatch, answers, *given)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "not applicable: vit-tiny lora: vit-tiny declares no blocks",
        "failed: vit-tiny full: MemoryError",
        "failed: vit-tiny tent: took no memory above its runtime; use a larger --batch",
    ]
    again, _ = run(monkeypatch, {}, "--from", "kept.json")
    assert (again.exit_code, again.stdout) == (1, done.stdout)


# --- others at work --------------------------------------------------------------------------


def test_cases_that_were_not_alone_are_told(my_box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("resnet18", "inference"): answer([0.1], 41e6, busy=0.97),
        ("resnet18", "full"): answer([0.1], 41e6, busy=0.94),
        ("resnet18", "tent"): answer([0.1], 41e6, busy=0.5),
    }
    given = ("--models", "resnet18", "--methods", "inference,full,tent")
    done, _ = run(monkeypatch, answers, *given, "--save", "kept.json")
    assert done.exit_code == 0
    said = [line for line in done.stderr.splitlines() if "warning" in line]
    assert said == [
        "bench: warning: resnet18 full had a processor only 94% of the time: others were at work",
        "bench: warning: resnet18 tent had a processor only 50% of the time: others were at work",
    ]
    told = (
        "not alone: 2 of 3 cases; resnet18 tent had a processor only 50% of the time: "
        "others were at work"
    )
    assert told in done.stdout.splitlines()
    again, _ = run(monkeypatch, answers, "--from", "kept.json")
    assert told in again.stdout.splitlines()
    quiet, _ = run(monkeypatch, answers, *given, "--cpu-time")
    assert "others were at work" not in quiet.output


def test_an_accelerator_keeps_no_processor_busy() -> None:
    on = check.CheckResults({"threads": 1, "accelerator": "H100"})
    assert on.contention_warning("it", 0.1) == ""


@pytest.mark.parametrize(("threads", "expected"), [(1, 1.0), (4, 0.5)])
def test_the_share_of_a_watched_step_is_that_of_each_thread(
    monkeypatch: pytest.MonkeyPatch, threads: int, expected: float
) -> None:
    now = {"process": 0.0, "wall": 0.0}
    monkeypatch.setattr(time, "process_time", lambda: now["process"])
    monkeypatch.setattr(time, "perf_counter", lambda: now["wall"])
    for name in ("settle", "reset_peak"):
        monkeypatch.setattr(memory, name, lambda accelerator: None)
    monkeypatch.setattr(memory, "peak_bytes", lambda accelerator: 1)
    watch = Watch(2, "cpu", threads=threads)
    for _ in range(WARM + 2):
        with watch.step(lambda: []):
            now["process"] += 2.0
            now["wall"] += 1.0
    assert watch.seen.busy == expected


def test_a_machine_without_the_accelerator_is_refused(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = my_box / "my-box.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"accelerator": "cuda"}))
    assert "accelerator cuda: torch finds none here" in refused(["my-box"], monkeypatch, capfd)


def test_nothing_measured_is_bad_input(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(fresh, "measure_fresh", FakeProcess({}))
    monkeypatch.setattr(
        sys, "argv",
        ["bench", "device", "check", "my-box", "--models", "resnet18", "--methods", "lora"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "nothing was measured: resnet18 lora" in capfd.readouterr().err


def test_a_busy_machine_is_refused(
    my_box: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(machine, "others_at_work", lambda: 2.0)
    assert "wait until the machine is idle" in refused(["my-box"], monkeypatch, capfd)


def test_a_profile_without_calibration_predicts_what_is_allocated() -> None:
    device = load_device("raspberry-pi-5")
    assert isinstance(device, ModelledDevice)
    found = check.row("a", "b", answer([0.1], 41e6), device)
    assert found.predicted_bytes == found.allocated_bytes == 30e6


def test_the_verdict_names_the_worst_case() -> None:
    rows = [
        Row("a", "x", 1.0, 1.1, 1.0, 1.0, 1.2, 1.0),
        Row("b", "y", 1.0, 0.6, 1.0, 1.0, 1.0, 1.0),
        Row("c", "z", 1.0, 1.05, 1.0, 1.0, 1.0, 1.0),
    ]
    time, held = verdicts(rows)
    assert (time.median, time.worst, time.where) == (pytest.approx(0.1), pytest.approx(0.4), "b y")
    assert not time.met
    assert (held.median, held.where, held.met) == (0.0, "a x", True)


# --- watching real steps --------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


needs_linux = pytest.mark.skipif(
    not memory.CLEAR.exists(), reason="resident peaks are read from Linux' /proc"
)


@needs_linux
def test_steady_steps_are_measured_and_the_last_is_counted() -> None:
    clock = Clock()
    watch = Watch(2, "cpu", clock)
    taken = []
    x = torch.rand(4, 4)
    while not watch.done:
        with watch.step(lambda: [x]):
            taken.append(x @ x)
            clock.now += len(taken)
    assert len(taken) == WARM + 2 + 1
    assert watch.seen.seconds == [WARM + 1, WARM + 2]
    assert watch.seen.trace.launches == 1
    assert watch.seen.trace.resident_bytes == 64


@needs_linux
def test_the_peak_is_that_since_the_reset() -> None:
    memory.long_run()
    before = memory.held_bytes("cpu")
    memory.reset_peak("cpu")
    torch.ones(25_000_000)  # 100 MB, gone at once
    high = memory.peak_bytes("cpu") - before
    assert 90e6 < high < 160e6
    memory.reset_peak("cpu")
    assert memory.peak_bytes("cpu") - before < 50e6


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A vision transformer and a network of convolutions for images of 16 x 16."""
    settings = {"patch": 8, "width": 32, "depth": 2, "heads": 4}
    vit = ModelSpec("digits-vit", (1, 16, 16), settings)
    monkeypatch.setitem(MODELS, "vit-tiny", vit)
    resnet = ModelSpec("timm", (3, 16, 16), {"architecture": "resnet18"})
    monkeypatch.setitem(MODELS, "resnet18", resnet)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


@cache  # it takes seconds, and two tests look at the same ones
def case(model: str, method: str, threads: int = 1) -> dict[str, Any]:
    return measured_case(
        {"model": model, "method": method, "batch": 2, "repeats": 1, "accelerator": "cpu",
         "clock": "wall", "threads": threads}
    )  # fmt: skip


@needs_linux
def test_a_case_tells_the_share_of_each_of_its_threads(small: None) -> None:
    assert case("vit-tiny", "inference", threads=100)["busy"] < 0.3


@needs_linux
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_its_own_step_on_a_transformer(small: None, method: str) -> None:
    found = json.loads(json.dumps(case("vit-tiny", method)))
    trace = trace_from_json(found["trace"])
    assert len(found["seconds"]) == 1
    assert found["parameters"] > 20_000
    assert trace.peak_bytes >= trace.resident_bytes > 4 * 20_000
    kinds = {key[0] for key in trace.details}
    assert "addmm.nt" in kinds
    assert ("optimiser" in kinds) == (method != "inference")
    assert trace.details.total() >= trace.operations.total()


@needs_linux
def test_methods_differ_in_what_they_train(small: None) -> None:
    counted = {m: trace_from_json(case("vit-tiny", m)["trace"]) for m in METHODS}
    flops = {method: trace.flops for method, trace in counted.items()}
    for method in ("bias-only", "last-half", "tent"):
        assert flops["inference"] < flops[method] < flops["full"]

    def moved(method: str) -> float:
        return sum(k[4] * n for k, n in counted[method].details.items() if k[0] == "optimiser")

    assert moved("tent") < moved("bias-only") < moved("lora") < moved("last-half") < moved("full")


@needs_linux
def test_what_needs_blocks_does_not_apply_to_convolutions(small: None) -> None:
    assert case("resnet18", "edgeta") == {"skipped": "resnet18 declares no blocks"}
    trace = trace_from_json(case("resnet18", "last-half")["trace"])
    assert any(kind.startswith("convolution_backward") for kind, *_ in trace.details)


def test_the_later_half_of_a_transformer_begins_with_a_block(small: None) -> None:
    from bench.calibration.reference_workloads import later_half

    assert later_half(MODELS["vit-tiny"].build()) == "blocks.1."
    assert later_half(MODELS["bert-mini"].build()) == "bert.encoder.layer.2."


def test_names_are_chosen_in_the_order_given() -> None:
    assert chosen(None, ["a", "b"], "models") == ["a", "b"]
    assert chosen("b, a,b", ["a", "b"], "models") == ["b", "a"]


def test_runtime_is_warmed_with_convolutions_products_and_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    real = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention",
        lambda *given, **more: called.append(1) or real(*given, **more),
    )  # fmt: skip
    warm_runtime("cpu")
    assert called


# --- a process of its own ---------------------------------------------------------------------


@needs_linux
def test_a_fresh_process_answers() -> None:
    network = {"kind": "tokens", "width": 16, "depth": 1, "batch": 2, "trained": "all"}
    found = fresh.measure_fresh({"what": "a test", "network": network, "accelerator": "cpu"}, 1)
    assert found["runtime"] > 5e7
    assert found["step"] > 0
    assert found["resident"] > -5e6


def test_the_last_words_of_a_process_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess_call, "subprocess", warm_subprocess)
    with pytest.raises(BenchError) as caught:
        fresh.measure_fresh({"what": "a test", "network": {"kind": "?"}, "accelerator": "cpu"}, 1)
    assert str(caught.value).startswith("a test: TypeError")


def test_a_trace_goes_through_json_unchanged() -> None:
    call = ("mm.nn", "matmul", "float32", 1e6, 1e4)
    trace = StepTrace(Counter({call[1:]: 10}), 30, 10, Counter({call: 10}))
    assert trace_from_json(json.loads(json.dumps(trace_to_json(trace)))) == trace


def test_a_check_finds_a_profile_in_the_folder_first(my_box: Path) -> None:
    assert check.find_device("my-box").threads == 1
    assert check.find_device("my-box.yaml").threads == 1
    assert check.find_device("xavier-nx").threads is None
