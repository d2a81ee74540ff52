"""What a method tells of its offloading: how many samples, who answered them, how many bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .coding import CODINGS, Coder, Coding
from .link import Answer, Link

MEASURED = 16
"""Messages that are sent once more at the link's own rate, to measure it."""


class Told:
    """Counts of a run's exchanges.

    ``alone``: reasons by which samples were answered on the device, with their numbers; ``kept``:
    the reason of those for which the server is not asked.
    """

    def __init__(self, kept: str = "confident") -> None:
        self.kept = kept
        self.samples = self.answered = self.up = self.down = self.lost = 0
        self.alone: Counter[str] = Counter()
        self.remote_s = 0.0
        self.messages: list[bytes] = []
        self.symbols: list[bytes] = []
        self._measured: dict[str, float] | None = None

    def add(self, samples: int, messages: Sequence[bytes], answers: Sequence[Answer]) -> None:
        """Count a batch of so many samples, of which ``messages`` went to the server."""
        self.samples += samples
        self.alone[self.kept] += samples - len(answers)
        for answer in answers:
            self.up += answer.up
            self.down += answer.down
            self.remote_s += answer.remote_s
            if answer.value is None:
                self.alone[answer.why] += 1
                self.lost += answer.up > 0
            else:
                self.answered += 1
        if messages:
            self.messages = list(messages[:MEASURED])

    def keep(self, symbols: Sequence[bytes]) -> None:
        """Symbols of samples, before they are coded, of which the coders are compared."""
        self.symbols = list(symbols[:MEASURED])

    def mean(self, total: float) -> float:
        """Of one sample, of a total over all."""
        return total / max(self.samples, 1)

    def measured(self, link: Link) -> dict[str, float] | None:
        """A message and its answer at the link's rate, measured once; None if there is no link.

        Seconds; ``transmission_s`` is without the server's own ``remote_s``; ``bytes``: both ways.
        """
        if self._measured is None and not link.down and self.messages:
            answers = [a for a in link.ask(self.messages, paced=True) if a.value is not None]
            if answers:
                n = len(answers)
                self._measured = {
                    "messages": n,
                    "bytes": sum(a.up + a.down for a in answers) / n,
                    "transmission_s": sum(a.wall_s - a.remote_s for a in answers) / n,
                    "remote_s": sum(a.remote_s for a in answers) / n,
                }
        return self._measured

    def facts(self, coder: Coder | None, link: Link | None) -> dict[str, Any]:
        """For a record: counts, means of a sample, and the link at its own rate."""
        found: dict[str, Any] = {
            "samples": self.samples,
            "answered_by_server": self.answered,
            "answered_on_device": {k: n for k, n in sorted(self.alone.items()) if n},
            "bytes_up_per_sample": self.mean(self.up),
            "bytes_down_per_sample": self.mean(self.down),
        }
        if link is not None:
            found["link"] = link.down or "up"
            found["measured_at_rate"] = self.measured(link)
        if coder is not None and self.symbols:
            found["code_bytes"] = {name: self._mean_code(name, coder) for name in CODINGS}
        return found

    def _mean_code(self, coding: Coding, like: Coder) -> float:
        """Mean bytes of the symbols that were kept, in one of the codes."""
        coder = Coder(coding, like.count, like.alphabet)
        return sum(len(coder.encode(each)) for each in self.symbols) / len(self.symbols)
