"""NVML's energy counter, with a fake NVML: which GPU, how much, and why not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench.meters.base import MeterError
from bench.meters.nvml import NvmlMeter


class FakeNvml:
    """As much of pynvml as the meter uses; a handle is an index."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules: int | None, driver: bool = True, as_bytes: bool = False):
        self.millijoules = list(millijoules)
        self._driver = driver
        self._as_bytes = as_bytes

    def _text(self, text: str) -> Any:
        return text.encode() if self._as_bytes else text

    def nvmlInit(self) -> None:
        if not self._driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return self._text(f"model {handle}")

    def nvmlDeviceGetUUID(self, handle: int) -> Any:
        return self._text(f"GPU-{handle}{handle}-aa")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        millijoules = self.millijoules[handle]
        if millijoules is None:
            raise self.NVMLError("Not Supported")
        return millijoules


def scope(nvml: FakeNvml, gpu: Any = None, **environ: str) -> str:
    return NvmlMeter(gpu, nvml=nvml, environ=environ).scope


def complaint(nvml: FakeNvml | None, gpu: Any = None, **environ: str) -> str:
    with pytest.raises(MeterError) as caught:
        NvmlMeter(gpu, nvml=nvml, environ=environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_millijoules_are_subtracted(clock: Any, lock: Any, as_bytes: bool) -> None:
    nvml = FakeNvml(5_000_000, as_bytes=as_bytes)
    meter = NvmlMeter(nvml=nvml, environ={}, clock=clock, ticker=clock.ticker, lock=lock)
    meter.begin()
    clock.sleep(2.0)
    nvml.millijoules[0] = 5_140_250
    energy = meter.end()
    assert energy.joules == pytest.approx(140.25)
    assert energy.how == "NVML (GPU model 0 (GPU-00-aa)), difference of the energy counter"


@pytest.mark.parametrize(
    ("gpu", "environ", "index"),
    [
        (1, {}, 1),
        (1, {"CUDA_VISIBLE_DEVICES": "0"}, 1),
        ("GPU-22-aa", {}, 2),
        ("GPU-2", {}, 2),
        (None, {"CUDA_VISIBLE_DEVICES": "GPU-11-aa,GPU-22-aa"}, 1),
        (None, {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 2),
    ],
)
def test_the_gpu_that_cuda_calls_0_or_that_was_named(
    gpu: Any, environ: dict[str, str], index: int
) -> None:
    assert scope(FakeNvml(1, 2, 3), gpu, **environ).startswith(f"GPU model {index} ")


def test_the_only_gpu_needs_no_order() -> None:
    assert scope(FakeNvml(1), CUDA_VISIBLE_DEVICES="0").startswith("GPU model 0")


@pytest.mark.parametrize(
    ("gpu", "environ", "why"),
    [
        (None, {}, "this machine has 2 GPUs and none is named"),
        (None, {"CUDA_VISIBLE_DEVICES": "1"}, "may be another GPU for NVML"),
        (None, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides every GPU"),
        (None, {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
        (None, {"CUDA_VISIBLE_DEVICES": "MIG-1"}, "GPU 'MIG-1' is 0 of this machine's GPUs"),
        ("GPU-", {}, "GPU 'GPU-' is 2 of this machine's GPUs (GPU-00-aa, GPU-11-aa)"),
        (2, {}, "GPU 2 is none of this machine's 2 GPUs"),
    ],
)
def test_the_wrong_gpu_is_never_measured(gpu: Any, environ: dict[str, str], why: str) -> None:
    assert why in complaint(FakeNvml(1, 2), gpu, **environ)


def test_a_machine_without_gpu() -> None:
    assert "this machine has 0 GPUs" in complaint(FakeNvml())


def test_a_machine_without_driver() -> None:
    assert complaint(FakeNvml(1, driver=False)) == (
        "NVML fails: Driver Not Loaded; check the NVIDIA driver"
    )


def test_a_gpu_without_counter_as_jetsons_and_older_ones() -> None:
    text = complaint(FakeNvml(None))
    assert "GPU model 0 gives no total energy: Not Supported" in text


def test_the_package_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert complaint(None) == "package nvidia-ml-py is not installed; pip install nvidia-ml-py"


def test_the_package_is_found_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(1))  # type: ignore[arg-type]
    assert NvmlMeter(environ={}).scope.startswith("GPU model 0")


def test_a_driver_that_is_reloaded_within_a_window(clock: Any, lock: Any) -> None:
    nvml = FakeNvml(5_000_000)
    meter = NvmlMeter(nvml=nvml, environ={}, clock=clock, ticker=clock.ticker, lock=lock)
    meter.begin()
    clock.sleep(2.0)
    nvml.millijoules[0] = 100
    with pytest.raises(MeterError, match=r"went back from 5000 J to 0\.1 J; it was reset"):
        meter.end()
