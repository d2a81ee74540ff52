"""Work that no operator shows: refused where a step runs none, marked or refused by CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from bench.contracts.data import DomainView
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.errors import BenchError
from bench.run.window import Window


def burn(seconds: float) -> None:
    """Use CPU time in this thread, outside torch."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def compute() -> None:
    a = torch.ones(200, 200)
    for _ in range(10):
        a = a @ a


def run(work: Callable[[], None], steps: int = 4) -> CostTracker:
    torch.set_num_threads(1)
    tracker = make_tracker([load_device("xavier-nx")], list)
    view = DomainView("d", torch.ones(steps, 1), None, 1, torch.Generator())
    with Window(tracker, 1e9) as window:
        for _ in window.steps(view.batches()):
            work()
    tracker.inference(1, compute)
    tracker.finish()
    return tracker


def test_steps_of_operators_alone_have_no_mark() -> None:
    assert run(compute).uncounted == set()


def test_steps_that_burn_time_beside_their_operators_are_marked() -> None:
    def both() -> None:
        compute()
        burn(0.3)

    assert run(both).uncounted == {"work outside torch's operators (adapt)"}


def test_one_slow_step_among_others_is_no_mark() -> None:
    slow = iter([0.3, 0, 0, 0])

    def once() -> None:
        compute()
        burn(next(slow))

    assert run(once).uncounted == set()


def test_a_prediction_that_burns_time_is_marked() -> None:
    tracker = make_tracker([load_device("xavier-nx")], list)
    tracker.inference(1, lambda: (compute(), burn(1.5)))
    tracker.finish()
    assert tracker.uncounted == {"work outside torch's operators (prediction)"}


@pytest.mark.parametrize("work", [lambda: burn(0.01), lambda: None])
def test_a_step_without_an_operator_is_refused(work: Callable[[], None]) -> None:
    with pytest.raises(BenchError, match=r"kind 'adapt' runs no operator of torch .* compute with"):
        run(work)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_training_in_another_thread_is_refused_though_the_step_runs_some_operator() -> None:
    def elsewhere() -> None:
        torch.ones(3) + 1
        in_thread(lambda: burn(0.1))

    with pytest.raises(BenchError, match=r"other threads took .* adapt step, .* is not charged"):
        run(elsewhere)


def test_a_thread_that_outlives_its_step_is_refused() -> None:
    def begin() -> None:
        compute()
        threading.Thread(target=burn, args=(0.3,)).start()
        time.sleep(0.4)

    with pytest.raises(BenchError, match="other threads took"):
        run(begin)
