"""Every method that ships keeps the contract: the conformance suite, method by method."""

from __future__ import annotations

import pytest

from bench import registry
from bench.check import check_method


@pytest.mark.parametrize("name", list(registry.entries("method")))
def test_the_method_keeps_the_contract(name):
    failed = [result.line for result in check_method(name) if not result.passed]
    assert not failed, "\n".join(failed)
