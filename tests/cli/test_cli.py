"""The command line without a run: fast start, clear refusals, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_bench import warm_bench


def bench(*arguments, cwd=".", **environment):
    given = {**os.environ, "COLUMNS": "200", **environment}
    return warm_bench().run(arguments, Path(cwd), given, timeout=120)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["run", "--help"], ["list", "methods"]]
)
def test_help_and_list_import_no_heavy_library(arguments):
    code = (
        "import sys; sys.argv = ['bench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'transformers', 'avalanche', 'pandas',\n"
        "         'sklearn', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_list_names_family_tasks_and_provenance_of_every_method():
    said = bench("list", "methods").stdout
    assert said.splitlines()[1].split() == [
        "name", "family", "tasks", "needs", "provenance", "summary",
    ]  # fmt: skip
    for name in ("source-only", "fine-tune", "tent", "shot", "feature-alignment", "ewc", "lora"):
        assert f"  {name} " in said
    assert "published" in said
    everything = bench("list").stdout
    for heading in ("methods", "models", "variants", "streams", "devices", "suites"):
        assert heading in everything.splitlines()


GOOD = """
name: mine
description: mine
stream: digits-shift
model: digits-vit
protocol: {window_s: 60, batch_size: 50}
methods: [tent]
seeds: 1
devices: xavier-nx
"""


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("methods:", "methds:", ["mine.yaml", "'methds'", "did you mean 'methods'"]),
        ("[tent]", "[tnet]", ["mine.yaml", "'tnet'", "did you mean 'tent'"]),
        ("window_s: 60", "window_s: 0", ["mine.yaml", "window_s", "greater than 0"]),
        ("window_s: 60", "window_s: .nan", ["mine.yaml", "window_s", "finite"]),
        ("[tent]", "[{name: tent, learning_rate: -1}]", ["'tent'", "learning_rate", "-1"]),
        ("[tent]", "[{name: tent, lr: 1}]", ["'tent'", "'lr'"]),
        ("digits-vit", "digit-vit", ["'digit-vit'", "did you mean 'digits-vit'"]),
        ("xavier-nx", "xavier", ["'xavier'", "did you mean"]),
        ("seeds: 1", "seeds: x", ["mine.yaml", "seeds", "'x'"]),
        ("seeds: 1", "seeds: 20240101", ["mine.yaml", "seeds", "write [20240101]"]),
        ("seeds: 1", "seeds: [1, 1]", ["mine.yaml", "seeds", "named twice"]),
        ("name: mine", "{{ x }}: 1", ["mine.yaml", "plain text"]),
        ("seeds: 1", "seeds: 1\nseeds: 2", ["mine.yaml", "'seeds' is given twice"]),
        ("name: mine", "name: [", ["mine.yaml", "line", "not valid YAML"]),
        (GOOD, "- a list", ["mine.yaml", "mapping"]),
    ],
)
def test_a_bad_suite_file_is_one_line_and_exit_code_2(
    tmp_path, monkeypatch, capfd, old, new, parts
):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new))
    for command in ("plan", "run"):
        monkeypatch.setattr(sys, "argv", ["bench", command, "--suite", "mine.yaml"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        said = capfd.readouterr()
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("bench: ")
        for part in parts:
            assert part in said.err, said.err
        assert said.out == ""
        assert not (tmp_path / "bench-results").exists()


@pytest.mark.parametrize(
    ("methods", "parts"),
    [
        ([], ["not among them: lora, ewc; they see labels too", "0 of 3 cells"]),
        (["--methods", "tent,ewc"], ["0 of 2 cells"]),
        (["--methods", "all"], ["ewc", "0 of 5 cells"]),
    ],
)
def test_a_plan_says_which_references_run_only_where_they_are_named(
    tmp_path, monkeypatch, capfd, methods, parts
):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    listed = "methods: [source-only, tent]\nsupervised_references: [fine-tune]\n"
    text = GOOD[: GOOD.index("methods:")] + listed + GOOD[GOOD.index("seeds:") :]
    text += "further_references: [lora, ewc]\n"
    (tmp_path / "mine.yaml").write_text(text.replace("seeds: 3", "seeds: 1"))
    monkeypatch.setattr(sys, "argv", ["bench", "plan", "--suite", "mine.yaml", *methods])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert not end.value.code, said.err
    for part in parts:
        assert part in said.out, said.out
    assert ("not among them" in said.out) == (not methods)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "--suite", "nothing.yaml"], "No such file"),
        (["run", "--suite", "domain-shfit"], "did you mean 'domain-shift'"),
        (["run", "--methods", "tnet"], "did you mean 'tent'"),
        (["run", "--methods", ","], "names no method"),
        (["run", "--device", "xavier"], "unknown device 'xavier'"),
        (["run", "--seeds", "4..1"], "--seeds '4..1'"),
        (["run", "--seeds", "a"], "write 0..4 or 0,1,2"),
        (["run", "--interval", "1"], "--interval 1: suite domain-shift is periodic, whose stream"),
        (["run", "--suite", "real-time", "--interval", "0"], "--interval 0: give seconds above 0"),
        (["plan", "--suite", "real-time", "--interval", "inf"], "give seconds above 0, as 0.5"),
        (["run", "--model", "vit"], "unknown model 'vit'"),
        (["run", "--plugin", "missing.py"], "no such file"),
        (["run", "--executor", "inline", "--timeout", "5"], "cannot enforce"),
        (["run", "--store", "/proc/nothing"], "--store /proc/nothing"),
        (["run", "--tensorboard", "/proc/version"], "--tensorboard /proc/version"),
        (["report", "--plugin", "missing.py"], "no records there"),
        (["status"], "no records there"),
        (["report"], "no records there"),
        (["run", "--jbos", "2"], "No such option"),
        (["run", "--jobs", "0"], "greater than or equal to 1"),
        (["plan", "--jobs", "x"], "Invalid value for '--jobs': Input should be a valid integer"),
        (["plan", "--source-draws", "x"], "Invalid value for '--source-draws'"),
        (["plan", "--source-draws", "1.5"], "Invalid value for '--source-draws'"),
        (["tune", "--source-draws", "0"], "--source-draws 0: give a number from 1 to 100"),
        (["tune", "--seeds", "0"], "settings are tuned on one model: add --model digits-vit or"),
        (
            ["tune", "--model", "digits-vit", "--seeds", "0", "--methods", "tent"],
            "give two or more seeds, as --seeds 0..2",
        ),
        (
            ["tune", "--model", "digits-vit", "--figure", "search.pdf"],
            "--figure search.pdf: is written as PNG",
        ),
        (["report", "--margin", "x"], "Invalid value for '--margin': Input should be a valid"),
    ],
)
def test_a_bad_option_says_what_and_how_with_exit_code_2(
    tmp_path, monkeypatch, capfd, arguments, part
):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert part in said
    assert "Traceback" not in said
    if "--jbos" not in arguments:  # an unknown option shows the usage
        assert all(line.startswith("bench: ") for line in said.splitlines())


def test_plan_runs_nothing_and_counts_everything(tmp_path):
    done = bench(
        "plan", "--suite", "smoke", "--device", "xavier-nx", "--device", "host", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 28 cells done, 28 to run" in done.stdout
    assert "time: unknown" in done.stdout
    assert not (tmp_path / "bench-results").exists()


def test_doctor_names_a_torchvision_of_another_build_and_a_folder_that_cannot_be_written(tmp_path):
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    more = {"COLUMNS": "200", "PYTHONPATH": str(tmp_path), "BENCH_CACHE": "/proc/nowhere"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench", "doctor"], cwd=tmp_path, capture_output=True,
        env={**os.environ, **more}, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    line = next(t for t in done.stdout.splitlines() if "torchvision:" in t)
    assert line.startswith("BAD")
    assert "different builds" in line
    assert "pip install --force-reinstall torch torchvision" in line
    assert "set BENCH_CACHE" in done.stdout
    assert "ok   torch:" in done.stdout


def test_a_variant_replaces_those_of_the_suite(tmp_path):
    options = ["plan", "--model", "digits-vit", "--methods", "tent", "--variant"]
    done = bench(*options, "compressed:4", "--seeds", "0..1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of 2 cells done, 2 to run" in done.stdout
    for variant, said in (
        ("compressed", "--variant compressed: write full, or a name and a whole ratio"),
        ("compresed:8", "unknown variant 'compresed': did you mean 'compressed'"),
    ):
        done = bench(*options, variant, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["list"], ["--help"], ["device", "list"]])
def test_an_output_that_is_full_is_one_line_and_exit_code_1(command):
    with open("/dev/full", "w") as full:
        options = {"stdout": full, "text": True, "timeout": 120}
        bench = [sys.executable, "-P", "-m", "bench", *command]
        done = subprocess.run(bench, stderr=subprocess.PIPE, **options)
        assert done.returncode == 1
        assert done.stderr == "bench: output cannot be written: No space left on device\n"
        assert subprocess.run(bench, stderr=full, **options).returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_tune_does_not_write_to_a_device_file():
    done = bench("tune", "--suite", "smoke", "--methods", "tent", "--out", "/dev/full")
    assert (done.returncode, done.stderr) == (
        2,
        "bench: --out /dev/full: is no regular file; name a file\n",
    )


EVIL = "te\x1b[31mnt\x07\u202e\nx"


@pytest.mark.parametrize("given", ["--methods", "--device", "--model", "--executor"])
def test_control_characters_in_a_name_are_shown_as_text(given, tmp_path, monkeypatch, capfd):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--suite", "smoke", given, EVIL])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert said.endswith("\n")
    assert said[:-1].isprintable(), said
    assert "te\\x1b[31mnt" in said


def test_control_characters_in_a_name_of_a_suite_are_shown_as_text(tmp_path, monkeypatch, capfd):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD.replace("[tent]", '["te\\e[31mnt\\a"]'))
    monkeypatch.setattr(sys, "argv", ["bench", "plan", "--suite", "mine.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capfd.readouterr().err
    assert said[:-1].isprintable(), said
    assert "unknown method 'te\\x1b[31mnt\\x07': did you mean 'tent'?" in said


def test_control_characters_in_records_are_left_out_of_what_status_says(
    tmp_path, monkeypatch, capfd, make_cell, make_record
):
    from bench.cli import app
    from bench.records.cell import Component
    from bench.records.store import Store

    cell = make_cell(
        method=Component(name=EVIL, code="c0"), model=Component(name=EVIL, code="c1"), device=EVIL
    )
    Store(tmp_path).write(
        make_record(cell=cell, suite=EVIL, log=EVIL, status="failed", results=None, reason="x")
    )
    app(["status", "--store", str(tmp_path)], standalone_mode=False)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert "failed: tent x · tent x · tent x · seed 3: x" in lines
