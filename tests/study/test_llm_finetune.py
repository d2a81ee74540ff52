"""The suite of fine-tuned language models: what it plans, and that it needs no files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.study.data_root import missing_paths
from bench.study.suite import load_suite

RIVALS = {
    "fine-tune", "green-trainer", "last-blocks", "prefix-tuning", "lora", "bias-only",
}  # fmt: skip


def test_it_names_what_is_registered_and_reads_no_folder() -> None:
    suite, _ = load_suite("llm-finetune")
    assert missing_paths(suite) == []
    configs = []
    for reference, labelled in suite.all_methods():
        method = registry.load("method", reference.name)
        configs.append((reference.name, method.Config.model_validate(reference.config)))
        assert "generation" in method.tasks
        assert labelled == (reference.name in RIVALS)
    assert {name for name, _ in configs} == {*RIVALS, "source-only"}
    green = [c for name, c in configs if name == "green-trainer"]
    assert {c.cost_ratio for c in green} == {0.3, 0.45, 0.5, 0.7}
    assert {c.resolution for c in green} == {10, 100, 1000}  # T_q
    # Of one number of passes and, where all weights may be trained, of one rate
    assert {c.epochs for name, c in configs if name in RIVALS} == {5}
    rated = ("fine-tune", "green-trainer", "last-blocks")
    assert {c.learning_rate for name, c in configs if name in rated} == {0.0005}


def test_its_methods_refuse_what_they_do_not_do(make_cell, tmp_path: Path) -> None:
    from bench.records.cell import Component
    from bench.study.applicability import unsupported

    for name in ("prefix-tuning",):
        method = registry.load("method", name)
        config = method.Config().model_dump(mode="json")
        cell = make_cell(method=Component(name=name, config=config, code="c0ffee"))
        assert "prefix-tuning" in (unsupported(cell) or "")


@pytest.mark.parametrize("name", ["last-blocks", "bias-only", "lora", "fine-tune"])
def test_the_others_do_other_tasks_too(make_cell, name: str) -> None:
    from bench.records.cell import Component
    from bench.study.applicability import unsupported

    method = registry.load("method", name)
    config = method.Config().model_dump(mode="json")
    cell = make_cell(method=Component(name=name, config=config, code="c0ffee"), target_labels=True)
    assert unsupported(cell) is None
