"""`bench report` with a report file, columns and budgets, from stores on the disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from report_files import report

from bench.cli import main
from bench.records.record import Record
from bench.records.store import Store

Make = Callable[..., Record]


@pytest.fixture
def folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two stores, and a report file that names one of them."""
    for name, lead in (("results", 0.2), ("other", 0.3)):
        store = Store(tmp_path / name)
        for seed in range(3):
            store.write(make("source-only", seed, after=0.5, energy=0.0))
            store.write(make("tent", seed, after=0.5 + lead + seed / 100))
    (tmp_path / "paper.yaml").write_text(
        "title: A paper\nstores: [results]\ncolumns: [accuracy]\nrows: [source-only, tent]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_STORE", raising=False)
    return tmp_path


def accuracy(path: Path) -> str:
    return str(json.loads(path.read_text())["rows"][1]["cells"][0]["shown"])


def test_a_report_file_makes_its_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, "paper.yaml") == 0
    made = {p.name: p.read_bytes() for p in (folder / "report").iterdir()}
    assert set(made) == {f"paper.{end}" for end in ("tex", "md", "txt", "csv", "json")}
    assert accuracy(folder / "report" / "paper.json") == "71.0 ± 2.5"
    assert report(monkeypatch, "paper.yaml") == 0
    assert {p.name: p.read_bytes() for p in (folder / "report").iterdir()} == made


def test_the_command_line_goes_before_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_STORE", str(folder / "other"))
    assert report(monkeypatch, "paper.yaml") == 0
    assert accuracy(folder / "report" / "paper.json") == "71.0 ± 2.5"
    assert (
        report(monkeypatch, "paper.yaml", "--store", "other", "--columns", "accuracy,energy") == 0
    )
    assert accuracy(folder / "report" / "paper.json") == "81.0 ± 2.6"
    columns = json.loads((folder / "report" / "paper.json").read_text())["columns"]
    assert [column["column"] for column in columns] == ["accuracy", "energy"]


def test_columns_without_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, "--store", "results", "--columns", "energy") == 0
    assert (folder / "report" / "table.tex").is_file()
    assert not (folder / "report" / "report.html").exists()


def test_budgets_stand_in_the_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, "--store", "results", "--max-energy", "3", "--no-figures") == 0
    assert not list(folder.glob("report/figure-*"))
    answer = (folder / "report" / "answer.md").read_text()
    assert "**Best within adaptation energy up to 3 J (costs modelled)**" in answer
    assert "| source-only | – | no other method | 50.0 ± 0.0 |" in answer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smoke"], "report file smoke: is no .yaml file; give one, or choose a suite's records"),
        (["none.yaml"], "report file none.yaml: No such file or directory; check the path"),
        (["paper.yaml", "--store", "empty"], "--store empty: no records there; run 'bench run'"),
        (["--columns", " , "], "--columns ' , ': names no column; write accuracy,energy"),
        (
            ["--store", "results", "--columns", "acuracy"],
            "--columns: column 'acuracy' is unknown; did you mean 'accuracy'?",
        ),
        (
            ["--store", "results", "--max-energy", "-1"],
            "--max-energy -1: give J from 0 up, as --max-energy 3",
        ),
        (
            ["paper.yaml", "--max-energy", "3"],
            "--max-memory and --figures are for a report without a file or --columns; leave",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert report(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def evaluations(folder: Path) -> dict[str, dict[str, object]]:
    """The files by name, without the time at which they were made."""
    found = {}
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        found[path.relative_to(folder).as_posix()] = content
        for name in ("retrieved_timestamp", "evaluation_id"):
            del content[name]
    return found


def test_the_format_of_every_eval_ever_is_that_of_the_export(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--store", "results", "--format", "eval-ever", "--organization", "A Lab")
    assert report(monkeypatch, *asked, "--out", "all") == 0
    assert {Path(line).name for line in capsys.readouterr().out.split()} == {
        path.name for path in (folder / "all").rglob("*.json")
    }
    export = ["bench", "store", "export", "exported", "--store", "results"]
    monkeypatch.setattr(
        sys, "argv", [*export, "--format", "every-eval-ever", "--organization", "A Lab"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    made = evaluations(folder / "all")
    assert len(made) == 2
    assert made == evaluations(folder / "exported")
    # It shows what is selected, as a report does.
    assert report(monkeypatch, *asked, "--methods", "tent", "--seeds", "0,1", "--out", "one") == 0
    (one,) = evaluations(folder / "one").values()
    (result,) = one["evaluation_results"]  # type: ignore[misc]
    assert result["score_details"]["score"] == pytest.approx(0.705)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "eval-ever"], "--organization: the format every-eval-ever asks who"),
        (["paper.yaml", "--format", "eval-ever"], "leave the file, --columns, --figure-width and"),
        (["--format", "eval-ever", "--no-figures"], "--figure-width and --figures out"),
        (["--format", "eval-ever", "--figure-width", "column"], "--format eval-ever: has no"),
        (["--organization", "A"], "--organization is for --format eval-ever"),
        (["--format", "eval-ever", "--organization", "A", "--reference", "tent"], "--reference"),
    ],
)
def test_what_the_format_does_not_take_is_said(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    assert report(monkeypatch, "--store", "results", *arguments) == 2
    assert told in capsys.readouterr().err
    assert not (folder / "report").exists()
