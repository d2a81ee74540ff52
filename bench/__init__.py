"""Reference benchmark for adapting foundation models on edge devices.

Methods x models x streams x devices x seeds: each run records accuracy, time, memory and energy;
the records become tables and figures.

The author of a plugin imports all from here: ``from bench import Method, MethodConfig, register,
tunable``. In a notebook: `run_suite`, `load_results`, `report`. Names are imported on first use,
so that ``import bench`` stays instant.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import bench.registry.moved as _moved
from bench.errors import BenchError, Unsupported
from bench.registry.components import add_plugin, load, register

if TYPE_CHECKING:
    from bench.contracts.data import Batch, DomainView, LabelledBatch, LazyInputs, take
    from bench.contracts.dataset import DataChoice, DataSet, DataSetConfig
    from bench.contracts.method import Method, MethodConfig, choice, tunable
    from bench.contracts.model import Block, FoundationModel, ModelConfig, SourceTraining, Variant
    from bench.contracts.protocol import ProtocolConfig
    from bench.contracts.settings import LocalPath
    from bench.contracts.stream import Domain, Split, Stream, StreamConfig
    from bench.contracts.task import MetricFacts, Score, Task
    from bench.costs.device_profile import DeviceProfile, load_device
    from bench.execute.api import SuiteResults, load_results, report, run_suite
    from bench.execute.base import Ended, Executor, Limits, Stopwatch, collect, job_command
    from bench.execute.campaign import CampaignListener
    from bench.records.record import DomainScores
    from bench.run.arrivals import target_view
    from bench.run.protocols.base import Deployment, Protocol, Stage, WindowedConfig
    from bench.run.window import Window
    from bench.study.job import Job
    from bench.tasks.classification import Classification

__version__ = "0.2.0"
__all__ = [
    "Batch",
    "BenchError",
    "Block",
    "CampaignListener",
    "Classification",
    "DataChoice",
    "DataSet",
    "DataSetConfig",
    "Deployment",
    "DeviceProfile",
    "Domain",
    "DomainScores",
    "DomainView",
    "Ended",
    "Executor",
    "FoundationModel",
    "Job",
    "LabelledBatch",
    "LazyInputs",
    "Limits",
    "LocalPath",
    "Method",
    "MethodConfig",
    "MetricFacts",
    "ModelConfig",
    "Protocol",
    "ProtocolConfig",
    "Score",
    "SourceTraining",
    "Split",
    "Stage",
    "Stopwatch",
    "Stream",
    "StreamConfig",
    "SuiteResults",
    "Task",
    "Unsupported",
    "Variant",
    "Window",
    "WindowedConfig",
    "add_plugin",
    "choice",
    "collect",
    "job_command",
    "load",
    "load_device",
    "load_results",
    "register",
    "report",
    "run_suite",
    "take",
    "target_view",
    "tunable",
]

_HOMES = {
    "bench.contracts.data": ("Batch", "DomainView", "LabelledBatch", "LazyInputs", "take"),
    "bench.contracts.dataset": ("DataChoice", "DataSet", "DataSetConfig"),
    "bench.contracts.method": ("Method", "MethodConfig", "choice", "tunable"),
    "bench.contracts.model": (
        "Block",
        "FoundationModel",
        "ModelConfig",
        "SourceTraining",
        "Variant",
    ),
    "bench.contracts.protocol": ("ProtocolConfig",),
    "bench.contracts.settings": ("LocalPath",),
    "bench.contracts.stream": ("Domain", "Split", "Stream", "StreamConfig"),
    "bench.contracts.task": ("MetricFacts", "Score", "Task"),
    "bench.costs.device_profile": ("DeviceProfile", "load_device"),
    "bench.execute.api": ("SuiteResults", "load_results", "report", "run_suite"),
    "bench.execute.base": ("Ended", "Executor", "Limits", "Stopwatch", "collect", "job_command"),
    "bench.execute.campaign": ("CampaignListener",),
    "bench.records.record": ("DomainScores",),
    "bench.run.arrivals": ("target_view",),
    "bench.run.protocols.base": ("Deployment", "Protocol", "Stage", "WindowedConfig"),
    "bench.run.window": ("Window",),
    "bench.study.job": ("Job",),
    "bench.tasks.classification": ("Classification",),
}
sys.meta_path.append(_moved.MovedModules())
_LAZY = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
