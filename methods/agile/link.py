"""A link to a server: UDP on the loopback between two processes, with a rate, loss and corruption.

A real exchange of packets, at the rate of the loopback or, where it is `paced`, at the link's own
by a token bucket. What is lost or corrupted is drawn from the seed and the message's content, so
that a run can be repeated and the same message always has the same fate.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import select
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from bench import BenchError

from .server import ADDRESS, serve
from .wire import BELOW, Assembly, CorruptPacketError, Kind, bytes_on_wire, decode, packets

IN_FLIGHT, BYTES_IN_FLIGHT = 64, 32_768
"""Messages, and bytes of them, that wait for an answer at once: far below a socket's buffer."""
SILENCE_S, SILENCES = 1.0, 3
"""Seconds of a wait for any answer, and so many in a row in which the server's process computes
nothing either: then the link counts as dead."""
GUARD_S = 30.0
"""Seconds without any answer after which the link counts as dead, whatever the server does."""
RATE_0 = "the link is down (rate_kbps 0)"
LOST, CORRUPT = "lost packet", "corrupt packet"


@dataclass(frozen=True)
class LinkSettings:
    """What the link is like.

    Attributes
    ----------
    rate_bps : bits a second, both ways; 0: there is no link
    loss, corruption : share of the messages that are lost, or arrive with a changed byte
    dies_after : messages after which the server's process ends; 0: it does not
    seed : of what is lost and corrupted
    """

    rate_bps: float
    loss: float = 0.0
    corruption: float = 0.0
    dies_after: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What came back for one message.

    Attributes
    ----------
    value : the answer; None where there is none
    why : the reason then
    up, down : bytes on the link in each direction
    remote_s : wall seconds of the server
    wall_s : wall seconds from the first packet to the answer
    """

    value: bytes | None
    why: str = ""
    up: int = 0
    down: int = 0
    remote_s: float = 0.0
    wall_s: float = 0.0


class TokenBucket:
    """Lets bytes pass at a rate, in bits a second, with room for one packet at once."""

    def __init__(
        self,
        rate_bps: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._burst = rate_bps / 8, float(burst)
        self._clock, self._sleep = clock, sleep
        self._tokens, self._then = 0.0, clock()

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes may have passed."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._then) * self._rate, self._burst) - size
        self._then = now
        if self._tokens < 0:
            wait = -self._tokens / self._rate
            self._sleep(wait)


class Link:
    """The device's end of the link; a process that computes ``answer`` is at the other.

    ``down``: why there is no link any more; empty while there is one; ``answer``: what the server
    computes.

    Parameters
    ----------
    settings : what the link is like
    answer : from a message to its answer, computed by the server on one thread
    """

    def __init__(self, settings: LinkSettings, answer: Callable[[bytes], bytes]) -> None:
        self.settings, self.answer = settings, answer
        self.down = "" if settings.rate_bps > 0 else RATE_0
        self._number = 0
        self._process: Any = None
        if not self.down:
            self._start()

    def ask(self, messages: Sequence[bytes], paced: bool = False) -> list[Answer]:
        """An answer for each message, in their order; see `Answer` for those that get none.

        ``paced``: one by one, at the link's rate. BenchError if the server fails on a message.
        """
        answers: list[Answer] = []
        at = 0
        while at < len(messages):
            end, size = at + 1, bytes_on_wire(messages[at])
            while not paced and end < len(messages) and end - at < IN_FLIGHT:
                size += bytes_on_wire(messages[end])
                if size > BYTES_IN_FLIGHT:
                    break
                end += 1
            answers += self._exchange(messages[at:end], paced)
            at = end
        return answers

    def stop(self) -> None:
        """End the server's process."""
        if self._process is not None:
            self._end()

    def kill(self) -> None:
        """End the server's process in the middle of its work, as a fault does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    # -----------------------------------------------------------------------

    def _start(self) -> None:
        """The server's socket is made here, so that it is there before the first packet."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((ADDRESS, 0))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(server.getsockname())
        self._socket.setblocking(False)
        context = multiprocessing.get_context("fork")
        self._process = context.Process(
            target=serve,
            args=(server, self._socket, self.answer, self.settings.dies_after),
            daemon=True,
        )
        self._process.start()
        server.close()
        self._end = weakref.finalize(self, _stop, self._process, self._socket)

    def _exchange(self, messages: Sequence[bytes], paced: bool) -> list[Answer]:
        """Send some messages, and wait for all answers that can come."""
        found: dict[int, Answer] = {}
        waiting: dict[int, tuple[int, int, float]] = {}
        rate = self.settings.rate_bps
        bucket = TokenBucket(rate, BELOW) if paced and not self.down else None
        for place, message in enumerate(messages):
            if self.down:
                found[place] = Answer(None, self.down)
                continue
            size = bytes_on_wire(message)
            if self._drawn("loss", message) < self.settings.loss:
                found[place] = Answer(None, LOST, up=size)
                continue
            self._number += 1
            waiting[self._number] = place, size, time.perf_counter()
            self._send(self._number, message, bucket)
        self._collect(waiting, found, paced)
        return [found[place] for place in range(len(messages))]

    def _send(self, number: int, message: bytes, bucket: TokenBucket | None) -> None:
        sent = packets(Kind.ASK, number, message)
        if self._drawn("corruption", message) < self.settings.corruption:
            last = bytearray(sent[-1])
            last[-1] ^= 0xFF
            sent[-1] = bytes(last)
        for packet in sent:
            if bucket is not None:
                bucket.take(len(packet) + BELOW)
            try:
                select.select([], [self._socket], [], GUARD_S)
                self._socket.send(packet)
            except OSError as error:
                self._died(error.strerror or str(error))
                return

    def _collect(
        self,
        waiting: dict[int, tuple[int, int, float]],
        found: dict[int, Answer],
        paced: bool,
    ) -> None:
        assembly = Assembly()
        while waiting and not self.down:
            for kind, number, message in self._received(assembly):
                if number not in waiting:
                    continue
                place, up, began = waiting.pop(number)
                down = bytes_on_wire(message)
                if paced:  # a bucket of its own: the server's time buys the answer no tokens
                    TokenBucket(self.settings.rate_bps, BELOW).take(down)
                wall = time.perf_counter() - began
                found[place] = _answer(kind, message, up, down, wall)
        for place, up, _ in waiting.values():
            found[place] = Answer(None, self.down, up=up)

    def _received(self, assembly: Assembly) -> list[tuple[Kind, int, bytes]]:
        """The messages that the next packet completes; none where it came for nothing."""
        readable = self._readable()
        if self._socket not in readable:
            if readable:
                self._died("no answer comes")
            return []
        try:
            return list(assembly.add(decode(self._socket.recv(65536))))
        except CorruptPacketError as error:
            return [] if error.number is None else [(Kind.CORRUPT, error.number, b"")]
        except OSError as error:
            self._died(error.strerror or str(error))
            return []

    def _readable(self) -> list[Any]:
        """The ends that something has come from; none where the link counts as dead now.

        The processor time of a slow server rises, however busy the machine is; that of one that
        hangs does not.
        """
        ends, worked, silent = [self._socket, self._process.sentinel], -1.0, 0
        for _ in range(math.ceil(GUARD_S / SILENCE_S)):
            readable, _, _ = select.select(ends, [], [], SILENCE_S)
            if readable:
                return readable
            before, worked = worked, _processor_s(self._process.pid)
            silent = silent + 1 if worked == before else 0
            if silent == SILENCES:
                waits = f"{SILENCES} waits of {SILENCE_S:g} s"
                self._died(f"no answer in {waits}, in which the server computed nothing")
                return []
        self._died(f"no answer within {GUARD_S:g} s")
        return []

    def _died(self, seen: str) -> None:
        """The reason names the process's end where there is one: what was seen first is chance."""
        self._process.join(1)
        code = self._process.exitcode
        self.down = "the link died: " + (
            seen if code is None else f"the server's process ended with code {code}"
        )

    def _drawn(self, what: str, message: bytes) -> float:
        """A number from 0 to 1 that the seed and the message fix."""
        seed = f"{what} {self.settings.seed}".encode()
        digest = hashlib.blake2b(message, digest_size=8, key=seed).digest()
        return int.from_bytes(digest, "big") / 2**64


def _answer(kind: Kind, message: bytes, up: int, down: int, wall_s: float) -> Answer:
    if kind == Kind.CORRUPT:
        return Answer(None, CORRUPT, up, down, wall_s=wall_s)
    if kind == Kind.FAILED:
        raise BenchError(f"the server failed: {message.decode(errors='replace')}")
    remote_s = int.from_bytes(message[:8], "big") * 1e-9
    return Answer(message[8:], "", up, down, remote_s, wall_s)


def _processor_s(pid: int) -> float:
    """Seconds that a process has computed; the same again once it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _stop(process: Any, end: socket.socket) -> None:
    with suppress(OSError):
        end.close()
    with suppress(OSError, ValueError, AssertionError):  # of another process than this
        process.kill()
        process.join(5)
