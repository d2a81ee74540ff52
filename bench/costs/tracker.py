"""What a run is charged on its devices: the interface that windows and protocols use.

A run trains once for several devices as long as they would make the same decisions. Devices in
whose window the next step does not fit, while it fits others', are *deferred* to a run of their
own; devices whose memory or window does not suffice are *dropped* with the reason.

`bench.costs.factory.make_tracker` chooses between `bench.costs.modelled` and
`bench.costs.measured`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.contracts.data import Batch
from bench.costs.device_profile import ModelError
from bench.costs.pricing import Cost, MemoryFootprint
from bench.errors import BenchError, Unsupported
from bench.io.fetch_clock import wall_clock

if TYPE_CHECKING:
    from bench.costs.step_tracer import StepTrace

Key = tuple[str, Hashable]
"""A step's kind and the shape of its batch."""


@dataclass(frozen=True)
class ChargedStep:
    """A step or section that has ended: seconds by device; no trace where it was not traced."""

    kind: str
    seconds: Mapping[str, float]
    trace: StepTrace | None = None


class StepObserver:
    """Receives the events of a run; what it does in them is neither traced nor charged."""

    def on_window(self) -> None:
        """A window has opened."""

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        """A step over a batch fits the window and is about to begin."""

    def on_section(self, kind: str) -> None:
        """A section is about to begin."""

    def on_step(self, step: ChargedStep) -> None:
        """A step or section has ended and was charged."""

    def on_inference(self, trace: StepTrace) -> None:
        """A prediction was traced, as the price of inference."""

    def on_memory(self, footprint: MemoryFootprint) -> None:
        """A modelled device must hold so much at once."""


@dataclass
class WindowCosts:
    """A running total on one device: seconds, joules (None if unknown) and steps."""

    time_s: float = 0.0
    energy_j: float | None = 0.0
    steps: int = 0


class DeviceCosts(ABC):
    """What one device is charged for adaptation, inference and memory in one run.

    Attributes
    ----------
    kind, how : whether costs are modelled or measured, and by what
    window : the total since the current window opened
    time_by_kind : seconds of the whole stream by kind of step or section
    inference, inference_samples : cost of predicting one batch of so many samples
    peak_bytes : largest memory, without the runtime's
    resident_bytes, resident_note : what the process takes at most, without the runtime's, where
        that is known apart from ``peak_bytes``; and what is to be said of it
    runtime_bytes, runtime_unavailable : bytes that the runtime takes before the first tensor; or
        None, and why they are not known apart
    energy_unavailable, inference_energy_unavailable : why adaptation and predictions have no
        energy; empty if they have
    memory_unavailable : why the peak is not known; empty if it is
    profile_error : how far modelled costs are off, where the device's profile states it
    process_bytes : all that the driver of a GPU counts for the process; None where it is not known
    """

    kind: Literal["modelled", "measured"]
    how: str
    resident_note = ""
    runtime_bytes: float | None = None
    runtime_unavailable = ""
    energy_unavailable = ""
    inference_energy_unavailable = ""
    memory_unavailable = ""
    process_bytes: float | None = None
    profile_error: ModelError | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.window = WindowCosts()
        self.time_by_kind: defaultdict[str, float] = defaultdict(float)
        self.inference: Cost | None = None
        self.inference_samples = 0
        self.peak_bytes = 0.0
        self.resident_bytes: float | None = None

    @abstractmethod
    def expected_s(self, key: Key) -> float | None:
        """Seconds that a step of this key will take, if one was charged before."""

    def open_window(self) -> None:
        """Start a new total."""
        self.window = WindowCosts()


