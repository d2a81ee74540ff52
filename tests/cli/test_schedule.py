"""``bench schedule``: the printed plan, the files it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from bench.cli import app, main
from bench.cli.schedule import SolverName
from bench.errors import BenchError
from bench.scheduling.solvers import SOLVERS

APPLICATION = """
  - name: {name}
    sparsities: [0.0, 0.5, 0.8]
    seconds_per_iteration: [0.4, 0.2, 0.1]
    memory_bytes: [4.0e9, 2.0e9, 1.0e9]
    accuracy: [0.9, 0.85, 0.6]
    start: [0.5, 0.4, 0.3]
    half_iterations: 100
"""
GOOD = "applications:" + APPLICATION.format(name="detect") + APPLICATION.format(name="Lane Two")


@pytest.fixture
def apps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "apps.yaml"
    path.write_text(GOOD)
    return path


def schedule(*more, window="60", device="xavier-nx"):
    given = ["schedule", "--apps", "apps.yaml", "--device", device, "--window", window, *more]
    return CliRunner().invoke(app, given)


def test_the_plan_is_printed_with_its_mean_and_solver(apps):
    done = schedule()
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    # 15.52 GB for applications, less 1.4 GB for each one's runtime
    assert lines[0] == (
        "device xavier-nx: 12.72 GB for 2 applications, besides a runtime of 1.40 GB each; "
        "window 60 s"
    )
    assert lines[1].split() == [
        "application", "sparsity", "share", "iterations", "memory", "accuracy",
    ]  # fmt: skip
    # sparsity 0.5: 0.4 + 0.45 * 150 / 250 = 67 %; dense: 0.5 + 0.4 * 75 / 175 = 67.1 %
    assert lines[2].split() == ["detect", "0", "0.500", "75", "4.00", "GB", "67.1%"]
    assert lines[3].split() == ["Lane", "Two", "0", "0.500", "75", "4.00", "GB", "67.1%"]
    assert lines[4] == (
        "mean accuracy 67.14% predicted; shares 1.000 of 1, memory 8.00 GB of 12.72 GB"
    )
    assert lines[5].startswith("solver exact, chosen: few enough combinations of levels; 0.")
    assert lines[5].endswith(" s of CPU")


@pytest.mark.parametrize("solver", ["exact", "genetic", "greedy", "uniform", "ekya", "recl"])
def test_each_solver_writes_its_plan_and_valid_manifests(apps, solver):
    done = schedule("--solver", solver, "--min-iterations", "20", "--out", "new/plans")
    assert done.exit_code == 0, done.output
    assert f"solver {solver}; " in done.stdout
    assert ("profiling takes the first" in done.stdout) == (solver == "ekya")
    assert "wrote plan.json and 2 manifests to new/plans" in done.stdout
    out = apps.parent / "new" / "plans"
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["solver"], plan["min_iterations"], plan["window_s"]) == (solver, 20, 60.0)
    assert [a["name"] for a in plan["assignments"]] == ["detect", "Lane Two"]
    assert sum(a["share"] for a in plan["assignments"]) <= 1 + 1e-9
    files = sorted(p.name for p in out.iterdir())
    assert len(files) == 3
    assert files[0].startswith("detect") or "detect.yaml" in files
    for file in out.glob("*.yaml"):
        job = yaml.safe_load(file.read_text())
        kubernetes_validate.validate(job, "1.37", strict=True)
        assert file.stem == job["metadata"]["name"]
        assert job["spec"]["activeDeadlineSeconds"] == 60


def test_manifests_of_an_earlier_plan_are_pointed_out(apps):
    assert "warning" not in schedule("--out", "out", "--image", "me/it:2").stderr
    apps.write_text(GOOD.replace("detect", "other"))
    done = schedule("--out", "out")
    assert "also holds detect.yaml, which this plan does not name" in done.stderr
    assert "image: me/it:2" in (apps.parent / "out" / "detect.yaml").read_text()


def test_equal_seeds_give_equal_plans(apps):
    plans = []
    for out in ("a", "b"):
        assert schedule("--solver", "genetic", "--seed", "4", "--out", out).exit_code == 0
        plan = json.loads((apps.parent / out / "plan.json").read_text())
        plans.append({**plan, "cpu_s": None})
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("change", "more", "parts"),
    [
        (None, ["--apps", "missing.yaml"], ["missing.yaml", "No such file"]),
        (None, ["--device", "xavier"], ["unknown device 'xavier'", "did you mean"]),
        (None, ["--device", "host"], ["--device host", "states no memory"]),
        (None, ["--window", "0"], ["window 0.0 s"]),
        (None, ["--window", "nan"], ["window nan s"]),
        (None, ["--window", "1", "--min-iterations", "9"], ["time:", "'detect'"]),
        (None, ["--out", "apps.yaml"], ["--out apps.yaml", "is a file"]),
        (None, ["--out", "/proc/nowhere"], ["--out /proc/nowhere"]),
        (None, ["--out", "out", "--image", "a b"], ["image 'a b'"]),
        (("start:", "strat:"), [], ["apps.yaml", "strat", "unknown"]),
        (("start: [0.5,", "start: [5,"), [], ["apps.yaml", "applications.0.start.0", "5"]),
        (
            ("[4.0e9, 2.0e9, 1.0e9]", "[9.0e9, 8.0e9, 7.0e9]"),
            ["--device", "jetson-tx2"],
            ["memory:", "at least"],
        ),
        (("detect", "Lane Two"), [], ["apps.yaml", "two applications"]),
        ((GOOD, GOOD.replace("detect", "[")), [], ["apps.yaml", "not valid YAML"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(apps, monkeypatch, capfd, change, more, parts):
    if change is not None:
        assert change[0] in GOOD
        apps.write_text(GOOD.replace(change[0], change[1]))
    given = ["--apps", "apps.yaml", "--device", "xavier-nx", "--window", "60", *more]
    monkeypatch.setattr(sys, "argv", ["bench", "schedule", *given])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("bench: ")
    for part in parts:
        assert part in said.err, said.err


def test_every_solver_can_be_named_and_an_unknown_one_exits_with_2(apps):
    assert {name.value for name in SolverName} == set(SOLVERS)
    done = schedule("--solver", "exakt")
    assert isinstance(done.exception, BenchError)  # one line and exit 2, see test_cli
    assert "'--solver'" in str(done.exception)
    assert "'exakt' is not one of 'exact'" in str(done.exception)


def test_more_runtimes_than_memory_are_named(apps):
    many = "".join(APPLICATION.format(name=f"a{i}") for i in range(12))
    apps.write_text("applications:" + many)
    done = schedule()
    assert "memory: the runtimes of 12 applications" in str(done.exception)


def test_help_imports_no_heavy_library():
    code = (
        "import sys; sys.argv = ['bench', 'schedule', '--help']\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'scipy', 'sko'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
