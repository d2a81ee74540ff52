"""What the harness costs: steps of methods through a Window against the same steps in a bare loop.

Run with ``tox -e bench``. A run of 40 steps is timed whole, with the steps that are counted. Both
loops run in turn in one process, so that a noisy machine disturbs both alike; the ratio of the
least CPU times and the time that counting took stand in the benchmark's extra information.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from bench import registry
from bench.contracts.data import Batch, DomainView
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.run.window import Window

STEPS, BATCH, ROUNDS = 40, 50, 3
MOST = 1.10
"""CPU time of a run in the window, as a multiple of that of the bare loop."""


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


def prepared(name: str) -> tuple[Any, DomainView]:
    """A method on a model whose confidence varies, so that other samples are selected each step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DigitsViT.build(DigitsViTConfig(), (1, 32, 32), 10)
    with torch.no_grad():
        for parameter in model.head_parameters():
            parameter.mul_(12.0)
    x, y = torch.rand(BATCH * STEPS, 1, 32, 32), torch.arange(BATCH * STEPS) % 10
    source = DomainView("source", x, y, BATCH, torch.Generator())
    method = registry.load("method", name)(registry.load("method", name).Config())
    method.prepare(model, source)
    view = DomainView("d", x, None, BATCH, torch.Generator(), single_pass=True)
    return method, view


@pytest.mark.parametrize("name", ["tent", "eata", "sar", "shot", "feature-alignment"])
def test_a_run_in_the_window_takes_little_more_than_its_steps(name: str, benchmark: Any) -> None:
    times: dict[str, list[float]] = {"bare": [], "window": []}
    counting: list[float] = []

    def pair() -> None:
        for kind in ("bare", "window"):
            method, view = prepared(name)
            tracker = make_tracker([load_device("xavier-nx")], method.stored)
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
    best = {kind: min(each) for kind, each in times.items()}
    ratio = best["window"] / best["bare"]
    benchmark.extra_info["steps"] = STEPS
    benchmark.extra_info["window / bare, least CPU time of all rounds"] = round(ratio, 4)
    benchmark.extra_info["counting, s"] = round(min(counting), 4)
    print(
        f"\n{name}, {STEPS} steps: bare {best['bare']:.3f} s, window {best['window']:.3f} s, "
        f"ratio {ratio:.3f}; counting took {min(counting):.3f} s"
    )
    if name != "eata":  # most of its steps here select nothing, and are one forward pass
        assert ratio < MOST + 0.1  # MOST on a quiet machine
    assert min(counting) < 0.1 * best["bare"] + 0.05
