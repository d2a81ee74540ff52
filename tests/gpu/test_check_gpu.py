"""The script that checks a GPU, as far as it can run without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import check_gpu
import pytest
from check_gpu import Network, Result
from fake_nvml import FakeGpu, FakeNvml
from tagged_gpu import tagged_gpu

from bench.accelerator.gpus import Gpu

TINY = Network("digits-vit", {"depth": 2, "width": 32}, (1, 32, 32))
GPU = Gpu(0, "GPU-aaaa-1")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """60 W."""
    readings = (0.0, *(60_000.0 * i for i in range(20)))
    fake = FakeNvml(FakeGpu("GPU-aaaa-1", millijoules=readings))
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1")
    with tagged_gpu():
        yield fake


def test_without_a_gpu_it_says_why_it_checks_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(works=False))  # type: ignore[arg-type]
    assert check_gpu.main() == 0
    assert capsys.readouterr().out.startswith("skipped: no GPU can be used here")


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
    (result,) = check_gpu.energy()
    assert result.good is None
    assert "is shared" in result.found


@pytest.mark.usefixtures("driver")
def test_steps_of_methods_are_timed_until_there_is_no_time_left() -> None:
    names = ("tent", "source-only")
    rows = list(check_gpu.step_times(TINY, 4, time.monotonic() + 60, names))
    assert [row[0] for row in rows] == ["source-only", "tent"]
    assert rows[0][1:] == (None, "takes no steps")
    assert rows[1][1] is not None
    assert rows[1][1] > 0
    assert check_gpu.bare_loop(TINY, 4, steps=1) > 0
    late = list(check_gpu.step_times(TINY, 4, time.monotonic() - 1, names))
    assert {row[2] for row in late} == {"no time left"}


def scored(*scores: float) -> list[Any]:
    method = SimpleNamespace(method=SimpleNamespace(name="tent"))
    return [SimpleNamespace(cell=method, results=SimpleNamespace(score=s)) for s in scores]


@pytest.mark.parametrize(
    ("cpu", "cuda", "good"),
    [
        ((0.5, 0.6), (0.5, 0.6), True),
        ((0.5, 0.6), (0.6, 0.7), True),  # within three standard errors, which are 0.05
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

    first, second = check_gpu.guarded("second", check)
    assert first.good is True
    assert str(second) == "| second | **NO** | RuntimeError: no / such |"
