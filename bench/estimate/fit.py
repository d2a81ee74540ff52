"""Whether a model, a batch and a method fit a device: estimates from shapes, without weights.

``bench fit`` prints them. The method's own code runs on tensors without values
(`bench.estimate.fake_tensors`); its operators are counted as in a run
(`bench.estimate.step_costs`) and priced for every device. Where a method reads values, to select
samples or to decide what it does, every sample is taken to be selected, and every condition to
hold. What cannot be counted so is ``unavailable``, with the reason.

All estimates are modelled, with the method's default settings and random weights:

* memory: peak live memory while the method adapts to two domains and predicts one batch (on a
  calibrated device the resident memory), plus the runtime's. Memory that grows with every domain
  is counted after two;
* step: a steady-state adaptation step (optimizer state allocated) plus auxiliary passes per
  batch, such as pseudo-labelling;
* domain: work done once per domain (fusing weights, estimating importances);
* steps in a window: as many as fit beside the work for one domain. A run lets that work end past
  the window, and so may take a few steps more.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import pydantic

from bench import defaults, registry
from bench.costs.device_profile import ModelledDevice, load_device
from bench.errors import BenchError
from bench.io.subprocess_call import ProcessEnded, call_each


class Request(pydantic.BaseModel, extra="forbid", frozen=True):
    """What to estimate; sent to the worker process as JSON.

    Attributes
    ----------
    model, methods, devices : names; a device may be a profile's path
    shape : of one sample
    classes : of the task
    batch : samples in a batch
    samples : adaptation samples of a domain, a multiple of ``batch``
    plugins : paths of Python files to load first
    """

    model: str
    methods: tuple[str, ...]
    devices: tuple[str, ...]
    shape: tuple[int, ...]
    classes: int = pydantic.Field(10, ge=2)
    batch: int = pydantic.Field(ge=1)
    samples: int = pydantic.Field(ge=1)
    plugins: tuple[str, ...] = ()


class Price(pydantic.BaseModel, extra="forbid", frozen=True):
    """Costs on one device, see above; None without steps, and joules where energy is unknown."""

    memory_bytes: float
    step_s: float | None
    step_j: float | None
    domain_s: float
    domain_j: float | None

    def steps_in(self, window_s: float) -> int | None:
        """Steps that fit a window of ``window_s`` seconds beside the work for one domain."""
        if self.step_s is None:
            return None
        left = max(window_s - self.domain_s, 0.0)
        return math.floor(left / self.step_s * (1 + 1e-9))  # rounded costs, as in `CostTracker`


class Estimate(pydantic.BaseModel, extra="forbid", frozen=True):
    """A method's prices by device, or the reason why they are ``unavailable``.

    ``assumes``: the method reads values of the data, which are not known here.
    """

    method: str
    assumes: bool = False
    unavailable: str = ""
    prices: dict[str, Price] = {}


def default_shape(model: str) -> tuple[int, ...]:
    """The shape of a model's sample; BenchError if the model is unknown or declares none."""
    declared = registry.entry("model", model).facts.get("input_shape")
    if declared is None:
        raise BenchError(
            f"model {model!r} declares no input_shape: give --shape, as 3,224,224 or 128 for texts"
        )
    return tuple(declared)


def default_methods(model: str) -> list[str]:
    """The registered methods for a model's task."""
    task = registry.entry("model", model).facts.get("task", "classification")
    known = registry.entries("method").items()
    return [name for name, e in known if task in e.facts.get("tasks", ("classification",))]


def modelled(name: str) -> ModelledDevice:
    """A device by name or path; BenchError if its costs are measured instead of modelled."""
    device = load_device(name)
    if not isinstance(device, ModelledDevice):
        raise BenchError(
            f"--device {name}: its costs are measured where a run is, not modelled; name a "
            f"modelled device, as {defaults.DEVICE} ('bench device list')"
        )
    return device


def estimates(request: Request) -> Iterator[Estimate]:
    """The estimates of a request in the order of its methods, each when it is known.

    They are made in `bench.estimate.worker`, a process that is started again if a method crashes
    it: torch ends the process where an exception reaches certain C++ code.
    Raises BenchError if the model cannot be built or the counting process does not start.
    """
    left = list(request.methods)
    while left:
        remaining = {**request.model_dump(mode="json"), "methods": left}
        answers = call_each(
            "bench.estimate.worker:serve", remaining, environment={"OMP_NUM_THREADS": "1"}
        )
        try:
            next(answers)  # the model is built
        except ProcessEnded as ended:
            raise BenchError(
                "fit: the counting process ended before it began: "
                f"{ended.last_line or 'it said nothing'}; run 'bench doctor'"
            ) from ended
        try:
            for answer in answers:
                left.pop(0)
                yield Estimate.model_validate(answer)
        except ProcessEnded as ended:
            yield Estimate(method=left.pop(0), unavailable=_reason(ended.code))


def _reason(code: int) -> str:
    if code == -signal.SIGALRM:
        return "counting it took too long; a run counts it"
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"counting it ended the process ({how}); a run counts it"
