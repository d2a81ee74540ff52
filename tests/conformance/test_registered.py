"""Every method, model and stream that ships keeps its contract: the conformance suite, one by one.

Data sets are checked in test_datasets.py, each on a tiny folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import defaults, registry
from bench.conformance import check_component, methods_of_file
from bench.conformance.method_fixture import MethodFixture
from bench.methods._batchnorm import batch_norms
from bench.testing import isolated_registry

ROOT = Path(__file__).resolve().parents[2]


ONE_OF_A_LOOP = {
    "alignment": "feature-alignment",
    "supervised": "fine-tune",
    "Avalanche": "ewc",
    "EdgeTA": "edgeta",
    "test-time": "tent",
}
"""Methods with the same training loop share most code: one of each is checked in every run."""


QUICK = ("declared", "settings", "outputs")
"""Checks that every method goes through in every run: what it says of itself, and that it adapts
and then predicts."""


def require_contract(name: str, kind: str = "method", only: Sequence[str] = ()) -> None:
    failed = [result.line for result in check_component(kind, name, only) if not result.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("loop", ONE_OF_A_LOOP)
def test_a_method_of_each_loop_keeps_the_contract(loop):
    require_contract(ONE_OF_A_LOOP[loop])


@pytest.mark.parametrize("name", list(registry.entries("method")))
def test_every_method_passes_the_quick_checks(name):
    require_contract(name, only=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.entries("method")))
def test_every_method_keeps_the_contract(name):
    require_contract(name)


@pytest.mark.parametrize("name", ["digits-vit", "bert-base"])
def test_a_model_of_images_and_one_of_texts_keep_the_contract(name):
    require_contract(name, "model")


CLASSIFIERS = [
    name
    for name, entry in registry.entries("model").items()
    if entry.facts.get("task", "classification") == "classification"
]
"""Others are like one of these; one whose samples have a box is checked beside them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CLASSIFIERS, "sam-prompted"])
def test_every_model_keeps_the_contract(name):
    require_contract(name, "model")


@pytest.mark.parametrize("name", ["class-incremental", "mixed"])
def test_streams_over_any_data_keep_the_contract(name):
    require_contract(name, "stream")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.entries("stream")))
def test_every_stream_keeps_the_contract(name):
    require_contract(name, "stream")


def test_the_example_of_contributing_keeps_it_too(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    file = tmp_path / "contributed.py"
    file.write_text(example)
    with isolated_registry():
        (name,) = methods_of_file(str(file))
        require_contract(name)


def test_a_method_with_nothing_to_work_on_is_checked_on_the_network_with_batchnorm():
    subject = MethodFixture("norm")
    assert subject.network == defaults.MODEL
    method = subject.prepare()
    assert subject.network == defaults.BATCH_NORM_MODEL
    assert batch_norms(method.model.module)
