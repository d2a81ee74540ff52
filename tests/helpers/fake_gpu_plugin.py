"""A plugin whose runs on a GPU compute on one that is not there, and small parts.

The method waits in each run, so that runs in two slots overlap, and is wrong on the GPU where the
variable ``PLANTED`` is set. Processes find the driver by `SITE`, as a file ``sitecustomize.py``.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
from tagged_gpu import tagged_gpu

from bench import register
from bench.contracts.model import SourceTraining
from bench.testing import LearningMethod, TinyModel, TinyStream

UUID = "GPU-aaaa-1"
SITE = f"""
import sys
from fake_nvml import FakeGpu, FakeNvml
sys.modules["pynvml"] = FakeNvml(FakeGpu("{UUID}"))
"""
SUITE = """
name: tiny
description: Small parts.
stream: tiny-stream
model: tiny-model
methods: [learning]
seeds: 2
devices: [xavier-nx]
protocol: {batch_size: 4}
"""
WAIT_S = 1.5

if os.environ.get("CUDA_VISIBLE_DEVICES") == UUID and "bench.execute.fork_server" in sys.orig_argv:
    _entered = tagged_gpu()  # to the end of this run's process
    _entered.__enter__()


@register("model", "tiny-model")
class Trained(TinyModel):
    """Is trained for a moment."""

    source_training = SourceTraining(epochs=4, batch_size=4)


@register("stream", "tiny-stream")
class OneClass(TinyStream):
    """All samples but the first are of class 1."""

    def labels(self, place: int, number: torch.Tensor) -> torch.Tensor:
        return (number > 0).long()


@register("method", "learning")
class Learning(LearningMethod):
    """Takes gradient steps; with a planted defect its decisions on the GPU are the other ones."""

    def prepare(self, model: Any, source: Any) -> None:
        super().prepare(model, source)
        if next(model.module.parameters()).is_cuda:
            time.sleep(WAIT_S)

    def predict(self, x: Any) -> torch.Tensor:
        outputs = super().predict(x)
        return -outputs if x.is_cuda and os.environ.get("PLANTED") else outputs
