"""Where records say that a method comes from: the project, or a reader's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.records.cell import Component
from bench.run.results import method_facts
from bench.testing.makers import make_cell

PLUGIN = '''
from bench import register
from bench.methods.tent import Tent

@register("method", "mine")
class Mine(Tent):
    """A method of a reader."""

@register("method", "said")
class Said(Tent):
    """A published method that a reader wrote."""
    provenance = "group-harness"

@register("method", "chosen")
class Chosen(Tent):
    """A method whose file was copied from a template."""
    provenance = "chosen-here"
'''


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine", "plugin"),  # and not Tent's
        ("said", "group-harness"),
        ("chosen", "plugin"),
        ("tent", "published"),
        ("source-only", "chosen-here"),
    ],
)
def test_a_plugins_method_is_nobody_elses(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    with registry.isolated():
        registry.add_plugin(tmp_path / "mine.py")
        cell = make_cell(method=Component(name=name, code="c0de"))
        assert method_facts(cell).provenance == expected
