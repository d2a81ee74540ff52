"""The dry runs of docs/how-to/cluster.md are given as they are printed, in a folder of the test."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from warm_bench import warm_bench

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "cluster.md"
DRY_RUNS = [
    line.removeprefix("bench ").partition(" > ")[0]
    for line in PAGE.read_text().splitlines()
    if line.startswith("bench ") and "--dry-run" in line
]


@pytest.mark.parametrize("command", DRY_RUNS)
def test_a_dry_run_of_the_page_says_what_would_be_submitted(command, workplace, slurm):
    arguments = shlex.split(command.replace("/shared", str(workplace.folder)))
    done = warm_bench().run(arguments, workplace.folder, workplace.environment, 240)
    assert done.returncode == 0, done.stderr
    if "k8s" in arguments:
        (job,) = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "Job"]
        assert job["spec"]["completionMode"] == "Indexed"
        return
    lines = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    assert len(lines) >= 2  # what runs share, and runs that wait for it
    for line in lines:
        assert {"--time=20", "--mem=2G"} <= set(shlex.split(line))
    assert not slurm.tasks()


def test_the_page_has_a_dry_run_of_each_queue():
    assert {name for line in DRY_RUNS for name in ("slurm", "k8s") if name in line} == {
        "slurm", "k8s",
    }  # fmt: skip
