"""Checks of what a method does with its data, its state and its random draws."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.accelerator.determinism import seed_everything
from bench.conformance.base import CheckFailed, check
from bench.conformance.method_fixture import (
    BATCH,
    OTHER_MODEL,
    MethodFixture,
    WatchedView,
    unlimited_window,
)
from bench.contracts.data import Batch, take
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.contracts.stream import Domain
from bench.costs.tracker import StepObserver
from bench.errors import LabelsHidden


@check
def labels(subject: MethodFixture) -> str:
    """Reads no target labels, or, where it declares them, those of the adaptation samples alone."""
    method = subject.prepare()
    views = [subject.view(0), subject.view(1)]
    reads = 0
    for number, view in enumerate(views):
        with contextlib.suppress(LabelsHidden):  # counted below, also where a method catches it
            subject.adapt(method, view)
        reads += view.label_reads
        _require_out_of_reach(subject.setting.domains[number], view, method)
    if subject.labelled and not reads:
        raise CheckFailed("declares needs = ('target_labels',) and reads none: drop it")
    if reads and not subject.labelled:
        raise CheckFailed(
            f"asks for target labels (y) {reads} times: declare needs = ('target_labels',), or "
            "adapt without them"
        )
    return f"adapted on 2 {'labelled' if subject.labelled else 'unlabelled'} domains"


def _require_out_of_reach(domain: Domain, view: WatchedView, method: Method) -> None:
    """The tensors of labels that a domain holds are not to be found from what a method has."""
    hidden = {split.y.untyped_storage().data_ptr() for split in (domain.adaptation, domain.test)}
    for thing in _reachable([view, view.handed, method]):
        if isinstance(thing, Tensor) and thing.untyped_storage().data_ptr() in hidden:
            raise CheckFailed("holds the tensor of a domain's labels: take them from batches alone")


def _reachable(roots: list[Any]) -> Iterator[Any]:
    opaque = (type, ModuleType, FunctionType, FrameType)
    seen: dict[int, Any] = {}
    while roots:
        thing = roots.pop()
        if id(thing) not in seen and not isinstance(thing, opaque):
            seen[id(thing)] = thing
            yield thing
            roots += gc.get_referents(thing)


@check
def same_seed(subject: MethodFixture) -> str:
    """Two runs from one seed end in the same weights and predictions, bit for bit."""
    ends = []
    for _ in range(2):
        method = subject.prepare()
        subject.adapt(method, subject.view(0))
        ends.append(_end(subject, method))
    different = first_difference(*ends)
    if different is not None:
        raise CheckFailed(
            f"{different} differs between two runs from one seed: draw from a torch.Generator "
            "seeded in prepare, or from torch's, numpy's or Python's global generator"
        )
    return "ran 2 domains twice"


def _end(subject: MethodFixture, method: Method) -> dict[str, Tensor]:
    """The weights and predictions of a method after another domain."""
    subject.adapt(method, subject.view(1))
    return {**weights(method), "the predictions": subject.predict(method, subject.inputs(1))}


@check
def state(subject: MethodFixture) -> str:
    """Saved after a domain and loaded into a method prepared alike, it goes on bit for bit."""
    straight = subject.prepare()
    subject.adapt(straight, subject.view(0))
    stream = io.BytesIO()
    torch.save(straight.state(), stream)
    resumed = subject.prepare()
    stream.seek(0)
    try:
        kept = torch.load(stream, weights_only=True)
    except Exception as error:
        why = str(error).splitlines()[0]
        raise CheckFailed(
            f"state() does not load with weights_only=True ({why}): give tensors, plain values "
            "and lists or dicts of them"
        ) from error
    resumed.load_state(kept)
    ends = []
    for method in (straight, resumed):
        seed_everything(1)
        ends.append(_end(subject, method))
    different = first_difference(*ends)
    if different is not None:
        raise CheckFailed(
            f"{different} differs after load_state and another domain: something that adapt "
            "changes is not in state()"
        )
    return f"saved {stream.getbuffer().nbytes / 1e3:.0f} kB, loaded them and went on"


@check
def batch_sizes(subject: MethodFixture) -> str:
    """Works with batches of one sample, and with a last batch of one sample."""
    for batch_size, samples, source in ((1, 3, 20), (BATCH, 2 * BATCH + 1, 60)):
        method = subject.prepare(batch_size, source)
        least = method.model.least_batch  # 2 with BatchNorm: one sample has no statistics
        batch_size = max(batch_size, least)
        subject.adapt(method, subject.view(samples=samples, batch_size=batch_size))
        when = f"after {samples} samples in batches of {batch_size}"
        subject.require_finite(method, subject.inputs(samples=5), when)
        subject.require_finite(method, subject.inputs(samples=1), when)
    few = "one by one" if least == 1 else "at once"
    return f"adapted on 3 samples {few}, and on {2 * BATCH + 1} in batches of {BATCH}"


@check
def one_class(subject: MethodFixture) -> str:
    """Works on a domain whose samples are all of one class."""
    method = subject.prepare()
    subject.adapt(method, subject.view(of_class=3))
    subject.require_finite(method, subject.inputs(), "after a domain of one class")
    return "adapted on 40 samples of one class"


@check
def predict(subject: MethodFixture) -> str:
    """Predicting changes nothing: no weights, nothing kept, no random state."""
    method = subject.prepare()
    subject.adapt(method, subject.view())
    x = subject.inputs()
    before, random_before = method.state(), torch.get_rng_state()
    held = weights(method)
    first = subject.predict(method, x)
    for size in (7, 1):
        subject.predict(method, take(x, torch.arange(size)))
    second = subject.predict(method, x)
    changed = first_difference(held, weights(method)) or first_difference(before, method.state())
    if changed is not None:
        raise CheckFailed(f"predict changes {changed}: change it in adapt, or keep it local")
    if not same(random_before, torch.get_rng_state()):
        raise CheckFailed("predict draws random numbers: put the model into evaluation mode first")
    if not same(first, second):
        raise CheckFailed("predict gives other outputs for the same inputs: it has hidden state")
    return "predicted 4 batches and compared all that it holds"


@check
def bfloat16(subject: MethodFixture) -> str:
    """Works on a model and inputs in bfloat16."""
    dtype = torch.bfloat16
    method = subject.prepare(dtype=dtype)
    before = weights(method)
    subject.adapt(method, subject.view(dtype=dtype))
    if subject.network == OTHER_MODEL and first_difference(before, weights(method)) is not None:
        # Its last stage has images of one pixel. Seen with torch 2.15 on CPUs: the gradient of
        # weights of a convolution's border, which meets none of them, is memory that was never set.
        return "adapted; its values are not looked at, as gradients of this network may be wrong"
    subject.require_finite(method, subject.inputs(dtype=dtype), "in bfloat16")
    return "adapted on 3 batches in bfloat16"


@check
def online(subject: MethodFixture) -> str:
    """Under the online protocol each kind of step takes each sample of a batch once at most."""
    if "online" not in subject.method_class.protocols:
        return "nothing: it declares protocols = ('periodic',)"
    method = subject.prepare()
    taken = _StepBatches()
    with unlimited_window(method, taken) as window:
        for start in range(0, 4 * BATCH, BATCH):
            view = subject.view(start=start, samples=BATCH, single_pass=True)
            subject.predict(method, view.x)
            taken.steps.clear()
            method.adapt(view, window)
            _require_once(taken.steps, view)
            view.close("this batch is over: an online stream gives each batch once")
    subject.require_finite(method, subject.inputs(), "after 4 batches of a stream")
    return f"adapted to 4 batches of {BATCH}, one by one"


class _StepBatches(StepObserver):
    """Remembers the kind and the batch of every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Batch]] = []

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        self.steps.append((kind, batch))


