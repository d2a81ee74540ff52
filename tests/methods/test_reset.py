"""Methods go back to the model that was prepared, ``reset: domain``: copies share nothing."""

from __future__ import annotations

import pytest

from bench import registry
from bench.testing import TinyModel, TinyStream, run_method

LONG = ("edgeta", "apps-")
"""Those that train offline; their copies are checked by ``bench check``."""


def methods() -> list[str]:
    return [name for name in registry.entries("method") if not name.startswith(LONG)]


@pytest.mark.parametrize("name", methods())
def test_every_method_can_be_reset(name: str) -> None:
    method_class = registry.load("method", name)
    if "domain" not in method_class.shifts or "periodic" not in method_class.protocols:
        pytest.skip("knows other streams alone")
    labelled = "target_labels" in method_class.needs
    result = run_method(
        method_class(method_class.Config()), model=TinyModel.build(None, (2,), 2),
        stream=TinyStream(seed=0), labelled=labelled, reset="domain", window_s=1e9, batch_size=4,
    )  # fmt: skip
    first = result.stages[0]
    assert all(stage.final == stage.after for stage in result.stages)
    assert first.before == result.source_before or len(result.stages) > 1
