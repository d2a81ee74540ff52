"""What the harness costs: Tent steps through a Window against the same steps in a bare loop.

Run with ``tox -e bench``. Both loops run in turn in one process, so that a noisy machine
disturbs both alike; the ratio, and the time that counting the first steps took, stand in
the benchmark's extra information.
"""

from __future__ import annotations

import time

import torch

from bench.contracts.data import DomainView
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.methods._losses import entropy
from bench.methods.tent import Tent, TentConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.run.window import Window

STEPS = 12


def make_tent():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DigitsViT.build(DigitsViTConfig(), (1, 32, 32), 10)
    view = DomainView("d", torch.rand(50 * STEPS, 1, 32, 32), None, 50, torch.Generator())
    method = Tent(TentConfig())
    method.prepare(model, view)
    return method, view


def bare(method, view):
    method.model.train()
    for batch in view.batches(method.config.epochs):
        loss = entropy(method.model(batch.x)).mean()
        method.optimizer.zero_grad()
        loss.backward()
        method.optimizer.step()


def test_tent_steps_through_the_window(benchmark):
    twin = make_tent()
    method, view = make_tent()
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    window = Window(tracker, 1e9, None, method.model.module)
    method.adapt(view, window)  # counts the first two steps; later ones of a window are not
    times: dict[str, list[float]] = {"bare": [], "window": []}

    def pair():
        order = ("bare", "window") if len(times["bare"]) % 2 else ("window", "bare")
        for name in order:
            start = time.process_time()
            if name == "bare":
                bare(*twin)
            else:
                method.adapt(view, window)
            times[name].append(time.process_time() - start)

    benchmark.pedantic(pair, rounds=30, warmup_rounds=1)
    window.close()
    best = {name: min(each) for name, each in times.items()}
    ratio = best["window"] / best["bare"]
    benchmark.extra_info["steps"] = STEPS
    benchmark.extra_info["window / bare, least CPU time of all rounds"] = round(ratio, 4)
    benchmark.extra_info["counting the first 2 steps, s"] = round(tracker.tracing_s, 4)
    print(
        f"\n{STEPS} steps: bare {best['bare']:.4f} s, "
        f"window {best['window']:.4f} s, ratio {ratio:.4f}; "
        f"counting the first 2 steps took {tracker.tracing_s:.4f} s"
    )
    assert tracker.counts["adapt"] == STEPS * (1 + len(times["window"]))
