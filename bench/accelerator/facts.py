"""What a record says of the GPU that a run was computed on, and whether others use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bench.accelerator.gpus import Gpu, compute_processes, list_gpus, opened_nvml


def gpu_in_use(nvml: Any = None, environ: Mapping[str, str] = os.environ) -> Gpu | None:
    """The GPU that torch calls 0 in this process; None where the driver does not say."""
    return next(iter(list_gpus(nvml, environ)), None)


def accelerator_facts(kind: str, nvml: Any = None) -> dict[str, Any]:
    """GPU, driver, versions and settings, for the environment of a record; empty for the CPU.

    Versions of CUDA's libraries are those of this process, and left out where it has not used
    CUDA: nothing is started here.
    """
    if kind == "cpu":
        return {}
    import torch

    gpu = gpu_in_use(nvml) or Gpu(0)
    facts: dict[str, Any] = {"kind": kind, "gpu": gpu.name, "gpu_uuid": gpu.uuid}
    facts |= {"driver": gpu.driver, "cuda": torch.version.cuda or ""}
    facts |= _power_and_clocks(gpu, nvml)
    if torch.cuda.is_initialized():
        facts["gpu"] = torch.cuda.get_device_name(0)
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["tf32"] = bool(
            torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        )
        facts["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    return {"accelerator": facts}


def why_not_alone(gpu: Gpu | None, ours: int, nvml: Any = None) -> str:
    """Why what a meter reads of a GPU is not this process's alone; empty where it is.

    ``ours``: how many of the processes that the driver lists this one is: 0 before it has used
    CUDA, then 1. In a container the driver may know it by another number.
    """
    if gpu is None or not gpu.uuid:
        return ""  # a board without NVML, whose meter is of the whole board
    if gpu.mig:
        return f"{gpu} is divided (MIG), and the energy of a slice is not measured"
    listed = compute_processes(gpu.uuid, nvml)
    if listed is not None and len(listed) > ours:
        others = ", ".join(str(pid) for pid in listed if pid != os.getpid())
        return f"{gpu} is shared: processes {others} compute on it too; stop them, or take another"
    return ""


def _power_and_clocks(gpu: Gpu, nvml: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with opened_nvml(nvml) as driver:
        if driver is None or not gpu.uuid:
            return found
        with suppress(driver.NVMLError, AttributeError):
            handle = driver.nvmlDeviceGetHandleByUUID(gpu.uuid)
            found["power_limit_w"] = driver.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
            found["max_clock_mhz"] = driver.nvmlDeviceGetMaxClockInfo(handle, driver.NVML_CLOCK_SM)
    return found
