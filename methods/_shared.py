"""What copies of a method share, because it is no part of what the method has learned."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")
_HELD: dict[int, Any] = {}
_KEYS = itertools.count()


class Shared(Generic[Thing]):
    """Holds a thing, a link say, that copies go on using: protocols copy methods to reset them.

    The thing itself is kept outside, so that what it counts is not taken for a change of the
    method. It goes with the last copy.
    """

    def __init__(self, thing: Thing) -> None:
        self._key = next(_KEYS)
        _HELD[self._key] = thing
        weakref.finalize(self, _HELD.pop, self._key, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared[Thing]:
        return self

    @property
    def thing(self) -> Thing:
        """What is held."""
        found: Thing = _HELD[self._key]
        return found
