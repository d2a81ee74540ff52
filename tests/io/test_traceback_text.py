"""A traceback in a log: whole where it is short, and cut where an exception says megabytes."""

from __future__ import annotations

import traceback

import pytest

from bench.io.traceback_text import LONGEST, LONGEST_PART, print_traceback


def printed(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    try:
        raise error
    except BaseException as caught:
        print_traceback(caught)
    return capsys.readouterr().err


def test_a_short_one_is_python_s_own(capsys):
    error = ValueError("then")
    error.__cause__ = KeyError("first\nof two lines")
    said = printed(error, capsys)
    assert said == "".join(traceback.format_exception(error))
    assert "direct cause" in said


@pytest.mark.parametrize("text", ["long " * 10_000_000, "line\n" * 10_000_000])
def test_a_message_of_50_mb_is_cut_and_says_so(text, capsys):
    said = printed(RuntimeError(text), capsys)
    assert said.startswith("Traceback (most recent call last):\n")
    assert "raise error" in said
    assert len(said) < 2 * LONGEST_PART
    assert "… (50,000,01" in said
    assert said.endswith(" characters in all)\n")


def test_a_chain_of_many_long_messages_is_cut_as_a_whole(capsys):
    error = RuntimeError("x" * 1_000_000)
    for _ in range(100):
        outer = RuntimeError("x" * 1_000_000)
        outer.__cause__ = error
        error = outer
    said = printed(error, capsys)
    assert len(said) < 1.1 * LONGEST
    assert said.endswith("… (the rest of the traceback is left out)\n")


def test_half_a_surrogate_pair_and_a_message_that_raises_are_no_trouble(capsys):
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError

    assert "half \\ud800" in printed(ValueError("half \ud800"), capsys)
    assert "Mute: <exception str() failed>" in printed(Mute(), capsys)
