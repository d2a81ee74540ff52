"""Draws of the source model on the command line: plan, run, status, and what cannot be."""

from __future__ import annotations

import pytest
from warm_bench import warm_bench

ONE = ("--methods", "source-only", "--seeds", "0")


def test_draws_are_planned_run_and_counted(workplace):
    planned = workplace.run("plan", *ONE, "--source-draws", "2").stdout
    assert "seeds 0 on each of 2 source models, which are trained first" in planned
    assert "0 of 2 cells done, 2 to run" in planned
    done = workplace.run("run", *ONE, "--source-draws", "2", "--jobs", "2")
    assert "training tiny on the source of digits-shift · draw 1" in done.stderr
    again = workplace.run("plan", *ONE, "--source-draws", "3").stdout
    assert "2 of 3 cells done, 1 to run" in again
    told = warm_bench().run(
        ["status", "--store", "store"], workplace.folder, workplace.environment, 240
    )
    assert "tiny: 2 ok on 2 source draws" in told.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0", "bench: --source-draws 0: give a number from 1 to 100"),
        ("-1", "bench: --source-draws -1: give a number from 1 to 100"),
        ("101", "bench: --source-draws 101: give a number from 1 to 100"),
        ("x", "bench: Invalid value for '--source-draws': Input should be a valid integer"),
    ],
)
def test_what_is_no_number_of_draws_is_refused(workplace, given, said):
    told = workplace.run("plan", "--source-draws", given, code=2).stderr
    assert told.startswith(said)
    assert told.count("\n") == 1
