"""A function in a fresh process: its value, its errors, its end and its time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.io.subprocess_call import ProcessEnded, call, call_each

HERE = "test_subprocess_call"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


# --- called in the other process -----------------------------------------------------------


def echo(value: Any) -> Any:
    print("a library says something")
    return {"given": value, "pid": os.getpid(), "variable": os.environ.get("A_TEST")}


def refuse(value: str) -> None:
    raise BenchError(value)


def crash(value: str) -> None:
    raise KeyError(value)


def leave(code: int) -> None:
    os._exit(code)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def count(until: int) -> Iterator[int]:
    yield from range(until)
    os._exit(7)


# --- tests ---------------------------------------------------------------------------------


def test_a_value_goes_there_and_back() -> None:
    value = {"text": "ä", "numbers": [0.1, 1e300, None], "long": "x" * 200_000}
    answer = call(f"{HERE}:echo", value, environment={"A_TEST": "set"})
    assert answer["given"] == value
    assert answer["variable"] == "set"
    assert answer["pid"] != os.getpid()


def test_a_refusal_keeps_its_message() -> None:
    with pytest.raises(BenchError, match=r"^vit tent: no blocks$"):
        call(f"{HERE}:refuse", "no blocks", what="vit tent")
    with pytest.raises(BenchError, match=r"^no blocks$"):
        call(f"{HERE}:refuse", "no blocks")


def test_the_last_line_of_a_traceback_is_told() -> None:
    with pytest.raises(ProcessEnded, match=r"^a test: KeyError: 'x'$") as caught:
        call(f"{HERE}:crash", "x", what="a test")
    assert caught.value.code == 1
    assert "Traceback" in caught.value.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_leaves_without_an_answer_is_an_error(code: int) -> None:
    with pytest.raises(ProcessEnded, match=f"exit code {code}, and it said nothing"):
        call(f"{HERE}:leave", code)


def test_a_process_that_takes_too_long_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(BenchError, match=r"^a test: took longer than 0\.5 s; use less$"):
        call(f"{HERE}:sleep", 60, what="a test", timeout_s=0.5, cure="use less")
    assert time.monotonic() - began < 30


def test_values_come_one_after_another_until_the_process_ends() -> None:
    answers = call_each(f"{HERE}:count", 3)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ProcessEnded) as caught:
        next(answers)
    assert caught.value.code == 7


def test_the_process_ends_with_the_iterator(tmp_path: Path) -> None:
    answers = call_each(f"{HERE}:count", 3)
    assert next(answers) == 0
    answers.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(answers)
