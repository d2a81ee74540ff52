"""How far long work has come: told by whoever does it, heard by whoever started it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[int, int], None]
"""Receives (done, of how many epochs or steps); (0, 0) where it begins and nothing is known."""

_heard_by: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def listening(progress: Progress) -> Iterator[None]:
    """Within it ``progress`` receives what `advance` is called with."""
    token = _heard_by.set(progress)
    try:
        yield
    finally:
        _heard_by.reset(token)


@contextmanager
def part(before: int, total: int) -> Iterator[None]:
    """Within it what `advance` is called with counts from ``before``, of ``total`` in all."""
    outer = _heard_by.get()
    if outer is None:
        yield
        return
    with listening(lambda done, _: outer(before + done, total)):
        yield


def advance(done: int, total: int) -> None:
    """Say that ``done`` of ``total`` are done; nothing happens if nobody listens."""
    progress = _heard_by.get()
    if progress is not None:
        progress(done, total)
