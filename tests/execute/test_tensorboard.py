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


OFFLINE = """
name: offline
description: the offline stages of a knowledge base in a few steps
stream: {name: digits-shift, shifts: [contrast], severities: [1]}
model: {name: digits-vit, patch: 16, width: 16, depth: 1, training: {epochs: 1}}
protocol: {window_s: 60, batch_size: 50, samples: 100}
methods:
- name: edgeta
  epochs: 1
  lora_steps: 4
  kb_steps: 4
  index_steps: 4
  checkpoints: 2
  max_residual: null
seeds: 1
devices: xavier-nx
"""


def test_the_offline_stages_losses_and_the_indexs_residuals_are_curves(workplace):
    (workplace.folder / "tiny.yaml").write_text(OFFLINE)
    for board in ("trained", "cached"):
        workplace.run(
            "run", "--executor", "inline", "--store", f"of-{board}", "--tensorboard", board
        )
    found = {board: scalars(workplace.folder / board) for board in ("trained", "cached")}
    curves = {name: points for name, points in found["trained"].items() if "offline/" in name}
    # Stages that come from the cache have the curves of their training.
    assert curves == {name: found["cached"][name] for name in curves}
    for stage in ("lora", "knowledge-base", "index"):
        assert [step for step, _ in curves[f"offline/{stage}/loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in curves["offline/lora/accuracy"]] == [2, 4]
    told = workplace.records("of-trained")[("edgeta", 0, "xavier-nx")].details["offline"]
    assert told["lora"]["loss"] == pytest.approx(curves["offline/lora/loss"][-1][1], rel=1e-6)
    residuals = [points for name, points in curves.items() if "/index/residual of " in name]
    assert len(residuals) == 3  # query and key, value, feed-forward of one block
    assert all(len(points) == 1 for points in residuals)
    mean = sum(points[0][1] for points in residuals) / len(residuals)
    assert told["index"]["mean residual"] == pytest.approx(mean, rel=1e-6)


def scalars(board):
    """Points (step, value) by name of the one run of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = board.iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
