"""The script that checks a GPU, over a driver and tensors that stand for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import check_gpu
import fake_nvml
import pytest
import torch
from check_gpu import Clock, Extent, Network, Result
from fake_nvml import FakeGpu, FakeNvml
from tagged_gpu import tagged_gpu

from bench.accelerator.gpus import NVML_CHECK
from bench.contracts.model import FoundationModel
from bench.errors import Unsupported
from bench.records import store

TINY = Network("digits-vit", {"depth": 2, "width": 32}, (1, 32, 32))
HELPERS = Path(fake_nvml.__file__).parent
SMALL = Extent(
    small=(), large=TINY, methods=("tent", "source-only"), batch_size=4, energy_s=1.2, limit_s=3600
)
"""Its limit is an hour, for machines that are busy."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """60 W."""
    readings = (0.0, *(60_000.0 * i for i in range(2000)))
    fake = FakeNvml(FakeGpu("GPU-aaaa-1", millijoules=readings))
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    for name in (
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUBLAS_WORKSPACE_CONFIG",
        *NVML_CHECK,
    ):
        monkeypatch.setenv(name, "")  # put back after the test
        monkeypatch.delenv(name)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        with tagged_gpu():
            yield fake
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Options of a suite whose processes have the driver and the tensors too."""
    from fake_gpu_plugin import SITE, SUITE

    path, site = tmp_path / "tiny.yaml", tmp_path / "site"
    path.write_text(SUITE)
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    found = [str(site), str(HELPERS), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    return "--suite", str(path), "--plugin", str(HELPERS / "fake_gpu_plugin.py")


def without_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_gpu, "suites", lambda *_: iter([Result("suite", None, "left out")]))


class Ran:
    """Stands for a command; with the exit code 130 one that has to be stopped."""

    commands: ClassVar[list[list[str]]] = []
    codes: ClassVar[dict[str, int]] = {}

    def __init__(self, command: list[str], **_: Any) -> None:
        self.commands.append(command)
        kind = Path(command[command.index("--store") + 1]).name
        self.returncode: int | None = self.codes.get(kind, 0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if timeout is not None and self.returncode == 130:
            raise subprocess.TimeoutExpired("bench", timeout)
        return "first\nbench: what | it said last\n", ""

    def nothing(self) -> None:
        """It has ended."""

    kill = wait = terminate = nothing


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the commands of a suite leave in their stores, by "cpu" and "cuda"; may be changed."""
    left = {kind: scored(0.5, 0.6) for kind in ("cpu", "cuda")}
    monkeypatch.setattr(Ran, "commands", [])
    monkeypatch.setattr(Ran, "codes", {})
    monkeypatch.setattr(check_gpu.subprocess, "Popen", Ran)
    monkeypatch.setattr(store, "Store", lambda folder: left[folder.name])
    return left


def rows(report: str) -> dict[str, list[str]]:
    """The cells of each row of the report's tables, by the first one."""
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line[:2] == "| "]
    return {first: [cell.strip(" |") for cell in rest] for first, *rest in lines}


@pytest.mark.usefixtures("driver", "commands")
def test_all_of_it_passes_where_the_gpu_is_as_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    code = check_gpu.main(SMALL)
    report = capsys.readouterr().out
    assert code == 0, report
    title, _, *facts = report.splitlines()[:5]
    assert title == "# A GPU against the CPU"
    assert facts[:2] == ["- kind: cuda", "- gpu: Made-up 9000"]
    found = rows(report)
    checks = {name: cells for name, cells in found.items() if cells[0] in ("yes", "**NO**")}
    assert [name for name, cells in checks.items() if cells[0] != "yes"] == []
    assert list(checks) == [
        "energy of matrix products", "logits of digits-vit", "a step of digits-vit twice",
        "operations of a step of digits-vit", "memory of a step of digits-vit", "what the GPU is",
        "a step of digits-vit in a bare loop", "a step of digits-vit in a bare loop, again",
        "metric of tent", "several runs at a time on the GPU",
    ]  # fmt: skip
    assert checks["metric of tent"][1] == "0.5500 on the CPU, 0.5500 on the GPU, noise 0.0707"
    assert found["bare loop, all weights"][1] == "1.00"
    assert float(found["tent"][0]) > 0
    assert found["source-only"] == ["–", "–", "takes no steps"]
    assert not [cells for cells in found.values() if cells[0] == "not tried"]
    cpu, cuda = Ran.commands
    assert cpu[-2:] == ["--jobs", "8"]
    assert cuda[-4:] == ["--accelerator", "cuda:GPU-aaaa-1", "--per-gpu", "4"]


