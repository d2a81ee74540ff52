"""Tuned settings: their file, which settings a method gets in the end, and how to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.options import selection, warn
from bench.cli.report import command as report
from bench.errors import BenchError
from bench.io.digest import digest
from bench.records.cell import Cell
from bench.study.plan import make_cells
from bench.study.suite import Reference, load_suite, suite_files
from bench.study.tuned_settings import (
    Tuned,
    read_tuned,
    require_fit,
    settle,
    tuned_path,
    write_tuned,
)

SUITE = """\
name: mine
description: a suite for tests
stream: digits-shift
model: digits-vit
methods:
  - source-only
  - tent
  - {name: shot, learning_rate: 0.005}
supervised_references: [fine-tune]
seeds: 2
devices: xavier-nx
"""

METHODS: dict[str, dict[str, Any]] = {
    "tent": {"learning_rate": 0.02, "epochs": 3},
    "shot": {"learning_rate": 0.05, "epochs": 2},
}


def tuned(found: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Tuned:
    fields: dict[str, Any] = {
        "command": "bench tune --suite mine.yaml",
        "version": "0.1.0",
        "optuna": "4.0.0",
        "suite": "mine",
        "stream": "digits-shift",
        "validation": {"part": "validation", "severities": [1, 2]},
        "model": "digits-vit",
        "protocol": {"name": "periodic"},
        "device": "xavier-nx",
        "data": "da7a",
        "trials": 4,
        "seeds": [0],
        "methods": {
            name: {"settings": s, "score": 0.75, "default_score": 0.5, "trials": 4, "code": "c0de"}
            for name, s in (METHODS if found is None else found).items()
        },
    }
    return Tuned.model_validate({**fields, **changes})


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    return path


# --- the file ---------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.just("\n"), max_size=9)
plain = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text


@given(
    settings=st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), plain, max_size=4),
    command=text,
    oracle=st.booleans(),
    default_score=st.none() | st.floats(0, 1),
)
def test_a_file_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, Any],
    command: str,
    oracle: bool,
    default_score: float | None,
) -> None:
    method = {"score": 0.5, "default_score": default_score, "trials": 4, "failed": 1, "code": "c"}
    methods = {"tent": {"settings": settings, **method}, "shot": {"settings": {}, **method}}
    written = tuned(methods=methods, command=command, oracle=oracle)
    path = tmp_path_factory.mktemp("tuned") / "mine.tuned.yaml"
    write_tuned(path, written)
    assert read_tuned(path) == written


def test_the_head_of_a_file_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.tuned.yaml"
    write_tuned(path, tuned())
    assert path.read_text().startswith(
        "# Made by: bench tune --suite mine.yaml\n# Selected on: validation\n"
    )
    write_tuned(path, tuned(oracle=True))
    assert path.read_text().splitlines()[1].startswith("# Selected on: ORACLE: selected with the")


def test_a_file_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"mine\.yaml: cannot be written: .* another --out"):
        write_tuned(tmp_path / "file" / "mine.yaml", tuned())


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"trails": 3}, ["key 'trails': unknown", "did you mean 'trials'"]),
        (
            {"methods": {"tent": {"scor": 1}}},
            ["key 'methods.tent.scor': unknown; did you mean 'score'?"],
        ),
        ({"methods": {"tent": {"score": 0.5}}}, ["key 'methods.tent.settings': missing; add it"]),
        ({"trials": "many"}, ["key 'trials': 'many' is not allowed"]),
        ({"seeds": 3}, ["key 'seeds': 3 is not allowed"]),
        ({"data": None}, ["key 'data': None is not allowed"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_file_and_key(
    tmp_path: Path, change: dict[str, Any], parts: list[str]
) -> None:
    path = tmp_path / "mine.tuned.yaml"
    path.write_text(yaml.safe_dump({**tuned().model_dump(), **change}))
    with pytest.raises(BenchError) as caught:
        read_tuned(path)
    assert str(caught.value).startswith(f"tuned settings {path}: ")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("content", ["", "- a\n", "a: [\n", "a: 1\na: 2\n"])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.tuned.yaml"
    path.write_text(content)
    with pytest.raises(BenchError, match=str(path)):
        read_tuned(path)


def test_tuned_settings_are_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.yaml", "mine.tuned.yaml", "other.times.yaml"):
        (tmp_path / name).write_text(SUITE)
    monkeypatch.setattr("bench.study.suite.SUITES", tmp_path)
    assert suite_files() == {"mine": tmp_path / "mine.yaml"}
    with pytest.raises(BenchError, match=r"unknown suite 'mine\.tuned'"):
        load_suite("mine.tuned")


# --- precedence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found", "settled", "source"),
    [
        ({}, None, {}, "default"),
        ({"a": 1}, None, {"a": 1}, "given"),
        ({}, {"a": 2, "b": 3}, {"a": 2, "b": 3}, "tuned"),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}, "tuned"),
        ({"c": 1}, {"a": 2}, {"a": 2, "c": 1}, "tuned"),
        ({"a": 1, "b": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 1}, "given"),
        ({}, {}, {}, "tuned"),  # the search found nothing better than the defaults
        ({"a": 1}, {}, {"a": 1}, "given"),
    ],
)
def test_what_is_given_stands_before_what_is_tuned_and_that_before_the_default(
    given: dict[str, Any], found: dict[str, Any] | None, settled: dict[str, Any], source: str
) -> None:
    reference = Reference(name="m", config=given)
    known = tuned({} if found is None else {"m": found, "other": {"z": 9}})
    result, where = settle(reference, known)
    assert (result.name, result.config, where) == ("m", settled, source)
    assert reference.config == given  # untouched
    if found is None:
        assert settle(reference, None) == (result, where)
    if source == "tuned":
        assert settle(reference, known.model_copy(update={"oracle": True})) == (result, "oracle")


def test_cells_get_the_tuned_settings_and_say_so(suite_file: Path) -> None:
    suite, path = load_suite(str(suite_file))
    cells = {c.method.name: c for c in make_cells(suite, path, tuned())}
    assert {n: c.settings_origin for n, c in cells.items()} == {
        "source-only": "default", "tent": "tuned", "shot": "tuned", "fine-tune": "default",
    }  # fmt: skip
    assert cells["tent"].method.config["learning_rate"] == 0.02
    assert cells["tent"].method.config["epochs"] == 3
    assert cells["shot"].method.config["learning_rate"] == 0.005  # the suite's
    assert cells["shot"].method.config["epochs"] == 2


@pytest.mark.parametrize(
    ("found", "part"),
    [
        ({"learning_rate": 100.0}, "key 'learning_rate': 100.0 is not allowed"),
        ({"learning_rates": 0.1}, "key 'learning_rates': unknown"),
    ],
)
def test_a_tuned_setting_out_of_bounds_is_named_as_such(
    suite_file: Path, found: dict[str, Any], part: str
) -> None:
    with pytest.raises(BenchError) as caught:
        make_cells(*load_suite(str(suite_file)), tuned({"tent": found}))
    assert "method 2 with its tuned settings 'tent'" in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"stream": "digits-tasks"}, "stream 'digits-tasks', this suite has 'digits-shift'"),
        ({"model": "vit-base"}, "model 'vit-base', this suite has 'digits-vit'"),
    ],
)
def test_settings_tuned_for_something_else_are_refused(
    suite_file: Path, change: dict[str, str], part: str
) -> None:
    suite, path = load_suite(str(suite_file))
    require_fit(suite, tuned(), suite.model.name)
    for use in (
        lambda t: require_fit(suite, t, suite.model.name),
        lambda t: make_cells(suite, path, t),
    ):
        with pytest.raises(BenchError) as caught:
            use(tuned(**change))
        assert f"tuned settings are for {part}" in str(caught.value)
        assert "--untuned" in str(caught.value)


def test_settings_tuned_for_a_stream_that_waits_serve_one_that_does_not() -> None:
    waits, path = load_suite("domain-shift-online")
    real_time, timed_path = load_suite("real-time")
    found = read_tuned(tuned_path(path))
    require_fit(real_time, found, real_time.model.name)
    cells = make_cells(real_time, timed_path, found)
    assert {c.settings_origin for c in cells if c.method.name == "eata"} == {"tuned"}
    for suite, protocol in ((waits, "online-timed"), (real_time, "periodic")):
        other = found.model_copy(update={"protocol": {"name": protocol}})
        with pytest.raises(BenchError, match=f"tuned settings are for protocol '{protocol}'"):
            require_fit(suite, other, suite.model.name)


# --- identity ---------------------------------------------------------------------------


def test_where_settings_come_from_is_part_of_the_identity(make_cell: Callable[..., Cell]) -> None:
    cells = [make_cell(settings_origin=s) for s in ("default", "given", "tuned", "oracle")]
    assert len({c.identity for c in cells}) == 4
    assert len({c.training_key for c in cells}) == 4


def test_a_cell_that_does_not_say_where_settings_come_from_has_the_defaults(
    make_cell: Callable[..., Cell],
) -> None:
    cell = make_cell()
    before = cell.model_dump(mode="json", exclude={"settings_origin", "variant"})
    assert Cell.model_validate(before) == cell
    content = cell.model_dump(mode="json")
    for component in ("method", "model", "stream"):
        del content[component]["files"]
    assert cell.identity == digest(content)[:20]
    del content["device"], content["device_digest"]
    assert cell.training_key == digest(content)[:20]


def test_the_same_values_given_or_tuned_are_different_cells(suite_file: Path) -> None:
    suite, path = load_suite(str(suite_file))
    tent = next(c for c in make_cells(suite, path) if c.method.name == "tent")
    found = {"learning_rate": tent.method.config["learning_rate"]}
    same = next(
        c for c in make_cells(suite, path, tuned({"tent": found})) if c.method.name == "tent"
    )
    assert same.method == tent.method
    assert same.identity != tent.identity


# --- the command line's choice ----------------------------------------------------------


def chosen(suite_file: Path, **options: Any) -> dict[str, str]:
    """Where each method's settings come from, as the command line resolves it."""
    store = suite_file.parent / "store"
    plan, _ = selection(str(suite_file), store=store, **options).plan(warn=warn)
    return {c.method.name: c.settings_origin for c in plan.cells}


