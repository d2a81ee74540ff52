"""What passes over the link: messages in numbered packets, each with a checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from bench import BenchError

PAYLOAD = 1400
"""Bytes of a message in one packet, so that it fits an Ethernet frame of 1,500."""
BELOW = 28
"""Bytes of the headers of UDP (8) and IPv4 (20) that each packet has besides."""
_HEADER = struct.Struct(">4sBIHHI")
_MAGIC = b"OFL1"


class Kind(IntEnum):
    """What a message is."""

    ASK = 1
    ANSWER = 2
    CORRUPT = 3
    """The answer to a packet whose checksum is wrong."""
    FAILED = 4
    """The answer where the server could not compute one; its payload says why."""


class CorruptPacketError(BenchError):
    """A packet that is not what was sent; ``number`` is what it says of its message."""

    def __init__(self, text: str, number: int | None) -> None:
        super().__init__(text)
        self.number = number


@dataclass(frozen=True)
class Packet:
    """Part ``part`` of ``parts`` of a message with this number."""

    kind: Kind
    number: int
    part: int
    parts: int
    payload: bytes

    def encode(self) -> bytes:
        """The packet as bytes: magic, kind, number, part, parts, CRC-32 of all else, payload."""
        plain = _HEADER.pack(_MAGIC, self.kind, self.number, self.part, self.parts, 0)
        check = zlib.crc32(plain + self.payload)
        head = _HEADER.pack(_MAGIC, self.kind, self.number, self.part, self.parts, check)
        return head + self.payload


def decode(data: bytes) -> Packet:
    """The packet of these bytes; `CorruptPacketError` if the checksum says otherwise."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise CorruptPacketError(f"a packet of {len(data)} bytes is none of this link's", None)
    magic, kind, number, part, parts, check = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if check != zlib.crc32(_HEADER.pack(magic, kind, number, part, parts, 0) + payload):
        raise CorruptPacketError(f"packet {part} of message {number} has a wrong checksum", number)
    return Packet(Kind(kind), number, part, parts, payload)


def packets(kind: Kind, number: int, message: bytes) -> list[bytes]:
    """A message in packets."""
    chunks = [message[i : i + PAYLOAD] for i in range(0, len(message), PAYLOAD)] or [b""]
    whole = len(chunks)
    return [Packet(kind, number, i, whole, chunk).encode() for i, chunk in enumerate(chunks)]


def bytes_on_wire(message: bytes) -> int:
    """Bytes that a message takes on the link, all headers included."""
    return sum(len(packet) + BELOW for packet in packets(Kind.ASK, 0, message))


class Assembly:
    """Puts the packets of messages together, whatever their order."""

    def __init__(self) -> None:
        self._parts: dict[tuple[Kind, int], dict[int, bytes]] = {}

    def forget(self, number: int) -> None:
        """Drop what has come of a message of which a part is wrong."""
        for key in [key for key in self._parts if key[1] == number]:
            del self._parts[key]

    def add(self, packet: Packet) -> Iterator[tuple[Kind, int, bytes]]:
        """Take in a packet; gives (kind, number, message) if it completes one."""
        key = (packet.kind, packet.number)
        held = self._parts.setdefault(key, {})
        held[packet.part] = packet.payload
        if len(held) == packet.parts:
            del self._parts[key]
            yield packet.kind, packet.number, b"".join(held[i] for i in range(packet.parts))
