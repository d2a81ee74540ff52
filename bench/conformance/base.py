"""What a check is: a function that says what it did, or why the method breaks its promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class CheckFailed(Exception):
    """The method breaks the promise; the message says how, and the cure."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract and the function that checks it on a `MethodFixture`."""

    name: str
    promise: str
    function: Callable[[Any], str]


@dataclass(frozen=True)
class Result:
    """What came of the check ``name`` on one method, in ``seconds``.

    ``did``: what was done to find out, empty if it could not be done; ``why``: why the promise is
    not kept, and the cure, empty if it is.
    """

    method: str
    name: str
    passed: bool
    did: str
    why: str
    seconds: float

    @property
    def line(self) -> str:
        """The result as one line."""
        return f"ok   {self.name}: {self.did}" if self.passed else f"FAIL {self.name}: {self.why}"


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run."""


def check(function: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make a function a check: named after it, its docstring the promise.

    It is given a method and returns what it did in a few words; it raises `CheckFailed` where the
    promise is not kept.
    """
    name, promise = function.__name__.replace("_", "-"), (function.__doc__ or "").strip()
    assert promise
    assert "\n" not in promise
    CHECKS[name] = Check(name, promise, function)
    return function
