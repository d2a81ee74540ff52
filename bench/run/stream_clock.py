"""The clock of a stream: whether it waits for the method, and which model serves predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from bench.contracts.data import DomainView
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, Unsupported
from bench.run.window import Window
from bench.snapshots.snapshot import Snapshot, put

if TYPE_CHECKING:
    from bench.contracts.method import Method

_ROUNDING = 1e-9
"""Of an interval: the end of an adaptation is a sum of rounded costs."""


class BlockingStream:
    """A stream that waits: the next batch is predicted by the model that the last one adapted."""

    def __init__(self, method: Method, tracker: CostTracker) -> None:
        self._method = method
        self._tracker = tracker

    @property
    def accepts_batch(self) -> bool:
        """Whether the method is free to adapt to the batch that has just arrived."""
        return True

    def serving_model(self) -> AbstractContextManager[None]:
        """A context in which the method predicts with the last model that is ready."""
        return nullcontext()

    def adapt(self, view: DomainView, window: Window) -> bool:
        """Let the method adapt to the batch; whether the device was charged a step for it."""
        before = self._tracker.devices[0].window.steps
        self._method.adapt(view, window)
        return self._tracker.devices[0].window.steps > before

    def advance(self) -> None:
        """Advance to the time at which the next batch arrives."""

    def restart(self) -> None:
        """The method was reset: an adaptation that has not finished is dropped."""


class RealTimeStream(BlockingStream):
    """A stream that does not wait, after Alfarra et al., ICML 2024.

    Batches arrive every ``interval_s`` seconds, also from one domain to the next. Each is predicted
    on arrival by the last model that is ready. Prediction has priority and takes the share
    s = inference / interval of the device's time: an adaptation that costs A device seconds is
    ready A / (1 - s) seconds after its batch arrived. Batches that arrive earlier are predicted by
    the previous model and not adapted to. The paper counts time in batches, relative to the speed
    of prediction; here it is device seconds, with the cost of inference before the stream.

    The simulation adapts immediately and serves predictions from a snapshot until adaptation would
    have finished. If a batch arrives in that interval, peak memory includes a second copy of the
    weights and buffers that adaptation changed, and what a prediction adds, but not of other state.

    Raises Unsupported if the device cannot even predict the stream, BenchError if devices share
    the run.
    """

    def __init__(
        self, method: Method, tracker: CostTracker, interval_s: float, batch_size: int
    ) -> None:
        super().__init__(method, tracker)
        if len(tracker.devices) != 1:
            devices = ", ".join(device.name for device in tracker.devices)
            raise BenchError(
                f"{devices} share a run under online-timed, whose results depend on the device's "
                "speed: give each device a run of its own"
            )
        (device,) = tracker.devices
        assert device.inference is not None
        inference_s = device.inference.time_s * (batch_size / device.inference_samples)
        if inference_s >= interval_s:
            raise Unsupported(
                f"predicting a batch of {batch_size} takes {inference_s:.3g} s on {device.name}, "
                f"and one arrives every {interval_s:.3g} s: the device cannot keep up with the "
                "stream; lengthen interval_s, or use a smaller model"
            )
        self._interval_s = interval_s
        self._left = 1 - inference_s / interval_s
        self._arrived = 0
        self._ready_s = 0.0
        self._earlier: Snapshot | None = None
        self._buffered = False

    @property
    def accepts_batch(self) -> bool:
        return self._earlier is None

    @contextmanager
    def serving_model(self) -> Iterator[None]:
        if self._earlier is None:
            yield
            return
        newer = self._earlier.serve()
        try:
            yield
        finally:
            put(self._method, newer)

    def adapt(self, view: DomainView, window: Window) -> bool:
        self._earlier = Snapshot(self._method, "online-timed")
        if self._arrived == 0:
            self._earlier.require_independent()
        self._buffered = False
        before = window.spent_s
        worked = super().adapt(view, window)
        took = (window.spent_s - before) / self._left
        self._ready_s = self._arrived * self._interval_s + took
        return worked

    def _changed_bytes(self) -> int:
        """Bytes of the model that predicts meanwhile and is not the model that was adapted."""
        now = self._method.model.module.state_dict()
        with self.serving_model():
            earlier = self._method.model.module.state_dict()
        same = (n for n, t in earlier.items() if n in now and torch.equal(t, now[n]))
        return sum(t.nbytes for t in earlier.values()) - sum(earlier[n].nbytes for n in same)

    def advance(self) -> None:
        self._arrived += 1
        if self._ready_s <= (self._arrived + _ROUNDING) * self._interval_s:
            self._earlier = None
        elif self._earlier is not None and not self._buffered:  # the same until it is ready
            self._tracker.add_double_buffer(self._changed_bytes())
            self._buffered = True

    def restart(self) -> None:
        self._earlier = None
