"""What a check is: a function that says what it did, or why the component breaks its promise.

Checks are registered by kind. A module of checks makes its decorator and its subject::

    check = check_of("stream")

    @subject_of("stream")
    class StreamFixture: ...  # made once of a stream's name, and given to each of its checks

    @check
    def splits(subject: StreamFixture) -> str: ...  # its docstring is the promise, in one line

and is named in `bench.conformance.suite.MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from bench.registry.discovery import Entry


class CheckFailed(Exception):
    """The component breaks the promise; the message says how, and the cure."""


class Subject(Protocol):
    """What the checks of one kind are given: a component with what a check does to it.

    ``patience``: how many times the usual limit a check may take; ``too_slow``: the cure where it
    does not end in time.
    """

    name: str
    entry: Entry
    patience: int
    too_slow: str


@dataclass(frozen=True)
class Check:
    """One promise of a kind's contract and the function that checks it on a `Subject`."""

    name: str
    promise: str
    function: Callable[[Any], str]


@dataclass(frozen=True)
class Result:
    """What came of the check ``name`` on one component, in ``seconds``.

    ``did``: what was done to find out, empty if it could not be done; ``why``: why the promise is
    not kept, and the cure, empty if it is.
    """

    kind: str
    component: str
    name: str
    passed: bool
    did: str
    why: str
    seconds: float

    @property
    def line(self) -> str:
        """The result as one line."""
        return f"ok   {self.name}: {self.did}" if self.passed else f"FAIL {self.name}: {self.why}"


CHECKS: dict[str, dict[str, Check]] = {"method": {}, "model": {}, "stream": {}, "dataset": {}}
"""By kind: all checks by name, in the order in which they run."""

SUBJECTS: dict[str, Callable[..., Subject]] = {}
"""By kind: what makes the `Subject` of a component's name.

It raises BenchError where the component cannot be checked at all. One of a data set takes its
``settings`` too.
"""

Made = TypeVar("Made", bound=Callable[..., Subject])


def check_of(kind: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """The decorator that makes a function a check of ``kind``: named after it, its docstring the
    promise.

    It is given the kind's subject and returns what it did in a few words; it raises `CheckFailed`
    where the promise is not kept.
    """

    def check(function: Callable[[Any], str]) -> Callable[[Any], str]:
        name, promise = function.__name__.replace("_", "-"), (function.__doc__ or "").strip()
        assert promise
        assert "\n" not in promise
        CHECKS[kind][name] = Check(name, promise, function)
        return function

    return check


def subject_of(kind: str) -> Callable[[Made], Made]:
    """The decorator of the class or function that makes the subject of ``kind`` of a name."""

    def mark(made: Made) -> Made:
        SUBJECTS[kind] = made
        return made

    return mark


check = check_of("method")
"""The decorator of the checks of methods."""