def _require_once(steps: list[tuple[str, Batch]], view: WatchedView) -> None:
    samples = {id(batch.x): batch.sample_ids for batch in view.handed}
    of_others = torch.arange(0)
    for kind in {kind for kind, _ in steps}:
        seen = [samples.get(id(batch.x), of_others) for taken, batch in steps if taken == kind]
        times = torch.cat(seen).bincount()
        if len(times) and times.max() > 1:
            raise CheckFailed(
                f"{kind!r} steps take a sample {times.max()} times: loop over "
                "domain.max_passes(epochs), or give the epochs to domain.batches"
            )


# --- bit-for-bit comparison of what methods hold and predict -------------------------------


def same(a: Any, b: Any) -> bool:
    """Whether two tensors, or two containers of tensors and plain values, are equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and torch.equal(_bits(a), _bits(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """The first key whose values are not the same, or that only one has; else None."""
    keys = (*a, *b)
    return next((k for k in keys if k not in a or k not in b or not same(a[k], b[k])), None)


def weights(method: Method) -> dict[str, Tensor]:
    """Copies of the parameters and buffers of every model that a method holds, by name."""
    found: dict[str, Tensor] = {}
    for attribute, value in vars(method).items():
        module = value.module if isinstance(value, FoundationModel) else value
        if isinstance(module, nn.Module):
            for name, tensor in module.state_dict().items():
                found[f"{attribute}.{name}"] = tensor.detach().clone()
    return found


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
