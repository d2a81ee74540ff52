"""LZW and the other coders: round trips, a code that is known by hand, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.methods.agile import lzw
from bench.methods.agile.coding import CODINGS, Coder


def test_the_textbook_example() -> None:
    codes = list(lzw.codes(b"TOBEORNOTTOBEORTOBEORNOT", 256))
    text = [ord(c) for c in "TOBEORNOT"]
    assert codes == [*text, 256, 258, 260, 265, 259, 261, 263]


def test_a_code_that_its_decoder_does_not_know_yet() -> None:
    """Of a symbol that repeats each code is the entry that the encoder has just made."""
    assert list(lzw.codes([1] * 6, 2)) == [1, 2, 3]
    assert lzw.decompress(lzw.compress([1] * 6, 2), 6, 2) == [1] * 6


def test_the_widths_of_codes_grow_with_the_dictionary() -> None:
    # Alphabet 2: codes 1, 2, 3 in 1, 2 and 2 bits: 1 10 11 -> 11011000.
    assert lzw.compress([1] * 6, 2) == bytes([0b11011000])


@st.composite
def texts(draw: Any) -> tuple[list[int], int, int]:
    alphabet = draw(st.integers(2, 256))
    # Few different symbols, so that entries of the dictionary are used, and dictionaries that fill.
    symbol = st.integers(0, min(alphabet, draw(st.integers(2, 256))) - 1)
    largest = draw(st.sampled_from([alphabet, alphabet + 1, alphabet + 37, 4096]))
    return draw(st.lists(symbol, max_size=600)), alphabet, largest


@given(texts())
def test_round_trip(text: tuple[list[int], int, int]) -> None:
    symbols, alphabet, largest = text
    data = lzw.compress(symbols, alphabet, largest)
    assert lzw.decompress(data, len(symbols), alphabet, largest) == symbols


@given(st.binary(max_size=300), st.sampled_from(CODINGS))
def test_every_coder_gives_the_symbols_back(symbols: bytes, coding: Any) -> None:
    coder = Coder(coding, len(symbols), 256)
    assert coder.decode(coder.encode(symbols)) == symbols


def test_packed_symbols_take_their_bits() -> None:
    assert Coder("packed", 4, 8).encode(bytes([1, 2, 7, 0])) == bytes([0b00101011, 0b10000000])
    assert len(Coder("packed", 1216, 8).encode(bytes(1216))) == 1216 * 3 // 8


def test_equal_symbols_compress() -> None:
    assert len(Coder("lzw", 1216, 8).encode(bytes(1216))) < 60


@given(st.binary(max_size=40), st.sampled_from(CODINGS))
def test_what_is_no_code_is_refused_in_words(data: bytes, coding: Any) -> None:
    """Any bytes are either a code of so many symbols or an error in words."""
    with suppress(BenchError):
        symbols = Coder(coding, 50, 8).decode(data)
        assert len(symbols) == 50
        assert max(symbols) < 8


def test_symbols_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(BenchError, match="symbol 9 is outside 0 to 7"):
        lzw.compress([1, 9], 8)
    with pytest.raises(BenchError, match="3 symbols to code, 4 were expected"):
        Coder("lzw", 4, 8).encode(bytes(3))
