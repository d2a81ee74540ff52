"""Methods go back to the model that was prepared, ``reset: domain``: copies share nothing."""

from __future__ import annotations

import pytest

from bench import Unsupported, registry
from bench.testing import TinyModel, TinyStream, run_method

ELSEWHERE = {
    "edgeta": "trains offline for minutes",
    "elastic-edgeta": "trains offline for minutes",
    "apps-": "does several applications",
}
NEEDS = {
    "cotta": "images", "rotta": "images", "deyo": "images", "memo": "images", "lora": "blocks",
    "norm": "BatchNorm", "prune-train": "convolutions",
    "mpnp-llm": "modalities", "full-modality": "modalities",
    "last-blocks": "blocks", "prefix-tuning": "causal language model",
    "promptfuse": "modalities", "ep-alm": "modalities", "agile-nn": "images",
    "all-local": "images", "all-remote": "images", "deepcod": "images", "early-exit": "images",
}  # fmt: skip
"""What the tiny parts do not have."""


def methods() -> list[str]:
    return [name for name in registry.entries("method") if not name.startswith(tuple(ELSEWHERE))]


@pytest.mark.parametrize("name", methods())
def test_every_method_can_be_reset(name: str) -> None:
    method_class = registry.load("method", name)
    # In so small a network the forward pass is most of a step: budgets are near all of it
    elastic = name.startswith("elastic-") or name == "green-trainer"
    settings = method_class.conformance_config if elastic else {}
    method = method_class(method_class.Config(**settings))
    stream = TinyStream(seed=0)
    model = TinyModel.build(None, stream.input_shape, stream.classes)

    def run() -> None:
        labelled = "target_labels" in method_class.needs
        again = {"reset": "domain", "window_s": 1e9, "batch_size": 4}
        result = run_method(method, model=model, stream=stream, labelled=labelled, **again)
        assert [stage.final for stage in result.stages] == [s.after for s in result.stages]

    if name in NEEDS:
        with pytest.raises(Unsupported, match=NEEDS[name]):
            run()
    else:
        run()