class CostTracker(ABC):
    """Charges each step of a run to every device of the run.

    Attributes
    ----------
    devices : those that are still in the run
    deferred : names of those that need a run of their own
    dropped : why others cannot do the run, by name
    counts : steps and sections by kind
    flops, bytes, launches : traced operations, bytes moved and kernels; None without traces
    tracing_s : wall seconds that counting took
    uncounted : what the counts leave out, so that costs are lower bounds; empty if nothing is known
    source_bytes : of the source data that are kept
    repeats_exactly : whether a step on a GPU gave equal bits twice; None on the CPU
    """

    devices: Sequence[DeviceCosts]
    flops: float | None = None
    bytes: float | None = None
    launches: float | None = None

    def __init__(
        self, devices: Sequence[DeviceCosts], observers: Sequence[StepObserver] = ()
    ) -> None:
        self.devices = devices
        self.deferred: list[str] = []
        self.dropped: dict[str, BenchError] = {}
        self.counts: Counter[str] = Counter()
        self.tracing_s = 0.0
        self.uncounted: set[str] = set()
        self.source_bytes = 0
        self.repeats_exactly: bool | None = None
        self._observers = observers
        self._open: Key | None = None
        self._over_batch = False
        self._started = 0.0

    def start(self) -> None:
        """Deployment begins: offline work is not on the device."""

    def mark_unavailable(self, energy: str = "", memory: str = "") -> None:
        """Why energy or peak memory cannot be measured in this run; modelled ones are known."""

    def open_window(self) -> None:
        """Start every device's window at zero and bring memory peaks up to date."""
        for device in self.devices:
            device.open_window()
        for observer in self._observers:
            observer.on_window()

    def admit(self, key: Key, budget_s: float) -> bool:
        """Whether one more step of ``key`` fits the window; devices that differ are deferred."""

        def fits(device: DeviceCosts) -> bool:
            expected, spent = device.expected_s(key), device.window.time_s
            if expected is None:
                return spent < budget_s
            # The tolerance is for sums of rounded costs: 600 steps of 0.1 s fit 60 s.
            return spent + expected <= budget_s * (1 + 1e-9)

        fitting = [device for device in self.devices if fits(device)]
        if fitting:
            self.deferred += [d.name for d in self.devices if d not in fitting]
            self.devices = fitting
        return bool(fitting)

    @property
    def is_open(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._open is not None

    def begin(self, key: Key, recount: bool = False, batch: Batch | None = None) -> None:
        """A step over ``batch``, else a section, begins; ``recount``: trace it in any case."""
        if self._open is not None:
            raise BenchError(f"step {key[0]!r} begins inside step {self._open[0]!r}: do not nest")
        for observer in self._observers:
            if batch is None:
                observer.on_section(key[0])
            else:
                observer.on_batch(key[0], batch, recount)
        self._open, self._over_batch = key, batch is not None
        self._begin(key, recount)
        self._started = wall_clock()

    def declare(self, size: int) -> None:
        """The work of the open step, from here on, grows linearly with ``size``."""

    def repeated(self, key: Hashable) -> AbstractContextManager[None]:
        """Work of the open step that is the same each time with this key."""
        return nullcontext()

    def end(self, budget_s: float = float("inf"), cut_short: bool = False) -> None:
        """Charge the step that ended; devices whose window is shorter than it are dropped.

        One that was ``cut_short`` (by ``break``) sets no price for others: if it was traced it is
        charged what it did, else a whole step.
        """
        if self._open is None:
            return
        self._wait()
        wall_s = wall_clock() - self._started
        key, self._open = self._open, None
        self.counts[key[0]] += 1
        step = self._charge(key, wall_s, budget_s, cut_short)
        self._require_devices()
        for device in self.devices:
            device.time_by_kind[step.kind] += step.seconds[device.name]
        for observer in self._observers:
            observer.on_step(step)

    @abstractmethod
    def inference(self, samples: int, predict: Callable[[], Any]) -> Any:
        """What ``predict`` of so many samples gives, traced or timed as the price of inference."""

    def add_double_buffer(self, size: int) -> None:
        """A copy of ``size`` bytes serves predictions meanwhile; the largest one counts."""

    def close(self) -> None:
        """The window ends: stop tracing and the energy meter, whatever happened inside a step."""
        self._open = None

    @abstractmethod
    def finish(self) -> None:
        """The run ends: last look at memory."""

    # -----------------------------------------------------------------------

    def _begin(self, key: Key, recount: bool) -> None:
        """Prepare to charge a step, before its time starts."""

    def _wait(self) -> None:
        """Wait until the step's work is done, where it may go on after its last call."""

    @abstractmethod
    def _charge(self, key: Key, wall_s: float, budget_s: float, cut_short: bool) -> ChargedStep:
        """Charge a step that took ``wall_s`` here to all devices, see `end`."""

    def _require_window(
        self, device: DeviceCosts, kind: str, seconds: float, budget_s: float
    ) -> None:
        """Drop a device whose whole window is shorter than one step."""
        if seconds > budget_s:
            reason = (
                f"one {kind} step takes {seconds:.3g} s on {device.name}, longer than the "
                f"whole window of {budget_s:.3g} s; lengthen window_s or use a smaller batch"
            )
            self._drop(device, Unsupported(reason))

    def _drop(self, device: DeviceCosts, reason: BenchError) -> None:
        self.dropped[device.name] = reason
        self.devices = [d for d in self.devices if d is not device]

    def _require_devices(self) -> None:
        if not self.devices:
            raise next(reversed(self.dropped.values()))
