"""The link: an exchange of packets with another process, its rate, and what can go wrong."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from bench.errors import BenchError
from bench.methods._shared import Shared
from bench.methods.agile import link as link_module
from bench.methods.agile.link import (
    BYTES_IN_FLIGHT,
    CORRUPT,
    GUARD_S,
    LOST,
    RATE_0,
    Link,
    LinkSettings,
    TokenBucket,
)
from bench.methods.agile.wire import (
    Assembly,
    CorruptPacketError,
    Kind,
    bytes_on_wire,
    decode,
    packets,
)

FAST = 1e9


def backwards(message: bytes) -> bytes:
    return message[::-1]


@pytest.fixture
def link() -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(rate_bps: float = FAST, answer: Callable[[bytes], bytes] = backwards, **more) -> Link:
        made.append(Link(LinkSettings(rate_bps, **more), answer))
        return made[-1]

    yield make
    for each in made:
        each.stop()


MESSAGES = [f"message {i}".encode() * 20 for i in range(200)]


# --- packets --------------------------------------------------------------------------


def test_a_message_is_put_together_from_its_packets_in_any_order() -> None:
    message = os.urandom(5000)
    sent = packets(Kind.ASK, 7, message)
    assert len(sent) == 4  # of at most 1400 bytes
    assembly = Assembly()
    found = [each for packet in reversed(sent) for each in assembly.add(decode(packet))]
    assert found == [(Kind.ASK, 7, message)]
    # 17 bytes of our header and 28 of UDP and IPv4 in each.
    assert bytes_on_wire(message) == 5000 + 4 * (17 + 28)


def test_what_has_come_of_a_wrong_message_is_dropped() -> None:
    first, second = packets(Kind.ASK, 7, bytes(2000))
    assembly = Assembly()
    assert list(assembly.add(decode(first))) == []
    assembly.forget(7)
    assert list(assembly.add(decode(second))) == []
    assert list(assembly.add(decode(first))) == [(Kind.ASK, 7, bytes(2000))]


@pytest.mark.parametrize("at", [4, 5, 9, 17, 60])
def test_every_changed_byte_is_found(at: int) -> None:
    (packet,) = packets(Kind.ASK, 3, b"x" * 50)
    changed = bytearray(packet)
    changed[at] ^= 1
    with pytest.raises(CorruptPacketError, match="wrong checksum"):
        decode(bytes(changed))


def test_a_strange_packet_is_refused() -> None:
    with pytest.raises(CorruptPacketError, match="none of this link's"):
        decode(b"GET / HTTP/1.1\r\n\r\n")


# --- rate -----------------------------------------------------------------------------


def test_the_bucket_lets_bytes_pass_at_its_rate() -> None:
    now = [10.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    bucket = TokenBucket(80_000, burst=100, clock=lambda: now[0], sleep=sleep)
    for _ in range(50):
        bucket.take(200)
    assert now[0] - 10.0 == pytest.approx(50 * 200 * 8 / 80_000)
    now[0] += 5.0  # idle: at most the burst is saved up
    bucket.take(100)
    assert now[0] - 16.0 == pytest.approx(0.0, abs=1e-9)
    bucket.take(100)
    assert now[0] - 16.0 == pytest.approx(0.01)


def test_a_paced_exchange_takes_as_long_as_its_bytes_do(link: Callable[..., Link]) -> None:
    slow = link(rate_bps=270e3)
    began = time.perf_counter()
    answers = slow.ask(MESSAGES[:5], paced=True)
    took = time.perf_counter() - began
    expected = sum(8 * (a.up + a.down) for a in answers) / 270e3
    assert [a.value for a in answers] == [m[::-1] for m in MESSAGES[:5]]
    assert expected > 0.05
    assert expected * 0.99 < took < expected + 2.0
    assert all(a.wall_s >= 8 * (a.up + a.down) / 270e3 * 0.9 for a in answers)


def test_an_exchange_that_is_not_paced_goes_at_the_loopbacks_rate(
    link: Callable[..., Link],
) -> None:
    slow = link(rate_bps=1000.0)
    answers = slow.ask(MESSAGES[:5])
    assert [a.value for a in answers] == [m[::-1] for m in MESSAGES[:5]]
    assert sum(a.wall_s for a in answers) < 8 * sum(a.up for a in answers) / 1000.0 / 2


# --- answers --------------------------------------------------------------------------


def test_each_message_gets_its_answer_from_another_process(link: Callable[..., Link]) -> None:
    here = os.getpid()
    made = link(answer=lambda message: str(os.getpid()).encode() + b" " + message)
    answers = made.ask(MESSAGES)
    assert [a.value.partition(b" ")[2] for a in answers] == MESSAGES
    (other,) = {a.value.partition(b" ")[0] for a in answers}
    assert int(other) != here
    assert all(a.up == bytes_on_wire(m) for a, m in zip(answers, MESSAGES, strict=True))
    assert all(a.remote_s > 0 for a in answers)


def test_long_messages_pass_in_many_packets(link: Callable[..., Link]) -> None:
    messages = [os.urandom(BYTES_IN_FLIGHT), os.urandom(10), os.urandom(20_000)]
    assert [a.value for a in link().ask(messages)] == [m[::-1] for m in messages]


def test_a_rate_of_0_is_no_link() -> None:
    down = Link(LinkSettings(0.0), backwards)
    assert down.down == RATE_0
    assert [(a.value, a.why, a.up) for a in down.ask(MESSAGES[:2])] == [(None, RATE_0, 0)] * 2


def test_what_fails_at_the_server_is_an_error_here(link: Callable[..., Link]) -> None:
    def fails(message: bytes) -> bytes:
        raise ValueError("no such thing")

    with pytest.raises(BenchError, match="the server failed: ValueError: no such thing"):
        link(answer=fails).ask(MESSAGES[:1])


def test_copies_share_a_link_until_the_last_is_gone(link: Callable[..., Link]) -> None:
    shared = Shared(Link(LinkSettings(FAST), lambda message: str(os.getpid()).encode()))
    copied = copy.deepcopy({"link": shared})["link"]
    assert copied.thing is shared.thing
    server = int(shared.thing.ask([b""])[0].value)
    os.kill(server, 0)
    del shared, copied
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


# --- faults ---------------------------------------------------------------------------


def test_lost_messages_are_as_many_as_asked_for_and_always_the_same(
    link: Callable[..., Link],
) -> None:
    first, again = (link(loss=0.3, seed=4).ask(MESSAGES) for _ in range(2))
    lost = [a.value is None for a in first]
    assert lost == [a.value is None for a in again]
    assert 0.2 * len(lost) < sum(lost) < 0.4 * len(lost)
    assert {a.why for a in first if a.value is None} == {LOST}
    other = [a.value is None for a in link(loss=0.3, seed=5).ask(MESSAGES)]
    assert other != lost


def test_corrupt_packets_are_found_by_the_server(link: Callable[..., Link]) -> None:
    answers = link(corruption=0.25, seed=1).ask(MESSAGES)
    wrong = [a for a in answers if a.value is None]
    assert 0.15 * len(answers) < len(wrong) < 0.35 * len(answers)
    assert {a.why for a in wrong} == {CORRUPT}
    right = [(a, m) for a, m in zip(answers, MESSAGES, strict=True) if a.value is not None]
    assert all(a.value == m[::-1] for a, m in right)


def test_a_link_that_dies_says_so_for_all_that_comes_after(link: Callable[..., Link]) -> None:
    made = link()
    assert all(a.value is not None for a in made.ask(MESSAGES[:10]))
    made.kill()
    answers = made.ask(MESSAGES[:10])
    assert all(a.value is None for a in answers)
    assert made.down.startswith("the link died: ")
    assert made.down.endswith("the server's process ended with code -9")
    assert {a.why for a in answers} == {made.down}
    assert made.ask(MESSAGES[:1])[0].why == made.down


def test_a_server_that_dies_at_work_has_answered_what_it_says(link: Callable[..., Link]) -> None:
    answers = link(dies_after=120).ask(MESSAGES)
    assert [a.value is not None for a in answers] == [True] * 120 + [False] * 80
    assert "code 1" in answers[-1].why


def test_a_server_that_hangs_is_given_up_soon(
    link: Callable[..., Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is there, and no answer comes: all that was asked and is asked later is alone."""
    monkeypatch.setattr(link_module, "SILENCE_S", 0.2)
    made = link(answer=lambda message: str(os.getpid()).encode())
    server = int(made.ask([b""])[0].value)
    os.kill(server, signal.SIGSTOP)
    began = time.perf_counter()
    answers = made.ask(MESSAGES[:50])
    assert time.perf_counter() - began < GUARD_S / 2
    assert [a.value for a in answers] == [None] * 50
    reason = "no answer in 3 waits of 0.2 s, in which the server computed nothing"
    assert {a.why for a in answers} == {f"the link died: {reason}"}
    assert all(a.up == bytes_on_wire(m) for a, m in zip(answers, MESSAGES[:50], strict=True))
    later = made.ask(MESSAGES[:5])
    assert [(a.why, a.up) for a in later] == [(made.down, 0)] * 5


def test_a_server_that_computes_long_is_waited_for(
    link: Callable[..., Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_S", 0.25)

    def slow(message: bytes) -> bytes:
        begun = time.process_time()
        while time.process_time() - begun < 1.5:  # longer than the waits of one that hangs
            pass
        return message

    made = link(answer=slow)
    assert [a.value for a in made.ask([b"a"])] == [b"a"]
    assert made.down == ""


def test_the_server_ends_with_the_link() -> None:
    made = Link(LinkSettings(FAST), lambda message: str(os.getpid()).encode())
    (answer,) = made.ask([b""])
    assert answer.value is not None
    made.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(answer.value), 0)
