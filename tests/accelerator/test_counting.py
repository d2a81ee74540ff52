"""The same operations are counted wherever a step is computed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from tagged_gpu import tagged_gpu
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.costs.step_tracer import StepTrace, StepTracer

OPTIMIZERS = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta")


def traced(optimizer: str, place: str = "cpu", **settings: Any) -> StepTrace:
    """The second step of a small network."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)).to(place)
    made = getattr(torch.optim, optimizer)(net.parameters(), lr=0.01, **settings)
    x = torch.rand(4, 5).to(place)
    for _ in range(2):
        with StepTracer([net, made]) as tracer:
            net(x).square().mean().backward()
            made.step()
            made.zero_grad()
    return tracer.trace


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_with_multi_tensor_kernels_is_counted_as_a_plain_one(optimizer: str) -> None:
    assert traced(optimizer, foreach=True) == traced(optimizer)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_a_fused_optimizer_is_counted_as_a_plain_one(optimizer: str) -> None:
    assert traced(optimizer, fused=True).operations == traced(optimizer).operations


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_on_a_gpu_is_counted_as_on_the_cpu(optimizer: str) -> None:
    expected = traced(optimizer)
    with tagged_gpu():
        found = traced(optimizer, "cuda")
    assert found == expected
    assert found.flops > 0


ATEN = torch.ops.aten


def attention(place: str, queries: int) -> StepTrace:
    """Forward and backward of one attention with its kernel; on ``cuda`` from shapes alone."""
    mode = contextlib.nullcontext() if place == "cpu" else FakeTensorMode()
    with mode:
        shape = (2, 4, queries, 8)
        q, k, v = (torch.rand(shape, device=place) for _ in range(3))
        with StepTracer([q, k, v]) as tracer:
            if place == "cpu":
                out, lse = ATEN._scaled_dot_product_flash_attention_for_cpu(q, k, v)
                ATEN._scaled_dot_product_flash_attention_for_cpu_backward(
                    out, q, k, v, out, lse, 0.0, False
                )
            else:
                out, lse, *state = ATEN._scaled_dot_product_efficient_attention(q, k, v, None, True)
                ATEN._scaled_dot_product_efficient_attention_backward(
                    out, q, k, v, None, out, lse, *state, 0.0, [True, True, True, False]
                )
    return tracer.trace


@pytest.mark.parametrize("queries", [32, 40])
def test_attention_is_counted_alike_whatever_kernel_computes_it(queries: int) -> None:
    cpu, gpu = attention("cpu", queries), attention("cuda", queries)
    assert gpu.operations == cpu.operations
    assert gpu.flops == 2 * 7 * (2 * 4 * queries * queries * 8)
    padding = 2 * 4 * (-queries % 32) * 4 + 16  # the kernel's own, which lies in memory
    assert gpu.peak_bytes == cpu.peak_bytes + padding


def test_attention_without_gradients_is_counted_alike() -> None:
    with FakeTensorMode():
        q = torch.rand(1, 2, 40, 8, device="cuda")
        with StepTracer([q]) as tracer:
            ATEN._scaled_dot_product_efficient_attention(q, q, q, None, False)
    q = torch.rand(1, 2, 40, 8)
    with StepTracer([q]) as on_cpu:
        ATEN._scaled_dot_product_flash_attention_for_cpu(q, q, q)
    assert tracer.trace.operations == on_cpu.trace.operations
