"""Every method that ships keeps the contract: the conformance suite, method by method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import registry
from bench.conformance import check_method, methods_of_file
from bench.registry import components

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list(registry.entries("method")))
def test_the_method_keeps_the_contract(name):
    failed = [result.line for result in check_method(name) if not result.passed]
    assert not failed, "\n".join(failed)


def test_the_example_of_contributing_keeps_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "_plugins", {})
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    file = tmp_path / "contributed.py"
    file.write_text(example)
    try:
        (name,) = methods_of_file(str(file))
        failed = [result.line for result in check_method(name) if not result.passed]
    finally:
        components._table.cache_clear()
    assert not failed, "\n".join(failed)
