"""The toy methods of searches, registered, and a suite over them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from toy_search import PLUGIN, Bench

from bench import registry


@pytest.fixture
def plugin(tmp_path: Path, empty_registry: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "toys.py"
    path.write_text(PLUGIN)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder's files are compared
    registry.add_plugin(path)
    return path


@pytest.fixture
def bench(tmp_path: Path, plugin: Path) -> Bench:
    return Bench(tmp_path)
