"""The boards that a user names, what fails on the way to one, and the agent's lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.cluster.boards import Board, add_board, boards, find_board
from bench.cluster.connection import Connection, ConnectionLost
from bench.errors import BenchError


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_BOARDS", str(tmp_path / "boards.json"))
    return tmp_path / "boards.json"


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["board", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_boards_are_added_listed_and_removed(file: Path) -> None:
    assert "no board is known" in bench("list")
    bench("add", "tx2", "ann@10.0.0.7", "--python", "/opt/py/bin/python")
    bench("add", "nx", "nx-on-the-shelf")
    assert [line.split()[:2] for line in bench("list").splitlines()[1:3]] == [
        ["nx", "nx-on-the-shelf"], ["tx2", "ann@10.0.0.7"],
    ]  # fmt: skip
    assert find_board("tx2").python == "/opt/py/bin/python"
    assert json.loads(file.read_text())["boards"][1]["name"] == "nx"
    assert "ssh ann@10.0.0.7 rm -r .bench-board" in bench("remove", "tx2")
    assert [board.name for board in boards()] == ["nx"]


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [("My Board", "x", "use small letters"), ("b", "-oProxyCommand=x", "is no host"),
     ("b", "a; rm -rf", "is no host")],
)  # fmt: skip
def test_a_name_or_host_that_is_none_is_refused(name: str, target: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        add_board(Board(name=name, target=target))


def test_a_name_is_taken_once_and_an_unknown_one_is_said() -> None:
    with pytest.raises(BenchError, match="none is known"):
        find_board("tx2")
    add_board(Board(name="tx2", target="a@b"))
    with pytest.raises(BenchError, match="'bench board remove tx2' first"):
        add_board(Board(name="tx2", target="c@d"))
    with pytest.raises(BenchError, match=r"unknown board 'tx3'.*tx2"):
        find_board("tx3")


def test_a_file_that_is_damaged_is_one_line(file: Path) -> None:
    file.write_text("{")
    with pytest.raises(BenchError, match=r"boards in .*boards.json: cannot be read"):
        boards()


@pytest.mark.parametrize(
    ("code", "said", "cure"),
    [
        (255, "ssh: Could not resolve hostname x: Name or service not known", "check the name"),
        (255, "ssh: connect to host x port 22: Connection refused", "start sshd there"),
        (255, "ssh: connect to host x port 22: Connection timed out", "switch it on"),
        (255, "a@b: Permission denied (publickey).", "ssh-copy-id a@b"),
        (255, "Host key verification failed.", "log in once by hand: 'ssh a@b'"),
        (1, "tar: x: Cannot write: No space left on device", "free space in .bench-board"),
        (127, "sh: 1: exec: python9: not found", "--python PATH"),
        (1, "Traceback\nValueError: odd", "ValueError: odd"),
    ],
)
def test_what_fails_is_one_line_with_the_cure(code: int, said: str, cure: str) -> None:
    error = Connection(Board(name="tx2", target="a@b")).failure(code, f"banner\n{said}\n")
    assert isinstance(error, ConnectionLost) == (code == 255)
    assert str(error).startswith("board tx2 (a@b): ")
    assert cure in str(error)
    assert "\n" not in str(error)


def test_arguments_stay_whole_on_the_way() -> None:
    command = Connection(Board(name="b", target="a@b")).command(["echo", "a b; c", "~/d e"])
    assert command[-3:] == ["--", "a@b", "exec echo 'a b; c' \"$HOME\"/'d e'"]
