"""What happened to a method under test, kept where no copy and no digest of the method looks."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any


class EventLog:
    """A list that is not state of the method that writes to it: inside is a queue.

    A method that is watched so counts as changed by whatever it does: nothing of it is reused.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()

    def __deepcopy__(self, memo: Any) -> EventLog:
        return self

    def append(self, event: Any) -> None:
        self._queue.put(event)

    def read(self) -> list[Any]:
        """All events so far."""
        events = [self._queue.get() for _ in range(self._queue.qsize())]
        for event in events:
            self._queue.put(event)
        return events

    def __eq__(self, other: object) -> bool:
        return self.read() == other

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return iter(self.read())

    def __getitem__(self, key: Any) -> Any:
        return self.read()[key]

    def __len__(self) -> int:
        return self._queue.qsize()
