"""Checks of what a method does with its data, its state and its random draws."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from bench.conformance.base import CheckFailed, check
from bench.conformance.compare import first_difference, same, weights
from bench.conformance.method_fixture import (
    BATCH,
    UNLIMITED,
    MethodFixture,
    WatchedView,
    WatchedWindow,
    clock,
    setting,
)
from bench.contracts.method import Method
from bench.errors import LabelsHidden
from bench.run.determinism import seed_everything


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
        _require_out_of_reach(number, view, method)
    if subject.labelled and not reads:
        raise CheckFailed(
            "declares needs = ('target_labels',) and reads none: drop the declaration"
        )
    if reads and not subject.labelled:
        raise CheckFailed(
            f"asks for target labels (y) {reads} times: declare needs = ('target_labels',), or "
            "adapt without them"
        )
    return f"adapted on 2 {'labelled' if subject.labelled else 'unlabelled'} domains"


def _require_out_of_reach(number: int, view: WatchedView, method: Method) -> None:
    """The tensors of labels that a domain holds are not to be found from what a method has."""
    domain = setting().domains[number]
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
        for domain in (0, 1):
            subject.adapt(method, subject.view(domain))
        predictions = subject.predict(method, subject.inputs(1))
        ends.append({**weights(method), "the predictions": predictions})
    different = first_difference(*ends)
    if different is not None:
        raise CheckFailed(
            f"{different} differs between two runs from one seed: draw from a torch.Generator "
            "seeded in prepare, or from torch's, numpy's or Python's global generator"
        )
    return "ran 2 domains twice"


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
        subject.adapt(method, subject.view(1))
        predictions = subject.predict(method, subject.inputs(1))
        ends.append({**weights(method), "the predictions": predictions})
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
        subject.adapt(method, subject.view(samples=samples, batch_size=batch_size))
        when = f"after {samples} samples in batches of {batch_size}"
        subject.require_finite(method, subject.inputs(samples=5), when)
        subject.require_finite(method, subject.inputs(samples=1), when)
    return f"adapted on 3 samples one by one, and on {2 * BATCH + 1} in batches of {BATCH}"


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
        subject.predict(method, x[:size])
    second = subject.predict(method, x)
    changed = first_difference(held, weights(method)) or first_difference(before, method.state())
    if changed is not None:
        raise CheckFailed(
            f"predict changes {changed}: change it in adapt, or keep it in a local name"
        )
    if not same(random_before, torch.get_rng_state()):
        raise CheckFailed("predict draws random numbers: put the model into evaluation mode first")
    if not same(first, second):
        raise CheckFailed(
            "predict gives other outputs for the same inputs: it keeps a hidden state"
        )
    return "predicted 4 batches and compared all that it holds"


@check
def bfloat16(subject: MethodFixture) -> str:
    """Works on a model and inputs in bfloat16."""
    dtype = torch.bfloat16
    method = subject.prepare(dtype=dtype)
    subject.adapt(method, subject.view(dtype=dtype))
    subject.require_finite(method, subject.inputs().to(dtype), "in bfloat16")
    return "adapted on 3 batches in bfloat16"


@check
def online(subject: MethodFixture) -> str:
    """Under the online protocol each kind of step takes each sample of a batch once at most."""
    if "online" not in subject.method_class.protocols:
        return "nothing: it declares protocols = ('periodic',)"
    method = subject.prepare()
    with WatchedWindow(clock(method), UNLIMITED, None, method.model.module) as window:
        for start in range(0, 4 * BATCH, BATCH):
            view = subject.view(start=start, samples=BATCH, single_pass=True)
            subject.predict(method, view.x)
            window.taken.clear()
            method.adapt(view, window)
            _require_once(window, view)
            view.close("this batch is over: an online stream gives each batch once")
    subject.require_finite(method, subject.inputs(), "after 4 batches of a stream")
    return f"adapted to 4 batches of {BATCH}, one by one"


def _require_once(window: WatchedWindow, view: WatchedView) -> None:
    for kind in {kind for kind, _ in window.taken}:
        indices = [view.indices_of(x) for taken, x in window.taken if taken == kind]
        times = torch.cat(indices).bincount()
        if len(times) and times.max() > 1:
            raise CheckFailed(
                f"{kind!r} steps take a sample {times.max()} times: loop over "
                "domain.max_passes(epochs), or give the epochs to domain.batches"
            )
