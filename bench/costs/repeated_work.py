"""Work that a section does again and again: counted twice, then taken to be as the second time.

The first time may find less in memory: no gradients yet, say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from bench.costs.step_tracer import Log, StepTracer


class RepeatedWork:
    """What is known of the work of one step or section, by its key."""

    def __init__(self, tracer: StepTracer) -> None:
        self._tracer = tracer
        self._times: Counter[Hashable] = Counter()
        self._known: dict[Hashable, tuple[Log, float, float]] = {}

    @contextmanager
    def once(self, key: Hashable) -> Iterator[None]:
        """The work of ``key``, once."""
        tracer, trace = self._tracer, self._tracer.trace
        if self._times[key] > 1 and tracer.is_innermost:
            log, operators_s, counting_s = self._known[key]
            with tracer.unseen():
                yield
            tracer.log += log
            trace.operators_s += operators_s
            trace.spared_s += counting_s
            return
        place, ran, counted = len(tracer.log), trace.operators_s, trace.counting_s
        yield
        self._times[key] += 1
        took = trace.operators_s - ran, trace.counting_s - counted
        self._known[key] = (tracer.log[place:], *took)
