"""Errors that a user can cure: each names the thing, the value and the cure in one line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

from bench.io.one_line import one_line


class BenchError(Exception):
    """A mistake in what was asked for; the command line prints it and exits with 2.

    The message becomes one line, whatever the libraries that it quotes have put into it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Unsupported(BenchError):
    """A method that cannot run in this cell; recorded as ``unsupported`` with this reason."""


class DeviceOutOfMemory(BenchError):
    """The counted peak memory exceeds what the device leaves to applications."""


class LabelsHidden(BenchError, AttributeError):
    """Somebody asked an unlabelled batch or domain for its labels."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The cure for an unknown name: the nearest known names, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.55)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + (", ".join(known) if known else "none")


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 100
_brief.maxlong = 40


def shown(value: object) -> str:
    """A value from a user's file for an error: its `repr`, cut if it is long or deep."""
    return _brief.repr(value)
