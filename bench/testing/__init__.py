"""Small parts for tests: of this project, and of packages and files that add components to it.

A test of one's own method needs no data set and no network of notable size::

    from bench.testing import run_method

    def test_it_sees_each_sample_once():
        result = run_method(Mine(MineConfig()), name="online", batch_size=4)
        assert [stage.charges["toy"].steps for stage in result.stages] == [3, 3]

This package imports torch; ``import bench`` does not import it.
"""

from bench.registry import isolated as isolated_registry
from bench.testing.makers import make_cell, make_device, make_record
from bench.testing.parts import (
    CountingMethod,
    LearningMethod,
    TinyModel,
    TinyModelConfig,
    TinyNet,
    TinyStream,
    TinyStreamConfig,
)
from bench.testing.run import run_method

__all__ = [
    "CountingMethod",
    "LearningMethod",
    "TinyModel",
    "TinyModelConfig",
    "TinyNet",
    "TinyStream",
    "TinyStreamConfig",
    "isolated_registry",
    "make_cell",
    "make_device",
    "make_record",
    "run_method",
]
