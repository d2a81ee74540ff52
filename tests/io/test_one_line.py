"""Text that others wrote becomes one line that anything can show."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.io.one_line import LIMIT, error_text, one_line
from bench.records.record import Record

ANY = st.text(st.characters(exclude_categories=()), max_size=200)
"""Halves of surrogate pairs and control characters included."""


@given(ANY, st.integers(60, 300))
def test_it_is_printable_short_and_stays_what_it_is(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert one_line(shown, limit) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ä and 漢字", "plain words, ä and 漢字"),
        ("two\nlines\tand  more ", "two lines and more"),
        ("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "red link"),
        ("bell\x07 null\x00 \x9b31m", "bell null 31m"),
        ("a\u202eb\u2066c\ufeffd\u200be", "abcde"),
        ("half \ud800 of a pair", "half \N{REPLACEMENT CHARACTER} of a pair"),
    ],
)
def test_what_is_left_of_a_text(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_text_of_50_mb_is_cut_at_once_and_says_so() -> None:
    began = time.perf_counter()
    shown = one_line("x" * 50_000_000)
    assert time.perf_counter() - began < 1
    assert len(shown) == LIMIT
    assert shown.endswith("x… (50,000,000 characters in all)")


def test_an_exception_whose_text_raises_has_a_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError

    assert error_text(Mute()) == "(its message cannot be read: KeyError)"
    assert error_text(ValueError("a\x1b[31m\nb")) == "a b"


def test_a_record_s_reason_is_clean_when_it_is_made_and_when_it_is_read(make_record) -> None:
    record = make_record(status="failed", results=None, reason="\x1b[2J" + "long\n" * 1_000_000)
    assert record.reason.startswith("long long ")
    assert len(record.reason) == LIMIT
    again = Record.model_validate_json(record.model_dump_json())
    assert again == record
    assert Record.model_validate({**record.model_dump(), "reason": "a\x00b"}).reason == "ab"