@pytest.mark.usefixtures("driver")
def test_a_suite_that_differs_on_the_gpu_fails(
    commands: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    commands["cuda"] = scored(0.1, 0.11)
    assert check_gpu.main(replace(SMALL, methods=())) == 1
    found = rows(capsys.readouterr().out)
    assert [name for name, cells in found.items() if "**NO**" in cells] == ["metric of tent"]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("code", [1, 130])
def test_a_suite_that_fails_or_is_too_slow_fails_with_what_it_said(
    code: int, commands: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    Ran.codes["cuda"] = code
    commands["cuda"] = []
    assert check_gpu.main(replace(SMALL, methods=())) == 1
    found = rows(capsys.readouterr().out)
    assert found["the suite on cuda"] == ["**NO**", "bench: what / it said last"]
    assert found["metric of tent"] == ["**NO**", "2 and 0 results"]
    assert found["several runs at a time on the GPU"][0] == "**NO**"


@pytest.mark.slow  # four processes that import torch, and their runs
@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("planted", [False, True])
def test_the_suites_are_run_by_bench_itself(
    planted: bool,
    suite: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if planted:
        monkeypatch.setenv("PLANTED", "1")
    assert check_gpu.main(replace(SMALL, suite=suite, methods=())) == int(planted)
    found = rows(capsys.readouterr().out)
    failed = [name for name, cells in found.items() if "**NO**" in cells]
    assert failed == ["metric of learning"] * planted


@pytest.mark.usefixtures("driver")
def test_logits_that_differ_on_the_gpu_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_suite(monkeypatch)
    forward = FoundationModel.__call__

    def wrong(model: Any, x: Any) -> Any:
        return forward(model, x) + (1e-3 if x.is_cuda else 0)

    monkeypatch.setattr(FoundationModel, "__call__", wrong)
    assert check_gpu.main(replace(SMALL, methods=())) == 1
    found = rows(capsys.readouterr().out)
    assert found["logits of digits-vit"] == ["**NO**", "1.0e-03 apart at most"]
    assert found["suite"] == ["not tried", "left out"]


@pytest.mark.usefixtures("driver")
def test_a_method_whose_step_raises_fails_but_one_that_does_not_apply(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import registry

    without_suite(monkeypatch)
    errors: dict[str, Exception] = {"tent": Unsupported("it has no | such layer")}

    def prepare(method: Any, *_: Any) -> None:
        raise errors["tent"]

    monkeypatch.setattr(registry.load("method", "tent"), "prepare", prepare)
    assert check_gpu.main(SMALL) == 0
    found = rows(capsys.readouterr().out)["tent"]
    assert found == ["–", "–", "does not apply: it has no / such layer"]
    errors["tent"] = RuntimeError("no kernel\nimage")
    assert check_gpu.main(SMALL) == 1
    found = rows(capsys.readouterr().out)["tent"]
    assert found == ["**NO**", "–", "RuntimeError: no kernel"]


@pytest.mark.usefixtures("driver")
def test_a_method_that_is_stopped_leaves_gradients_on_for_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import registry

    def prepare(*_: Any) -> None:
        torch.set_grad_enabled(False)  # as where `no_grad` is stopped on its way in
        time.sleep(60)

    without_suite(monkeypatch)
    monkeypatch.setattr(registry.load("method", "source-only"), "prepare", prepare)
    assert check_gpu.main(replace(SMALL, method_s=5.0)) == 1
    found = rows(capsys.readouterr().out)
    assert found["source-only"] == ["**NO**", "–", "OutOfTime: stopped, it may take 5 s"]
    assert float(found["tent"][0]) > 0


@pytest.mark.usefixtures("driver")
def test_a_check_that_hangs_is_stopped_and_the_rest_is_not_tried_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_suite(monkeypatch)

    def hangs(*_: Any) -> Iterator[Result]:
        try:
            time.sleep(60)
        except Exception:  # as libraries do
            time.sleep(60)
        yield Result("energy", True, "")

    monkeypatch.setattr(check_gpu, "energy", hangs)
    began = time.monotonic()
    assert check_gpu.main(replace(SMALL, limit_s=2.0)) == 1
    assert time.monotonic() - began < 50
    found = rows(capsys.readouterr().out)
    assert found["energy"] == ["**NO**", "OutOfTime: stopped, the report may take 2 s"]
    for name in (
        "suite",
        "parity",
        "determinism",
        "memory of digits-vit",
        "GPU",
        "bare loop",
    ):
        assert found[name] == ["not tried", "no time left"]
    assert found["tent"] == ["–", "–", "no time left"]


def test_what_is_not_tried_has_a_reason() -> None:
    with pytest.raises(ValueError, match="energy: give the reason why it was not tried"):
        Result("energy", None, "")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("check", [check_gpu.parity, check_gpu.determinism])
def test_equal_arithmetic_passes(check: Any) -> None:
    assert [result.good for result in check([TINY])] == [True]


@pytest.mark.usefixtures("driver")
def test_operations_are_equal_and_memory_is_compared_with_what_torch_says() -> None:
    operations, memory = check_gpu.memory(TINY)
    assert operations.good is True
    assert memory.found.startswith("3 MB allocated")  # as the stand-in says


@pytest.mark.usefixtures("driver")
def test_energy_is_read_from_the_driver() -> None:
    (result,) = check_gpu.energy(seconds=1.2)
    assert result.good is True, result.found
    assert " J in 1." in result.found


def test_energy_of_a_shared_gpu_is_not_tried(driver: FakeNvml) -> None:
    driver.gpus[0].processes[7] = 1
    (result,) = check_gpu.energy(seconds=1.2)
    assert result.good is None
    assert "is shared" in result.found


def scored(*scores: float) -> list[Any]:
    """Records of two runs at once."""
    method, at = SimpleNamespace(method=SimpleNamespace(name="tent")), "2026-11-26T12:00:00+00:00"
    known = {"cell": method, "started": at, "wall_s": 5.0}
    return [SimpleNamespace(**known, results=SimpleNamespace(score=s)) for s in scores]


@pytest.mark.parametrize(
    ("cpu", "cuda", "good"),
    [
        ((0.5, 0.6), (0.5, 0.6), True),
        ((0.5, 0.6), (0.6, 0.7), True),  # within three standard errors of the difference, 0.07
        ((0.5, 0.5), (0.6, 0.6), False),
        ((0.5, 0.6), (), False),
    ],
)
def test_metrics_of_two_suites_agree_within_the_noise_of_seeds(
    cpu: tuple[float, ...], cuda: tuple[float, ...], good: bool
) -> None:
    (result,) = check_gpu.compared(scored(*cpu), scored(*cuda))
    assert result.good is good


def test_runs_that_overlap_are_seen(make_record: Any) -> None:
    def at(second: int) -> Any:
        return make_record(started=f"2026-11-26T12:00:{second:02}+00:00", wall_s=5.0)

    assert check_gpu.overlap([at(0), at(2)])
    assert not check_gpu.overlap([at(0), at(20)])


def test_a_check_that_raises_is_a_check_that_failed() -> None:
    def check() -> Iterator[Result]:
        yield Result("first", True, "")
        raise RuntimeError("no | such\nkernel")

    first, second = check_gpu.guarded("second", check, Clock(60.0))
    assert first.good is True
    assert str(second) == "| second | **NO** | RuntimeError: no / such |"


def test_the_command_line_chooses_methods_and_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_gpu.asked([]) == Extent()
    chosen = check_gpu.asked(["--methods", "tent,shot", "--limit", "60"])
    assert chosen == replace(Extent(), methods=["tent", "shot"], limit_s=60.0)
    with pytest.raises(SystemExit) as ended:
        check_gpu.asked(["--methods", "tnet"])
    assert ended.value.code == 2
    assert "tnet" in capsys.readouterr().err.splitlines()[-1]
