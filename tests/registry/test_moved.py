"""A plugin that imports what has moved gets an error with the new place, and that place exists."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.registry.moved import MovedModules, moved_names

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
def test_each_module_is_gone_and_its_new_place_is_there(
    old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)  # another test may have imported it
    assert importlib.util.find_spec(MODULES[old]) is not None
    spec = importlib.util.find_spec(old)
    assert spec is not None
    assert isinstance(spec.loader, MovedModules)


@pytest.mark.filterwarnings("ignore:.*has moved")
@pytest.mark.parametrize("old", ["bench.device.trace", "bench.state", "bench.device.meters"])
def test_a_script_that_imports_an_old_module_gets_the_new_one(old: str) -> None:
    assert importlib.import_module(old) is importlib.import_module(MODULES[old])


def test_the_old_place_of_a_module_is_told_when_a_script_imports_it() -> None:
    sys.modules.pop("bench.device.cost", None)
    with pytest.warns(
        FutureWarning, match=r"bench\.device\.cost has moved: import bench\.costs\.p"
    ):
        importlib.import_module("bench.device.cost")


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"bench\.no_such_module"):
        importlib.import_module("bench.no_such_module")


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
