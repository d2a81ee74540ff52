"""What a plugin declares of itself wrongly is one line, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.study.plan import make_cells
from bench.study.suite import load_suite

PLUGIN = '''
from bench import StreamConfig, register
from bench.testing import TinyStream

class OddConfig(StreamConfig):
    """``size``: of nothing."""
    size: float = "large"

@register("stream", "odd")
class Odd(TinyStream):
    """Has a default that is no number."""
    Config = OddConfig
'''
SUITE = """\
name: mine
description: a suite for tests
stream: odd
model: digits-vit
methods: [source-only]
seeds: 1
devices: xavier-nx
"""


def test_a_default_that_is_refused_is_named(tmp_path: Path, empty_registry: None) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(SUITE)
    registry.add_plugin(str(tmp_path / "plugin.py"))
    with pytest.raises(BenchError, match="correct the default in its Config") as told:
        make_cells(*load_suite(str(tmp_path / "mine.yaml")))
    assert "stream 'odd': key 'size': 'large' is not allowed" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_setting_that_no_config_has_cannot_stand_behind_a_name(
    tmp_path: Path, empty_registry: None
) -> None:
    plugin = PLUGIN.replace('"large"', "1.0") + "    named_setting = 5\n"
    (tmp_path / "plugin.py").write_text(plugin)
    (tmp_path / "mine.yaml").write_text(SUITE)
    registry.add_plugin(str(tmp_path / "plugin.py"))
    with pytest.raises(BenchError, match="'odd': its named_setting 5 is no setting") as told:
        make_cells(*load_suite(str(tmp_path / "mine.yaml")))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", ["object()", "5", "{1, 2}", "('a', 1)"])
def test_what_is_declared_in_a_wrong_type_is_told(
    tmp_path: Path, empty_registry: None, value: str
) -> None:
    plugin = PLUGIN.replace('"large"', "1.0") + f"    shifts = {value}\n"
    (tmp_path / "plugin.py").write_text(plugin)

    def loaded() -> None:
        registry.add_plugin(str(tmp_path / "plugin.py"))
        registry.load("stream", "odd")

    with pytest.raises(BenchError, match=r"stream 'odd': shifts is .*: write a tuple of texts"):
        loaded()
