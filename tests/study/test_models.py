"""Suites of several models: everything runs on each, with settings that were tuned on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.records.store import Store
from bench.study.plan import make_cells, make_plan
from bench.study.selection import Selection
from bench.study.suite import Suite, load_suite
from bench.study.tuned_settings import Tuned, TunedMethod, tuned_path, write_tuned

TEXT = """
name: mine
description: two networks
stream: {name: digits-shift, shifts: [rotation], severities: [1]}
MODELS
protocol: {window_s: 60, batch_size: 50, samples: 100}
methods: [source-only, tent]
seeds: 2
devices: xavier-nx
"""
BOTH = "models: [digits-vit, {name: digits-resnet, expected_source: [0.5, 1.0]}]"


def suite(folder: Path, models: str = BOTH) -> tuple[Suite, Path]:
    file = folder / "mine.yaml"
    file.write_text(TEXT.replace("MODELS", models))
    return load_suite(str(file))


def tuned(model: str, rate: float, cells: list[Any]) -> Tuned:
    found = TunedMethod(
        settings={"learning_rate": rate}, score=0.5, default_score=0.4, trials=2, code="c"
    )
    cell = cells[0]
    return Tuned(
        command="bench tune",
        version="0",
        optuna="4",
        suite="mine",
        stream=cell.stream.name,
        validation={},
        model=model,
        protocol=cell.protocol,
        device="xavier-nx",
        data=cell.data,
        trials=2,
        seeds=[0],
        methods={"tent": found},
    )


def test_every_method_runs_on_every_model_and_cells_are_those_of_suites_of_one(tmp_path):
    both = make_cells(*suite(tmp_path))
    alone = [
        make_cells(*suite(tmp_path, "model: digits-vit")),
        make_cells(*suite(tmp_path, "model: digits-resnet")),
    ]
    assert [c.identity for c in both] == [c.identity for cells in alone for c in cells]
    assert len({c.identity for c in both}) == 2 * 2 * 2


def test_the_expected_band_is_that_of_the_cells_model(tmp_path):
    store = Store(tmp_path / "store")
    jobs = make_plan(*suite(tmp_path), store).jobs(store)
    found = {(job.cells[0].model.name, job.expected_source) for job in jobs}
    assert found == {("digits-vit", None), ("digits-resnet", (0.5, 1.0))}


def test_the_command_line_takes_one_of_the_models(tmp_path):
    suite(tmp_path)
    chosen, _ = Selection(suite=str(tmp_path / "mine.yaml"), model="digits-resnet").choose()
    assert [model.name for model in chosen.all_models()] == ["digits-resnet"]


def test_each_model_has_the_settings_that_were_tuned_on_it(tmp_path):
    _, path = suite(tmp_path)
    cells = make_cells(*suite(tmp_path))
    said: list[str] = []
    selection = Selection(suite=str(path), store=tmp_path / "store")

    def rates() -> dict[str, tuple[float, str]]:
        plan, _ = selection.plan(warn=said.append)
        tent = [c for c in plan.cells if c.method.name == "tent"]
        return {c.model.name: (c.method.config["learning_rate"], c.settings_origin) for c in tent}

    default = rates()
    assert said == []
    write_tuned(tuned_path(path), tuned("digits-vit", 2e-4, cells))
    assert rates() == {
        "digits-vit": (2e-4, "tuned"),
        "digits-resnet": (default["digits-resnet"][0], "default"),
    }
    (line,) = said
    assert "no settings were tuned on digits-resnet" in line
    assert "bench tune --model digits-resnet" in line
    said.clear()
    write_tuned(tmp_path / "mine.digits-resnet.tuned.yaml", tuned("digits-resnet", 3e-4, cells))
    assert rates() == {"digits-vit": (2e-4, "tuned"), "digits-resnet": (3e-4, "tuned")}
    assert said == []


def test_one_of_the_models_that_was_not_tuned_runs_with_defaults(tmp_path):
    _, path = suite(tmp_path)
    cells = make_cells(*suite(tmp_path))
    file = tuned_path(path)
    write_tuned(file, tuned("digits-vit", 2e-4, cells))
    said: list[str] = []
    chosen = Selection(suite=str(path), store=tmp_path / "store", model="digits-resnet")
    plan, _ = chosen.plan(warn=said.append)
    assert {c.settings_origin for c in plan.cells} == {"default"}
    assert ["no settings were tuned on digits-resnet" in line for line in said] == [True]
    given = replace(chosen, tuned=file)  # asked for, and of another model
    with pytest.raises(BenchError, match="are for model 'digits-vit', this suite has 'digits-res"):
        given.plan()


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (f"model: digits-resnet\n{BOTH}", "key 'models'.*has a 'model' too; give one"),
        ("models: [digits-vit]", "key 'models'.*name two or more"),
        ("models: [digits-vit, digits-vit]", "key 'models'.*named twice"),
        ("models: []", "key 'model': missing"),
        ("models: [digits-vit, digits-resnot]", "models: unknown model 'digits-resnot'"),
        ("models: [digits-vit, {width: 3}]", "key 'models"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, models, said):
    with pytest.raises(BenchError, match=said) as caught:
        make_cells(*suite(tmp_path, models))
    assert "\n" not in str(caught.value)
