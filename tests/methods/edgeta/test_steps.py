"""The table of a retraining step's costs: counts by hand, and what it prints."""

from __future__ import annotations

import pytest
import torch

from bench.costs.step_tracer import StepTrace
from bench.methods.edgeta.steps import Step, retraining_steps, table


def matmul(trace: StepTrace) -> float:
    return sum(f * n for (kind, _, f, _), n in trace.operations.items() if kind == "matmul")


def test_a_neuron_left_out_saves_its_products_in_both_batches(build) -> None:
    """fc1 and fc2 of every block, 2 operations a weight and token, forward and twice backward."""
    images, ratio, blocks, width, inner, tokens = 3, 2, 2, 16, 64, 5
    x = torch.rand(images, 1, 16, 16)
    model, whole, half = retraining_steps(build("vit"), x, ratio, [0.0, 0.5], repeats=1)
    neurons = inner // ratio // 2
    rows = 2 * images * tokens  # of the source's batch and of the target's
    saved = blocks * neurons * rows * 3 * (2 * width + 2 * width)
    assert matmul(whole.trace) - matmul(half.trace) == saved
    # Weights of a neuron with its bias; an importance is no parameter.
    assert whole.parameters - half.parameters == blocks * neurons * (width + 1 + width)
    assert model.trace.flops > whole.trace.flops > half.trace.flops
    assert model.trace.bytes > whole.trace.bytes > half.trace.bytes
    assert all(step.seconds > 0 for step in (model, whole, half))


def test_the_table_divides_the_models_costs_by_the_proxys() -> None:
    def step(parameters: int, flops: float, size: float, seconds: float) -> Step:
        trace = StepTrace()
        trace.operations[("matmul", "float32", flops, size)] = 1
        return Step(parameters, trace, seconds)

    steps = [step(80_000_000, 80.0, 60.0, 2.0), step(10_000_000, 8.0, 20.0, 0.25)]
    assert table(steps, [0.8]).splitlines()[2:] == [
        "| model | 80 | 1 | 1 | 1 | 2000 | 1 | |",
        "| 0.8 | 10 | 8.00 | 10.00 | 3.00 | 250 | 8.00 | -20 % |",
    ]


@pytest.mark.slow
def test_on_vit_b16_operations_follow_the_parameters() -> None:
    from bench.models.vit import ViTB16, ViTB16Config

    torch.manual_seed(0)
    model = ViTB16.build(ViTB16Config(), ViTB16.input_shape, 10)
    whole, *proxies = retraining_steps(model, torch.rand(1, *ViTB16.input_shape), 4, [0.0, 0.8], 1)
    for proxy in proxies:
        parameters = whole.parameters / proxy.parameters
        operations = whole.trace.flops / proxy.trace.flops
        assert operations == pytest.approx(parameters, rel=0.05)
