"""Count what one method does on its device, by its own code on tensors that may be fake."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from bench import defaults
from bench.contracts.data import Batch, DomainView, Inputs
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import ModelledDevice, load_device
from bench.costs.pricing import Cost, MemoryFootprint
from bench.costs.step_tracer import StepTrace
from bench.costs.tracker import CostTracker, Key, ModelledCosts
from bench.errors import BenchError, Unsupported
from bench.estimate.fake_tensors import reads_values
from bench.run.determinism import seed_everything
from bench.run.window import Window

DEPENDS = "its work depends on the data; a run counts it"


@dataclass(frozen=True)
class Task:
    """What a method is counted on.

    Attributes
    ----------
    inputs : gives the inputs of n samples
    batch : samples in a batch
    samples : adaptation samples of a domain, a multiple of ``batch``
    classes : of the labels, which come in turn
    """

    inputs: Callable[[int], Inputs]
    batch: int
    samples: int
    classes: int

    def view(self, name: str, samples: int, labelled: bool = True) -> DomainView:
        """A domain of so many samples that is passed over once."""
        x = self.inputs(samples)
        y = torch.arange(samples) % self.classes if labelled else None
        generator = torch.Generator().manual_seed(0)
        return DomainView(name, x, y, self.batch, generator, single_pass=True)


@dataclass
class Counted:
    """What a method does on its device.

    Attributes
    ----------
    steps : by kind, how often such a step is done for one adaptation step, and its count when the
        optimizer has its state; empty for a method without steps
    sections : kind and count of the further work for one domain
    holdings : what was held while the method adapted and predicted
    """

    steps: dict[str, tuple[float, StepTrace]] = field(default_factory=dict)
    sections: list[tuple[str, StepTrace]] = field(default_factory=list)
    holdings: set[MemoryFootprint] = field(default_factory=set)

    @property
    def peak_bytes(self) -> float:
        """Largest live memory, the runtime's share left out."""
        return max((holding.live_bytes for holding in self.holdings), default=0.0)


def count(
    method_class: type[Method], make_model: Callable[[], FoundationModel], task: Task
) -> Counted:
    """Prepare a method with its default settings, adapt it and predict one batch.

    The method meets two domains. The first is one batch: it tells which steps go together and
    leaves the optimizer its state. The second has ``task.samples`` samples and a window that
    closes after two adaptation steps: counted are the last of them and all that is done for a
    domain besides. The source is one batch, or ``task.samples`` where a replay memory is filled
    from it. Raises Unsupported with the reason where a method cannot be counted so.
    """
    if method_class.makes_own_model:
        raise Unsupported("it makes its own small model in a long offline stage; a run counts it")
    if method_class.uses_device_clock:
        raise Unsupported("its course depends on the device's clock; a run counts it")
    seed_everything(0)
    filled = task.samples if "replay_memory" in method_class.needs else task.batch
    source = task.view("source", filled)
    with _explained("its offline stage reads values of the data; a run counts it"):
        method = method_class(method_class.Config())
        method.prepare(make_model(), source)
    if "source_data" not in method.needs:
        source.close("the source is not on the device")
    ledger = _Ledger()
    tracker = CostTracker([], method.stored)
    tracker.devices.append(ledger)
    labelled = "target_labels" in method.needs
    with _explained(DEPENDS):
        first = _adapted(method, tracker, task.view("first", task.batch, labelled), None)
        main = _main_kind(first, ledger)
        ledger.seen.clear()
        second = _adapted(method, tracker, task.view("second", task.samples, labelled), main)
        x = task.inputs(task.batch)
        with torch.no_grad():
            method.predict(x)  # what is made once is made now
            tracker.inference(task.batch, partial(method.predict, x))
        tracker.finish()
    return Counted(
        {kind: (n / first.begun[main], ledger.last[kind]) for kind, n in first.begun.items()},
        [(kind, trace) for kind, trace in ledger.seen if kind in second.sections],
        ledger.holdings,
    )


def _adapted(method: Method, tracker: CostTracker, view: DomainView, last: str | None) -> _Window:
    with _Window(tracker, method, last) as window:
        method.adapt(view, window)
    view.close("the domain is over: keep samples of it as replay memory, not the view")
    return window


def _main_kind(window: _Window, ledger: _Ledger) -> str:
    """The kind of the steps that adapt: "adapt", else the one with most arithmetic; "" if none."""
    if "adapt" in window.begun:
        return "adapt"
    return max(window.begun, key=lambda k: window.begun[k] * ledger.last[k].flops, default="")


@contextmanager
def _explained(reason: str) -> Iterator[None]:
    """Turn what goes wrong without values into Unsupported with ``reason``."""
    try:
        yield
    except BenchError as error:
        raise Unsupported(str(error)) from error
    except Exception as error:
        if reads_values(error):
            raise Unsupported(reason) from error
        said = (str(error).splitlines() or [""])[0][:150]
        raise Unsupported(
            f"it does not run on tensors without values ({type(error).__name__}: {said}); "
            "a run counts it"
        ) from error


class _Window(Window):
    """A window without end that counts steps and closes after the second one of a kind.

    Attributes
    ----------
    begun : steps by kind
    sections : kinds of work that were sections
    """

    def __init__(self, tracker: CostTracker, method: Method, last: str | None) -> None:
        super().__init__(tracker, math.inf, None, method.model.module)
        self.begun: Counter[str] = Counter()
        self.sections: set[str] = set()
        self._last = last
        self._kind = ""

    def __enter__(self) -> _Window:
        return self

    def steps(
        self, batches: Iterable[Batch], kind: str = "adapt", data_dependent: bool = False
    ) -> Iterator[Batch]:
        """As in `Window`; Unsupported if the work depends on the data."""
        if data_dependent:
            raise Unsupported(DEPENDS)
        with closing(super().steps(batches, kind)) as steps:  # type: ignore[type-var]
            for batch in steps:
                self.begun[kind] += 1
                yield batch
                self._close_after(kind)

    def begin_step(self, x: Inputs, kind: str = "adapt") -> bool:
        """As in `Window`."""
        self._kind = kind
        begun = super().begin_step(x, kind)
        self.begun[kind] += begun
        return begun

    def end_step(self) -> None:
        """As in `Window`."""
        super().end_step()
        self._close_after(self._kind)

    def _close_after(self, kind: str) -> None:
        # The second one too: the first may have made an optimizer's state.
        self.closed |= kind == self._last and self.begun[kind] > 1

    @contextmanager
    def section(self, kind: str, shape: Hashable = None) -> Iterator[None]:
        """As in `Window`."""
        self.sections.add(kind)
        with super().section(kind, shape):
            yield


class _Ledger(ModelledCosts):
    """A bill of a device on which all fits, that keeps every count.

    Attributes
    ----------
    seen : kind and count in the order of the work
    last : the latest count of each kind
    holdings : what was held, step by step and at last
    """

    def __init__(self) -> None:
        device = load_device(defaults.DEVICE)  # its numbers do not matter: nothing is priced here
        assert isinstance(device, ModelledDevice)
        super().__init__(device)
        self.seen: list[tuple[str, StepTrace]] = []
        self.last: dict[str, StepTrace] = {}
        self.holdings: set[MemoryFootprint] = set()

    def price(self, key: Key, trace: StepTrace) -> Cost:
        kind = key[0].removesuffix(" (cut short)")
        self.seen.append((kind, trace))
        self.last[kind] = trace
        return super().price(key, trace)

    def hold(self, holding: MemoryFootprint) -> float:
        self.holdings.add(holding)
        return super().hold(holding)

    @property
    def memory_limit(self) -> float:
        return math.inf
