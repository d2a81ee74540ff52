"""LZW (Welch, IEEE Computer 1984): the lossless code that AgileNN sends its indices with.

Codes have as many bits as the dictionary needs at that moment, first bit first. The dictionary
starts with the symbols, grows by one entry a code, and stays as it is once it is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench import BenchError

LARGEST = 4096
"""Entries of a full dictionary: codes of 12 bits, as in Welch's paper."""


def codes(symbols: Sequence[int], alphabet: int, largest: int = LARGEST) -> Iterator[int]:
    """The codes of ``symbols``, each from 0 to ``alphabet`` - 1."""
    known: dict[tuple[int, int], int] = {}
    entries, found = alphabet, -1
    for symbol in symbols:
        if not 0 <= symbol < alphabet:
            raise BenchError(f"LZW: symbol {symbol} is outside 0 to {alphabet - 1}")
        longer = symbol if found < 0 else known.get((found, symbol))
        if longer is not None:
            found = longer
            continue
        yield found
        if entries < largest:
            known[found, symbol] = entries
            entries += 1
        found = symbol
    if found >= 0:
        yield found


def compress(symbols: Sequence[int], alphabet: int, largest: int = LARGEST) -> bytes:
    """Symbols as LZW codes in bytes; the last byte is filled up with zeros."""
    widths = _widths(alphabet, largest)
    return pack(zip(codes(symbols, alphabet, largest), widths, strict=False))


def decompress(data: bytes, count: int, alphabet: int, largest: int = LARGEST) -> list[int]:
    """The ``count`` symbols of what `compress` made; BenchError if ``data`` are no such code."""
    bits, widths = Bits(data), _widths(alphabet, largest)
    known: list[tuple[int, ...]] = [(symbol,) for symbol in range(alphabet)]
    symbols: list[int] = []
    before: tuple[int, ...] = ()
    while len(symbols) < count:
        code = bits.take(next(widths))
        if code < len(known):
            entry = known[code]
        elif before and code == len(known) < largest:
            entry = (*before, before[0])  # of the code that the encoder has just made
        else:
            raise BenchError(f"LZW: code {code} is not in the dictionary of {len(known)} entries")
        symbols += entry
        if before and len(known) < largest:
            known.append((*before, entry[0]))
        before = entry
    if len(symbols) > count:
        raise BenchError(f"LZW: the codes hold {len(symbols)} symbols, {count} were expected")
    return symbols


def _widths(alphabet: int, largest: int) -> Iterator[int]:
    """Bits of each code in turn: those of the largest code that the encoder knows by then."""
    for entries in range(alphabet, largest):
        yield (entries - 1).bit_length() or 1
    while True:
        yield (max(alphabet, largest) - 1).bit_length() or 1


def pack(values: Iterable[tuple[int, int]]) -> bytes:
    """Pairs (value, bits) one behind the other, first bit first."""
    bits = "".join([f"{value:0{width}b}" for value, width in values])
    size = (len(bits) + 7) // 8
    return int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")


class Bits:
    """Reads what `pack` wrote."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, width: int) -> int:
        """The next ``width`` bits; BenchError at the end of the data."""
        end = self._at + width
        if end > 8 * len(self._data):
            raise BenchError(f"the code ends after {len(self._data)} bytes, more were expected")
        first, last = self._at // 8, (end + 7) // 8
        chunk = int.from_bytes(self._data[first:last], "big")
        self._at = end
        return (chunk >> (8 * last - end)) & ((1 << width) - 1)
