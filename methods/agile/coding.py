"""From symbols to bytes and back: the entropy coders that an offloading method may send with."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

from bench import BenchError

from . import lzw

Coding = Literal["lzw", "zlib", "lzma", "packed"]
CODINGS: tuple[Coding, ...] = get_args(Coding)
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
"""Without a container, whose header alone would be as long as the features of a small image."""


@dataclass(frozen=True)
class Coder:
    """Codes ``count`` symbols from 0 to ``alphabet`` - 1, at most 256.

    ``lzw`` as published; ``zlib`` (raw deflate) and ``lzma`` (raw LZMA2) of the standard library, a
    symbol in each byte; ``packed``: each symbol in as many bits as the alphabet needs.
    """

    coding: Coding
    count: int
    alphabet: int

    def encode(self, symbols: bytes) -> bytes:
        """The code of the symbols, a byte each."""
        if len(symbols) != self.count:
            raise BenchError(f"{len(symbols)} symbols to code, {self.count} were expected")
        if self.coding == "lzw":
            return lzw.compress(symbols, self.alphabet)
        if self.coding == "zlib":
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            return packer.compress(symbols) + packer.flush()
        if self.coding == "lzma":
            return lzma.compress(symbols, format=lzma.FORMAT_RAW, filters=_FILTERS)
        return lzw.pack((symbol, self._bits) for symbol in symbols)

    def decode(self, data: bytes) -> bytes:
        """The symbols of a code; BenchError if it is none."""
        try:
            symbols = self._decoded(data)
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise BenchError(f"{self.coding}: {len(data)} bytes are no code: {error}") from error
        if len(symbols) != self.count or (symbols and max(symbols) >= self.alphabet):
            raise BenchError(
                f"{self.coding}: {len(data)} bytes hold {len(symbols)} symbols, not {self.count} "
                f"from 0 to {self.alphabet - 1}"
            )
        return symbols

    def _decoded(self, data: bytes) -> bytes:
        if self.coding == "lzw":
            return bytes(lzw.decompress(data, self.count, self.alphabet))
        if self.coding == "zlib":
            return zlib.decompress(data, -15)
        if self.coding == "lzma":
            return lzma.decompress(data, format=lzma.FORMAT_RAW, filters=_FILTERS)
        bits = lzw.Bits(data)
        return bytes(bits.take(self._bits) for _ in range(self.count))

    @property
    def _bits(self) -> int:
        return max((self.alphabet - 1).bit_length(), 1)
