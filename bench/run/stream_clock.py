"""The pace of an online stream: whether it waits for a method, and which model predicts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from bench.contracts.data import DomainView
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, Unsupported
from bench.run.window import Window

if TYPE_CHECKING:
    from bench.contracts.method import Method

_ROUNDING = 1e-9
"""Of an interval: the end of an adaptation is a sum of rounded costs."""


class BlockingStream:
    """A stream that waits for the method: what it has learned predicts the next batch."""

    def __init__(self, method: Method, tracker: CostTracker) -> None:
        self._method = method
        self._tracker = tracker

    @property
    def accepts_batch(self) -> bool:
        """Whether the method takes the batch that has just arrived."""
        return True

    def serving_model(self) -> AbstractContextManager[None]:
        """Inside, the method predicts with the last model that is ready."""
        return nullcontext()

    def adapt(self, view: DomainView, window: Window) -> bool:
        """Give the batch to the method; whether the device was charged anything for it."""
        before = self._tracker.devices[0].window.steps
        self._method.adapt(view, window)
        return self._tracker.devices[0].window.steps > before

    def advance(self) -> None:
        """Go on to the time when the next batch arrives."""

    def restart(self) -> None:
        """The method was set back: what was in the making is dropped."""


class RealTimeStream(BlockingStream):
    """A stream that does not wait, after Alfarra et al., ICML 2024.

    Batches arrive every ``interval_s`` seconds, also from one domain to the next. Each is predicted
    on arrival by the last model that is ready. Prediction goes before all else and takes the share
    s = inference / interval of the device's time; adaptation has the rest, so that one which costs
    A device seconds is ready A / (1 - s) seconds after its batch arrived. The batches that arrive
    before that are predicted by the model as it was and are not adapted to; one that arrives just
    then is predicted by the new model and adapted to.

    The paper counts in batches, with the speed of a method relative to that of predicting; here
    both are device seconds, so that the device decides. The price of inference is the one that was
    known before the stream.

    In the simulation the method adapts at once, and a copy of its state from before predicts
    meanwhile. Where a batch arrives meanwhile, peak memory includes what a device would hold: the
    weights and buffers of the model that adaptation changed a second time, and what a prediction
    adds. Other state that is predicted with, as centroids of classes, is not doubled there.

    Parameters
    ----------
    method, tracker : of a run on one device, with its price of inference
    interval_s : seconds from one batch to the next
    batch_size : samples in a batch

    Raises
    ------
    Unsupported if the device cannot even predict the stream; BenchError if devices share the run
    """

    def __init__(
        self, method: Method, tracker: CostTracker, interval_s: float, batch_size: int
    ) -> None:
        super().__init__(method, tracker)
        if len(tracker.devices) != 1:
            devices = ", ".join(device.name for device in tracker.devices)
            raise BenchError(
                f"{devices} share a run under online-timed, whose course depends on the device's "
                "seconds: give each device a run of its own"
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
        self._earlier: dict[str, Any] | None = None
        self._buffered = False

    @property
    def accepts_batch(self) -> bool:
        return self._earlier is None

    @contextmanager
    def serving_model(self) -> Iterator[None]:
        if self._earlier is None:
            yield
            return
        newer = dict(vars(self._method))
        _put(self._method, self._earlier)
        try:
            yield
        finally:
            _put(self._method, newer)

    def adapt(self, view: DomainView, window: Window) -> bool:
        self._earlier = snapshot(self._method, "online-timed")
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


def snapshot(method: Method, purpose: str) -> dict[str, Any]:
    """A copy of all that a method holds; Unsupported, naming the ``purpose``, if there is none."""
    try:
        return copy.deepcopy(vars(method))
    except (TypeError, RuntimeError) as error:
        raise Unsupported(
            f"{purpose} needs a method whose state can be copied; {type(method).__name__} "
            f"holds something that cannot: {error}"
        ) from error


def restore(method: Method, state: dict[str, Any]) -> None:
    """Give a method a copy of an earlier `snapshot` in the place of all that it holds."""
    _put(method, copy.deepcopy(state))


def _put(method: Method, state: dict[str, Any]) -> None:
    vars(method).clear()
    vars(method).update(state)
