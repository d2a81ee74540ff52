"""What the harness costs: steps of methods through a Window against the same steps in a bare loop.

Run with ``tox -e bench``. 40 steps of the embedded ViT over what arrives in the first domains of a
suite are timed whole, with the steps that are counted. Both loops run in turn in one process, so
that a noisy machine disturbs both alike; the ratio of the median CPU times and the time that
counting took stand in the benchmark's extra information. Where benchmarks are disabled the source
model is trained for one epoch: that its steps run is all that is looked at.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import pytest
import torch

from bench.contracts.data import Batch, DomainView
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.run.deployed import deployed
from bench.run.window import Window
from bench.study.build import build
from bench.study.plan import make_cells
from bench.study.selection import Selection

SUITE = "domain-shift-online"
STEPS, ROUNDS = 40, 25


class Bare:
    """A window that charges nothing."""

    closed = False

    def steps(self, batches: Iterable[Batch], **_: Any) -> Iterable[Batch]:
        return batches

    @contextmanager
    def section(self, kind: str) -> Iterator[None]:
        yield

    def declare(self, size: int) -> None:
        pass

    def log(self, **_: Any) -> None:
        pass


def prepared(name: str, training: dict[str, Any]) -> tuple[Any, DomainView]:
    """A method on the suite's source model, and what arrives of its first domains."""
    torch.set_num_threads(1)
    suite, path = Selection(SUITE, methods=(name,), seeds=(0,)).choose()
    model = suite.model.model_copy(update={"training": training})
    (cell,) = make_cells(
        suite.model_copy(update={"supervised_references": [], "model": model}), path
    )
    method, stream = build("method", cell.method), build("stream", cell.stream, 0)
    model, source, _ = deployed(cell, method, stream)
    method.prepare(model, source)
    arriving, size = suite.protocol["samples"], suite.protocol["batch_size"]
    names = stream.domain_names()[: STEPS * size // arriving]
    domains = [stream.domain(name).adaptation.x for name in names]
    x = torch.cat([inputs[:arriving] for inputs in domains])
    return method, DomainView("d", x, None, size, torch.Generator(), single_pass=True)


@pytest.mark.parametrize(
    "name",
    ["tent", *(pytest.param(name, marks=pytest.mark.slow)
               for name in ("eata", "sar", "shot", "feature-alignment"))],
)  # fmt: skip
def test_a_run_in_the_window_takes_little_more_than_its_steps(name: str, benchmark: Any) -> None:
    times: dict[str, list[float]] = {"bare": [], "window": []}
    counting: list[float] = []
    device = load_device("xavier-nx")
    training = {} if benchmark.enabled else {"epochs": 1}

    def pair() -> None:
        for kind in random.sample(("bare", "window"), 2):
            method, view = prepared(name, training)
            tracker = make_tracker([device], method.stored)
            start = time.process_time()
            if kind == "bare":
                method.adapt(view, Bare())
            else:
                with Window(tracker, 1e9, None, lambda m=method: m.model.module) as window:
                    method.adapt(view, window)
                counting.append(tracker.tracing_s)
                assert tracker.counts["adapt"] == STEPS
            times[kind].append(time.process_time() - start)

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    middle = {kind: median(each) for kind, each in times.items()}
    ratio = middle["window"] / middle["bare"]
    benchmark.extra_info["steps"] = STEPS
    benchmark.extra_info["window / bare, median CPU times"] = round(ratio, 4)
    benchmark.extra_info["counting, s"] = round(median(counting), 4)
    print(
        f"\n{name}, {STEPS} steps: bare {middle['bare']:.3f} s, window {middle['window']:.3f} s, "
        f"ratio {ratio:.3f}; counting took {median(counting):.3f} s"
    )
