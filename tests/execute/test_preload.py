"""What the process that runs are forked from has imported before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.execute.processes import _preload


@pytest.mark.parametrize(
    ("model", "modules"),
    [
        ("small-detector", {"PIL.Image", "timm.models.vision_transformer", "torchvision.ops"}),
        ("small-segmenter", {"torchmetrics.classification"}),
    ],
)
def test_it_has_what_the_components_and_the_task_are_slow_to_import(
    model: str, modules: set[str]
) -> None:
    names = {"stream": "domain-shift", "model": model, "method": "source-only"}
    cell: Any = SimpleNamespace(**{k: SimpleNamespace(name=v) for k, v in names.items()})
    found = _preload(cell)
    assert modules <= set(found)
    assert len(set(found)) == len(found)
