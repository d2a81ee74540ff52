"""--tensorboard writes losses and accuracies of each run, and changes no number."""

from __future__ import annotations

import pytest


def test_scalars_are_written_and_the_bill_is_the_same(workplace):
    options = ("--methods", "tent", "--seeds", "0")
    workplace.run("run", *options, "--executor", "inline")
    workplace.run("run", *options, "--store", "logged", "--tensorboard", "board")
    plain = workplace.records()[("tent", 0, "xavier-nx")].results
    logged = workplace.records("logged")[("tent", 0, "xavier-nx")].results
    assert logged.domains == plain.domains
    assert logged.costs.flops == plain.costs.flops

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (workplace.folder / "board").iterdir()
    board = EventAccumulator(str(folder))
    board.Reload()
    assert {"entropy", "accuracy/before", "accuracy/after"} <= set(board.Tags()["scalars"])
    after = [event.value for event in board.Scalars("accuracy/after")]
    assert after == pytest.approx([d.after for d in plain.domains], abs=1e-6)
    assert len(board.Scalars("entropy")) == 4
