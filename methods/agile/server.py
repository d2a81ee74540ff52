"""The server's end of a link: a process that answers messages until the device's process ends."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable

from .wire import Assembly, CorruptPacketError, Kind, decode, packets

ADDRESS = "127.0.0.1"
LOOK_S = 1.0
"""Seconds after which it looks whether anybody is there to answer."""


def serve(
    here: socket.socket, device: socket.socket, answer: Callable[[bytes], bytes], dies_after: int
) -> None:
    """Answer messages that come to ``here``, with the nanoseconds that it took in front.

    ``device``: the other end, which the fork has copied; ``dies_after``: messages after which it
    ends, 0: never. A packet with a wrong checksum is answered with `Kind.CORRUPT`, an exception
    with `Kind.FAILED`.
    """
    import torch

    device.close()
    torch.set_num_threads(1)
    parent, answered, assembly = os.getppid(), 0, Assembly()
    while os.getppid() == parent:
        if not select.select([here], [], [], LOOK_S)[0]:
            continue
        try:
            data, sender = here.recvfrom(65536)
        except ConnectionError:  # the answer before found nobody
            continue
        try:
            complete = list(assembly.add(decode(data)))
        except CorruptPacketError as error:
            if error.number is not None:
                assembly.forget(error.number)
                _send(here, sender, Kind.CORRUPT, error.number, b"")
            continue
        for _, number, message in complete:
            if dies_after and answered == dies_after:
                os._exit(1)
            answered += 1
            _send(here, sender, *_answered(answer, number, message))


def _answered(
    answer: Callable[[bytes], bytes], number: int, message: bytes
) -> tuple[Kind, int, bytes]:
    import torch

    began = time.perf_counter_ns()
    try:
        with torch.inference_mode():
            made = answer(message)
    except Exception as error:
        return Kind.FAILED, number, f"{type(error).__name__}: {error}".encode()
    took = (time.perf_counter_ns() - began).to_bytes(8, "big")
    return Kind.ANSWER, number, took + made


def _send(
    here: socket.socket, to: tuple[str, int], kind: Kind, number: int, message: bytes
) -> None:
    for packet in packets(kind, number, message):
        here.sendto(packet, to)
