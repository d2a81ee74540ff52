"""``from bench import ...``: every name is there, and nothing heavy is imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bench


@pytest.mark.parametrize("name", bench.__all__)
def test_every_name_resolves(name: str) -> None:
    assert getattr(bench, name) is not None


def test_lists_and_type_checkers_see_the_same_names() -> None:
    assert bench.__all__ == sorted(bench.__all__)
    assert set(bench.__all__) <= set(dir(bench))
    tree = ast.parse(Path(bench.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench.")
        for alias in node.names
    }
    assert imported == set(bench.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'bench' has no attribute 'Scenario'"):
        _ = bench.Scenario


def test_the_import_loads_no_heavy_library() -> None:
    code = (
        "import sys, bench; bench.register; bench.BenchError; dir(bench)\n"
        "print({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
