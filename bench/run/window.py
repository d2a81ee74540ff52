"""The retraining window: the device seconds in which a method may adapt to one domain."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.contracts.data import Batch, Batches, Inputs
from bench.costs.tracker import CostTracker
from bench.errors import BenchError
from bench.snapshots.weight_sample import Sample, WeightSampler, module_tensors

Logger = Callable[[str, float, int], None]
"""Receives (name, value, step)."""

UNLIMITED = 1e9
"""Seconds of a window that is not meant to close."""


class Window:
    """Charges each step to the device's clock and closes when the time is spent.

    In a method::

        for batch in window.steps(domain.batches(epochs=3)):
            loss = ...
            window.log(loss=loss)

    or, for one batch::

        with window.step(batch, kind="adapt") as fits:
            if fits:
                loss = ...

    A step whose cost is known is not begun if it does not fit. Only some steps are traced (see
    `bench.costs.modelled.TracePolicy`); the others are charged what the last trace came to. A
    window is a context manager, opened and closed by the protocol.

    Parameters
    ----------
    tracker : the run's tracker
    budget_s : device seconds in this window
    logger : receives what the method logs, or None
    model : gives the module whose weights may change inside steps and sections alone, or None

    Attributes
    ----------
    closed : whether no further step begins; set to True it ends the window with the open step
    """

    def __init__(
        self,
        tracker: CostTracker,
        budget_s: float,
        logger: Logger | None = None,
        model: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.closed = False
        self._budget_s = budget_s
        self._until_s = budget_s
        self._tracker = tracker
        self._logger = logger
        self._model = model
        self._charged = False
        self._sampler = WeightSampler()
        self._weights = self._sample_weights()
        self._logged: list[tuple[str, Tensor | float, int]] = []
        tracker.open_window()

    def steps(
        self, batches: Iterable[Batch], kind: str = "adapt", data_dependent: bool = False
    ) -> Iterator[Batch]:
        """Yield batches until they end or the window closes; the loop's body is charged.

        ``kind`` names steps that do the same work. With ``data_dependent`` every step is traced
        anew, for methods whose work depends on what they see (skipped samples, say), save for
        those that are known by what they `declare`.
        """
        # Nothing of the method runs while a view makes the next batch: no look at the weights.
        looks, begun = type(batches) is not Batches, False
        for batch in batches:
            if not self._begin(batch, kind, data_dependent, looks or not begun):
                break
            begun = True
            try:
                yield batch
            except GeneratorExit:
                self._end(cut_short=True)
                raise
            self._end(looks=looks)
        if begun:
            self._weights = self._sample_weights()

    @contextmanager
    def step(
        self, batch: Batch, kind: str = "adapt", data_dependent: bool = False
    ) -> Iterator[bool]:
        """One step over ``batch``, as in `steps`: gives whether it fits, and charges it if it does.

        Where it gives False the window is closed, or its slice is over (see `time_slice`), and
        nothing may be computed inside.
        """
        if not self._begin(batch, kind, data_dependent):
            yield False
            return
        try:
            yield True
        except BaseException:
            with suppress(BenchError):  # nothing may hide the exception that passes
                self._end(cut_short=True)
            raise
        self._end()

    def declare(self, size: int) -> None:
        """Say on how many samples the rest of a ``data_dependent`` step works, before it does.

        Its work from here to the next declaration, or the end, is then the same for every size
        above 1, on so many more samples: operations, bytes and memory are linear in the sizes. A
        few such steps are counted, and the others follow from them. Steps that declare nothing are
        counted each. Reading a size should run no operator (``tensor.tolist()`` does not).
        """
        self._tracker.declare(size)

    @property
    def budget_s(self) -> float:
        """Device seconds in this window."""
        return self._budget_s

    @property
    def spent_s(self) -> float:
        """Device seconds charged in this window so far, without an open step.

        A method that reads them declares ``uses_device_clock = True``, so that each device has a
        run of its own. Raises BenchError where devices that share this run differ.
        """
        spent = {device.window.time_s for device in self._tracker.devices}
        if len(spent) > 1:
            devices = ", ".join(device.name for device in self._tracker.devices)
            raise BenchError(
                f"the window's clock differs between {devices}, which share this run: a method "
                "that reads it declares uses_device_clock = True"
            )
        return spent.pop()

    @contextmanager
    def time_slice(self, seconds: float) -> Iterator[None]:
        """Admit steps inside only while they end within ``seconds`` of the device from now.

        A step that does not fit the slice ends its loop and leaves the window open. A step of
        unknown cost begins if any of the slice is left, sections are done in any case, and both
        may end past it. Slices may be nested. It reads the clock: see `spent_s`. Raises
        BenchError if ``seconds`` is negative or not a number.
        """
        if not seconds >= 0:
            raise BenchError(f"a part of {seconds} s of a window: give 0 or more seconds")
        outer = self._until_s
        self._until_s = min(outer, self.spent_s + seconds)
        try:
            yield
        finally:
            self._until_s = outer

    @contextmanager
    def section(self, kind: str, shape: Hashable = None) -> Iterator[None]:
        """Charge work outside the batch loop (building a proxy, estimating importance).

        It is done and charged also where it ends past the window, and counted each time. A section
        that alone is longer than the window makes the method unsupported there.
        """
        self._require_no_free_work()
        self._tracker.begin((kind, shape), recount=True)
        try:
            yield
        finally:
            self._end()

    def same_work(self, x: Inputs) -> AbstractContextManager[None]:
        """One of many passes inside of a section or step; ``x``: the batch that it is over.

        Passes over batches of one shape must run the same operators on tensors of the same sizes:
        in each section two of a shape are counted, and the others are charged as the second.
        BenchError where no section or step is open.
        """
        if not self._tracker.is_open:
            raise BenchError(
                "same_work outside a step or section: what it does would be charged to nobody"
            )
        return self._tracker.repeated(_shape(x))

    def log(self, **scalars: Tensor | float) -> None:
        """Log scalars of the current step; costs nothing where nobody listens."""
        if self._logger is not None:
            for name, value in scalars.items():
                kept = value.detach() if isinstance(value, Tensor) else value
                self._logged.append((name, kept, self._tracker.counts.total()))

    def __enter__(self) -> Window:
        self._hook = register_optimizer_step_pre_hook(self._refuse_outside_step)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._hook.remove()
        if kind is None:
            self.close()
        else:  # nothing may hide the exception that passes
            self.closed = True
            self._tracker.close()

    def close(self) -> None:
        """End the window; a step left open is charged."""
        self.closed = True
        try:
            self._end(cut_short=True)
            self._require_no_free_work()
        finally:
            self._tracker.close()

    def _begin(self, batch: Batch, kind: str, data_dependent: bool, looks: bool = True) -> bool:
        """Begin a step if it fits; ``looks``: whether the method ran since the last one."""
        if looks:
            self._require_no_free_work()
        if self.closed:
            return False
        key = (kind, _shape(batch.x))
        if not self._tracker.admit(key, self._until_s):
            self.closed = self._until_s >= self._budget_s
            return False
        self._tracker.begin(key, recount=data_dependent, batch=batch)
        return True

    def _end(self, cut_short: bool = False, looks: bool = True) -> None:
        open_step = self._tracker.is_open
        try:
            self._tracker.end(self.budget_s, cut_short)
        finally:
            self._charged |= open_step
            if open_step and looks:
                self._weights = self._sample_weights()
            # After the step, so that reading the values is not charged.
            logged, self._logged = self._logged, []
            for name, value, step in logged:
                assert self._logger is not None
                self._logger(name, float(value), step)

    def _sample_weights(self) -> list[Sample]:
        """What tells whether the weights changed, in place, by assignment or another way."""
        if self._model is None:
            return []
        return self._sampler.sample(module_tensors(self._model()))

    def _require_no_free_work(self) -> None:
        now, before = self._sample_weights(), self._weights
        if now == before:
            return
        replaced = [each[0] for each in now] != [each[0] for each in before]
        if replaced and set(before) <= set(now):
            return  # layers were added, as adapters; what trains them is seen
        if replaced and (self._charged or _values(now) == _values(before)):
            return  # a copy as it was, or a model that was trained in steps beside this one
        if replaced or any(a[2:] != b[2:] for a, b in zip(before, now, strict=True)):
            raise BenchError(_OUTSIDE)

    def _refuse_outside_step(self, *_: Any) -> None:
        """Called before every optimizer's step while the window is open."""
        if not self._tracker.is_open:
            raise BenchError(_OUTSIDE)


_OUTSIDE = (
    "the model's weights changed outside a step: train inside "
    "'for batch in window.steps(...)' or 'with window.section(...)', which are charged"
)


def _values(samples: Sequence[Sample]) -> list[bytes]:
    return [values for *_, values in samples]


def _shape(x: Any) -> Hashable:
    if isinstance(x, dict):
        return tuple((k, tuple(v.shape)) for k, v in x.items())
    return tuple(x.shape)
