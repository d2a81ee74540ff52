"""``bench new-method``: what it writes passes at once, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError


def new_method(*arguments):
    return CliRunner().invoke(app, ["new-method", *map(str, arguments)])


@pytest.mark.parametrize(
    ("family", "run"),
    [
        ("uda", "--suite domain-shift --plugin {file} --methods source-only,our-idea-2"),
        ("cl", "--suite task-shift --plugin {file} --methods fine-tune,our-idea-2"),
    ],
)
def test_the_files_are_complete_and_the_next_commands_are_named(tmp_path, family, run):
    done = new_method("our-idea_2", "--family", family, "--dir", tmp_path)
    assert done.exit_code == 0, done.output
    file, test = tmp_path / "our_idea_2.py", tmp_path / "test_our_idea_2.py"
    assert {path.name for path in tmp_path.iterdir()} == {file.name, test.name}
    for path in (file, test):
        text = path.read_text()
        assert not [word for word in ("my-idea", "my_idea", "MyIdea") if word in text]
        assert "OurIdea2" in text
    assert '@register("method", "our-idea-2")' in file.read_text()
    assert len(file.read_text().splitlines()) <= 70
    assert done.stdout.splitlines() == [
        f"wrote {file}",
        f"wrote {test}",
        "next:",
        f"  bench check {file}",
        f"  pytest {test}",
        f"  bench run {run.format(file=file)}",
    ]


@pytest.mark.parametrize("family", ["uda", pytest.param("cl", marks=pytest.mark.slow)])
def test_what_it_writes_passes_its_tests_as_it_is(tmp_path, family):
    """In a process and a folder of their own; the contract is among the tests."""
    new_method("first-idea", "--family", family, "--dir", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("My-Idea", "small letters"),
        ("2fast", "small letters"),
        ("a--b", "small letters"),
        ("../up", "small letters"),
        ("idea!", "small letters"),
        ("x" * 41, "small letters"),
        ("tent", "a method of this name"),
        ("torch", "would hide"),
        ("random", "would hide"),
        ("class", "a word of Python"),
        ("none", "another meaning for None"),
        ("window", "another meaning for Window"),
        ("method", "another meaning for Method"),
        ("tiny-net", "another meaning for TinyNet"),
        ("test-idea", "take test_idea.py for a test"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_written(tmp_path, name, part):
    done = new_method(name, "--dir", tmp_path)
    assert isinstance(done.exception, BenchError)
    assert part in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["an_idea.py", "test_an_idea.py"])
def test_an_existing_file_is_never_overwritten(tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    done = new_method("an-idea", "--dir", tmp_path)
    assert isinstance(done.exception, BenchError)
    assert f"{existing}: exists" in str(done.exception)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_is_missing_or_closed_is_named(tmp_path):
    done = new_method("an-idea", "--dir", tmp_path / "nowhere")
    assert "no such folder" in str(done.exception)
    done = new_method("an-idea", "--dir", Path("/proc"))
    assert "/proc/an_idea.py: " in str(done.exception)
    assert "--dir" in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [["new-method", "an-idea"], ["check", "--help"], ["docs", "--help"]]
)
def test_no_heavy_library_is_imported_to_write_a_file_or_for_help(tmp_path, arguments):
    code = (
        "import sys; sys.argv = ['bench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'timm', 'sklearn', 'numpy'} & set(sys.modules)"
    )
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
