"""Small parts for tests: of this project, and of packages and files that add components to it.

A test of one's own method needs no data set and no network of notable size::

    from bench.testing import run_method

    def test_it_sees_each_sample_once():
        result = run_method(Mine(MineConfig()), name="online", batch_size=4)
        assert [stage.charges["toy"].steps for stage in result.stages] == [3, 3]

This package imports torch; ``import bench`` does not import it.
"""

from __future__ import annotations

from bench.registry import isolated as isolated_registry
from bench.testing.makers import make_cell, make_device, make_record
from bench.testing.methods import CountingMethod, LearningMethod
from bench.testing.model import TinyModel, TinyModelConfig
from bench.testing.run import run_method
from bench.testing.stream import TinyStream, TinyStreamConfig

__all__ = [
    "CountingMethod",
    "LearningMethod",
    "TinyModel",
    "TinyModelConfig",
    "TinyStream",
    "TinyStreamConfig",
    "isolated_registry",
    "make_cell",
    "make_device",
    "make_record",
    "run_method",
]
