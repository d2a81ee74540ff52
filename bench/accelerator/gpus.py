"""The GPUs of this machine as the driver sees them: nothing here starts CUDA.

They are read through NVML (package nvidia-ml-py). Where it is missing torch is asked, which counts
GPUs through NVML too (`NVML_CHECK`), and GPUs have no UUID.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError

NVML_CHECK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""With it ``torch.cuda.is_available()`` asks the driver, and a process can still fork."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; ``uuid`` is empty where the driver was not asked."""

    index: int
    uuid: str = ""
    name: str = "GPU"
    driver: str = ""
    mig: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.uuid})" if self.uuid else f"{self.name} {self.index}"


@contextmanager
def opened_nvml(nvml: Any = None) -> Iterator[Any]:
    """NVML, initialised; None where it, or the driver, is missing. ``nvml``: for tests."""
    if nvml is None:
        with suppress(ImportError):
            nvml = importlib.import_module("pynvml")
    if nvml is not None:
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            nvml = None
    try:
        yield nvml
    finally:
        if nvml is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def list_gpus(nvml: Any = None, environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that this process may use, in NVML's order; empty if there is none.

    ``CUDA_VISIBLE_DEVICES`` hides others, as from CUDA. Raises BenchError where its numbers may
    mean other GPUs to CUDA than to NVML.
    """
    with opened_nvml(nvml) as found:
        if found is None:
            return _by_torch()
        try:
            driver = _text(found.nvmlSystemGetDriverVersion())
            count = int(found.nvmlDeviceGetCount())
            gpus = [_read(found, i, driver) for i in range(count)]
        except found.NVMLError:
            return _by_torch()
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        _require_clear(named, gpus)
    return _visible(gpus, named)


def compute_processes(uuid: str, nvml: Any = None) -> list[int] | None:
    """Processes that compute on a GPU; None where the driver does not say."""
    listed = _listed(uuid, nvml)
    return None if listed is None else [process.pid for process in listed]


def process_bytes(uuid: str, nvml: Any = None) -> int | None:
    """GPU memory of this process, with CUDA's context, by the driver; None where it does not say.

    In a container the driver may know the process by another number: one that is alone is this.
    """
    listed = _listed(uuid, nvml) or []
    mine = [p for p in listed if p.pid == os.getpid()] or (listed if len(listed) == 1 else [])
    size = mine[0].usedGpuMemory if mine else None
    return None if size is None else int(size)


def _listed(uuid: str, nvml: Any) -> list[Any] | None:
    with opened_nvml(nvml) as found:
        if found is None:
            return None
        try:
            handle = found.nvmlDeviceGetHandleByUUID(uuid)
            return list(found.nvmlDeviceGetComputeRunningProcesses(handle))
        except found.NVMLError:
            return None


def _read(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    mig = False
    with suppress(nvml.NVMLError, AttributeError):  # older GPUs, and older releases of the package
        mig = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    return Gpu(index, uuid, _text(nvml.nvmlDeviceGetName(handle)), driver, mig)


def _require_clear(named: str | None, gpus: list[Gpu]) -> None:
    """BenchError for numbers of unlike GPUs: CUDA's own order has the fastest first."""
    numbers = [part for part in map(str.strip, (named or "").split(",")) if part.isdigit()]
    if numbers and len({gpu.name for gpu in gpus}) > 1:
        raise BenchError(
            f"CUDA_VISIBLE_DEVICES={named}: numbers of unlike GPUs depend on CUDA's order; set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs of 'nvidia-smi -L'"
        )


def _visible(gpus: list[Gpu], named: str | None) -> list[Gpu]:
    """Those that CUDA shows to this process, by indices or (beginnings of) UUIDs."""
    if named is None:
        return gpus
    found = []
    for part in filter(None, (part.strip() for part in named.split(","))):
        chosen = [g for g in gpus if (part == str(g.index) or g.uuid.startswith(part))]
        if part.startswith("MIG-"):  # a slice, which NVML lists below its GPU
            chosen = [Gpu(0, part, "MIG slice", gpus[0].driver if gpus else "", True)]
        if len(chosen) != 1:  # as CUDA: what follows a wrong one is hidden too
            break
        found += chosen
    return found


def _by_torch() -> list[Gpu]:
    os.environ.update(NVML_CHECK)
    import torch

    return [Gpu(i) for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def _text(value: str | bytes) -> str:
    """Older releases of nvidia-ml-py return bytes."""
    return value.decode() if isinstance(value, bytes) else value
