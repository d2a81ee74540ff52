"""A plugin that imports what has moved gets an error with the new place, and that place exists."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.registry.moved import moved_names

MODULES, NAMES = moved_names()

METHOD = """
from bench import Method, register

@register("method", "mine")
class Mine(Method):
    pass
"""


@pytest.fixture(autouse=True)
def _own_components() -> Iterator[None]:
    with registry.isolated():
        yield


@pytest.mark.parametrize("old", MODULES)
def test_each_module_is_gone_and_its_new_place_is_there(old: str) -> None:
    assert importlib.util.find_spec(MODULES[old]) is not None
    parent = old.rpartition(".")[0]
    if importlib.util.find_spec(parent) is not None:
        assert importlib.util.find_spec(old) is None


@pytest.mark.parametrize("old", NAMES)
def test_each_name_is_in_its_new_place(old: str) -> None:
    module, _, name = NAMES[old].rpartition(".")
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("from bench.batch import DomainView", "from bench import DomainView"),
        ("from bench.method import Method, tunable", "from bench import Method"),
        ("from bench.scenario import Scenario", "from bench import Stream"),
        ("from bench.run import run_job", "from bench.run.run_cell import run_job"),
        (
            "from bench.device.profile import load_device",
            "from bench import load_device",
        ),
        (
            "from bench.device.meters.rapl import find",
            "from bench.meters.rapl import find",
        ),
        ("import bench.device.profile", "import bench.costs.device_profile"),
        (
            "from bench.methods.tent import entropy",
            "from bench.methods._losses import entropy",
        ),
    ],
)
def test_a_plugin_is_told_line_and_cure_in_one_line(tmp_path: Path, line: str, cure: str) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"import math\n{line}\n{METHOD}")
    registry.add_plugin(plugin)
    with pytest.raises(BenchError) as caught:
        registry.load("method", "mine")
    text = str(caught.value)
    assert text.startswith(f"plugin {plugin}, line 2: ")
    assert text.endswith(f"has moved; write {cure!r}")


def test_an_import_that_is_tried_is_left_to_the_plugin(tmp_path: Path) -> None:
    tried = (
        "try:\n    from bench import DomainView\n"
        "except ImportError:\n    from bench.batch import DomainView\n"
    )
    plugin = tmp_path / "plugin.py"
    plugin.write_text(tried + METHOD)
    registry.add_plugin(plugin)
    assert registry.load("method", "mine").registered_name == "mine"
