"""The total-energy counter of NVIDIA GPUs, through NVML (package nvidia-ml-py, optional).

The counter is in millijoules since the driver was loaded, on Volta and newer (NVML API reference,
nvmlDeviceGetTotalEnergyConsumption). On Jetson NVML answers that it is not supported. On A100 and
H100 the sensor behind it looks at a quarter of the time (Yang et al., "Part-time power
measurements", arXiv 2312.02741): repeat the work through a window of seconds.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, Unpack

from bench.meters.base import MeterError, Options, ReadFailed
from bench.meters.counter import Counter, CounterMeter

GPU_W = 5000.0
"""No GPU draws as much; a counter that rises faster was reset."""


class NvmlMeter(CounterMeter):
    """Energy of one GPU with its memory; not of the processor that drives it.

    Parameters
    ----------
    gpu : NVML's index or a UUID; by default the first in CUDA_VISIBLE_DEVICES, or the only GPU
    nvml : the module ``pynvml``, for tests

    Raises MeterError if NVML, the GPU or its counter is missing, or if it is not clear which of
    several GPUs the work runs on.
    """

    def __init__(
        self,
        gpu: int | str | None = None,
        *,
        nvml: Any = None,
        environ: Mapping[str, str] = os.environ,
        **options: Unpack[Options],
    ) -> None:
        self._nvml = nvml or _import()
        try:
            self._nvml.nvmlInit()
            handle = self._choose(gpu, environ)
            model = _text(self._nvml.nvmlDeviceGetName(handle))
            uuid = _text(self._nvml.nvmlDeviceGetUUID(handle))
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML fails: {error}; check the NVIDIA driver") from error
        counter = Counter(uuid, lambda: self._total_j(handle, model))
        super().__init__("NVML", f"GPU {model} ({uuid})", [counter], ceiling_w=GPU_W, **options)

    def _total_j(self, handle: Any, model: str) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1e-3
        except self._nvml.NVMLError as error:
            raise ReadFailed(
                f"GPU {model} gives no total energy: {error}; it needs Volta or newer, not a "
                "Jetson or a MIG slice"
            ) from error

    def _choose(self, gpu: int | str | None, environ: Mapping[str, str]) -> Any:
        count = int(self._nvml.nvmlDeviceGetCount())
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        if gpu is None:
            gpu = _first_visible(count, environ)
        if isinstance(gpu, int):
            if not 0 <= gpu < count:
                raise MeterError(f"GPU {gpu} is none of this machine's {count} GPUs; name another")
            return handles[gpu]
        uuids = [_text(self._nvml.nvmlDeviceGetUUID(h)) for h in handles]
        matches = [h for h, u in zip(handles, uuids, strict=True) if gpu and u.startswith(gpu)]
        if len(matches) != 1:
            raise MeterError(
                f"GPU {gpu!r} is {len(matches)} of this machine's GPUs ({', '.join(uuids)}); give "
                "one's index or UUID"
            )
        return matches[0]


def _first_visible(count: int, environ: Mapping[str, str]) -> int | str:
    """The GPU that CUDA calls 0."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None and count == 1:
        return 0
    if visible is None:
        raise MeterError(
            f"this machine has {count} GPUs and none is named; set CUDA_VISIBLE_DEVICES to the "
            "UUID of the one that works"
        )
    first = visible.partition(",")[0].strip()
    if first in ("", "-1"):
        raise MeterError(f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU; name one")
    if not first.isdigit():
        return first
    # CUDA numbers GPUs by speed unless CUDA_DEVICE_ORDER asks for NVML's order.
    if count > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise MeterError(
            f"CUDA_VISIBLE_DEVICES={visible!r} may be another GPU for NVML; set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, or give a UUID"
        )
    return int(first)


def _import() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        why = "package nvidia-ml-py is not installed; pip install nvidia-ml-py"
        raise MeterError(why) from error


def _text(value: str | bytes) -> str:
    """Older releases of nvidia-ml-py return bytes."""
    return value.decode() if isinstance(value, bytes) else value
