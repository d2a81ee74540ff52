"""A driver that is not there: what the package nvidia-ml-py offers of it, over made-up GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    pass


@dataclass
class FakeGpu:
    """``millijoules``: readings of its counter, the last one again and again; none: no counter.

    ``processes``: bytes by process.
    """

    uuid: str
    name: str = "Made-up 9000"
    millijoules: tuple[float, ...] = (0.0,)
    mig: bool = False
    processes: dict[int, int] = field(default_factory=dict)

    def readings(self) -> Iterator[float]:
        yield from self.millijoules
        while self.millijoules:
            yield self.millijoules[-1]


class FakeNvml:
    """Stands for the module ``pynvml``."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1

    def __init__(self, *gpus: FakeGpu, works: bool = True) -> None:
        self.gpus, self.works = gpus, works
        self._readings = {gpu.uuid: gpu.readings() for gpu in gpus}

    def nvmlInit(self) -> None:
        if not self.works:
            raise NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> str:
        return "590.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:
        return gpu.name.encode()  # as older releases do

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:
        return int(gpu.mig), int(gpu.mig)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return 300_000

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        return 1980

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return [SimpleNamespace(pid=p, usedGpuMemory=b) for p, b in gpu.processes.items()]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> float:
        for millijoules in self._readings[gpu.uuid]:
            return millijoules
        raise NVMLError("Not Supported")