DEFAULTS = {"source-only": "default", "tent": "default", "shot": "given", "fine-tune": "default"}
TUNED = {**DEFAULTS, "tent": "tuned", "shot": "tuned"}


def test_a_suite_uses_the_file_beside_it_unless_told_otherwise(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(suite_file) == DEFAULTS
    beside = tuned_path(suite_file)
    assert beside == suite_file.parent / "mine.tuned.yaml"
    write_tuned(beside, tuned())
    assert chosen(suite_file) == TUNED
    assert chosen(suite_file, untuned=True) == DEFAULTS
    other = suite_file.parent / "other.yaml"
    write_tuned(other, tuned({"tent": {}}))
    assert chosen(suite_file, tuned=other) == {**DEFAULTS, "tent": "tuned"}
    assert capsys.readouterr().err == ""


def test_oracle_settings_are_announced_on_every_use(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tuned(tuned_path(suite_file), tuned(oracle=True))
    assert chosen(suite_file) == {**DEFAULTS, "tent": "oracle", "shot": "oracle"}
    said = capsys.readouterr().err
    assert said.startswith(f"bench: warning: ORACLE: {tuned_path(suite_file)} was selected with")
    assert "no fair comparison" in said
    assert chosen(suite_file, untuned=True) == DEFAULTS
    assert capsys.readouterr().err == ""


def test_untuned_and_tuned_exclude_each_other(suite_file: Path) -> None:
    with pytest.raises(BenchError, match=r"--untuned and --tuned x\.yaml: give one of them"):
        chosen(suite_file, untuned=True, tuned=Path("x.yaml"))


def test_a_tuned_file_that_is_not_there_is_named(suite_file: Path) -> None:
    with pytest.raises(BenchError, match=r"tuned settings no\.yaml: No such file or directory"):
        chosen(suite_file, tuned=Path("no.yaml"))


@pytest.mark.parametrize("options", [{"untuned": True}, {"tuned": Path("x.yaml")}])
def test_a_report_of_no_suite_has_no_use_for_them(tmp_path: Path, options: dict[str, Any]) -> None:
    context = typer.Context(click.Command("report"))
    with pytest.raises(BenchError, match="name it with --suite"):
        report(context, store=tmp_path, out=tmp_path / "out", **options)


def test_a_file_from_when_streams_were_called_scenarios_is_read(tmp_path: Path) -> None:
    shipped = tuned_path(suite_files()["domain-shift"], "digits-vit")
    old = tmp_path / "old.tuned.yaml"
    old.write_text(shipped.read_text().replace("\nstream: ", "\nscenario: "))
    assert old.read_text() != shipped.read_text()
    assert read_tuned(old) == read_tuned(shipped)
