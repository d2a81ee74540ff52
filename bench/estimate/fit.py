"""Whether a model, a batch and a method fit a device: estimates from shapes, without weights.

``bench fit`` prints them. The method's own code runs on tensors without values
(`bench.estimate.fake_tensors`); its operators are counted as in a run
(`bench.estimate.step_costs`) and priced for every device. What reads values is not guessed at: the
method is ``unavailable``, with the reason.

What is estimated, all of it modelled, with the method's default settings and random weights:

* memory: the largest live memory while the method adapts to two domains and predicts one batch
  (on a calibrated device what the process takes for it), and the runtime's. What grows with every
  domain is counted as it stands after two;
* a step: one adaptation step as it is when the optimizer has its state, with the other steps
  that a batch takes in one pass over a domain (a pseudo-label, say);
* a domain: the further work that a domain takes once (fusing weights, estimating importances);
* steps in a window: as many as fit beside the work for one domain. A run lets that work end past
  the window, and may so take a few steps more.
"""

from __future__ import annotations

import math

import pydantic

from bench import registry as registry
from bench.costs.device_profile import ModelledDevice, load_device
from bench.errors import BenchError

SHAPES: dict[str, tuple[int, ...]] = {
    "bert-base": (128,),
    "digits-apps-vit": (1, 32, 32),
    "digits-vit": (1, 32, 32),
    "vit_base_patch16_224": (3, 224, 224),
}
"""Shape of one sample for the models here; another model declares ``input_shape`` in its class."""


class Request(pydantic.BaseModel, extra="forbid", frozen=True):
    """What to estimate; travels to the process that counts as JSON.

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
    """Seconds and joules on one device: of a step (None: there are none), and of a domain besides;
    bytes that must fit it beside the runtime. Joules are None where the device's are unknown.

    See the module's docstring for what they hold.
    """

    memory_bytes: float
    step_s: float | None
    step_j: float | None
    domain_s: float
    domain_j: float | None

    def steps_in(self, window_s: float) -> int | None:
        """Steps that fit a window of so many seconds beside the work for one domain."""
        if self.step_s is None:
            return None
        left = max(window_s - self.domain_s, 0.0)
        return math.floor(
            left / self.step_s * (1 + 1e-9)
        )  # sums of rounded costs, as in `CostTracker`


class Estimate(pydantic.BaseModel, extra="forbid", frozen=True):
    """A method's costs by device, or why there are none.

    Attributes
    ----------
    unavailable : the reason; empty if the method was counted
    prices : by device
    """

    method: str
    unavailable: str = ""
    prices: dict[str, Price] = {}


def default_shape(model: str) -> tuple[int, ...]:
    """The shape of a sample of a model, by its name.

    Raises BenchError if the model is unknown or declares none.
    """
    declared = registry.entry("model", model).facts.get("input_shape", SHAPES.get(model))
    if declared is None:
        raise BenchError(
            f"model {model!r} declares no input_shape: give --shape, as 3,224,224 or 128 for texts"
        )
    return tuple(declared)


def default_methods(model: str) -> list[str]:
    """The registered methods for a model's task."""
    task = registry.entry("model", model).facts.get("task", "classification")
    return [
        name
        for name, entry in registry.entries("method").items()
        if task in entry.facts.get("tasks", ("classification",))
    ]


def modelled(name: str) -> ModelledDevice:
    """A device by name or path; BenchError if its costs are measured instead of modelled."""
    device = load_device(name)
    if not isinstance(device, ModelledDevice):
        raise BenchError(
            f"--device {name}: its costs are measured where a run is, not modelled; name a "
            "modelled device, as xavier-nx ('bench device list')"
        )
    return device
