"""What a method keeps is memory, of whatever kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.costs.step_tracer import StepTracer
from bench.operators.live_memory import live_bytes, live_tensors

SPARSE = torch.eye(10).to_sparse()
"""Ten float32 values, and two int64 coordinates of each."""
COMPRESSED = torch.sparse_csr_tensor(torch.arange(11), torch.arange(10), torch.ones(10))


@pytest.mark.parametrize(
    ("kept", "size"),
    [
        (np.zeros(100, dtype=np.float32), 400),
        ([np.zeros(100)[:10], {"more": np.zeros(3, dtype=np.int8)}], 803),
        (np.array([torch.zeros(5), None], dtype=object), 20),
        (SPARSE, 10 * 4 + 20 * 8),
        ({"graph": SPARSE, "again": SPARSE}, 200),
        (COMPRESSED, 10 * 4 + 10 * 8 + 11 * 8),
        (torch.nn.Embedding(10, 2, sparse=True), 80),
    ],
)
def test_arrays_and_sparse_tensors_are_counted_once(kept: Any, size: int) -> None:
    assert live_bytes(kept) == size
    assert StepTracer([kept]).trace.resident_bytes == size


def test_an_array_and_the_tensor_over_it_are_one_block() -> None:
    array = np.zeros(100, dtype=np.float32)
    tensor = torch.zeros(50)
    assert live_bytes([array, torch.from_numpy(array), tensor, tensor.numpy()[:3]]) == 600
    with StepTracer([array]) as tracer:
        torch.from_numpy(array) + 1
    assert tracer.trace.peak_bytes == 800


def test_an_array_on_storage_is_no_memory(tmp_path: Path) -> None:
    on_disk = np.memmap(tmp_path / "array", dtype=np.float32, mode="w+", shape=(100,))
    assert live_bytes({"all": on_disk, "some": on_disk[:10]}) == 0


def test_a_sparse_gradient_is_memory_and_its_step_is_counted() -> None:
    table = torch.nn.Embedding(10, 2, sparse=True)
    with StepTracer(table) as tracer:
        table(torch.tensor([1, 3])).sum().backward()
    assert tracer.trace.operations
    assert live_bytes(table) == 80 + 2 * 2 * 4 + 2 * 8


@pytest.mark.parametrize(
    "wrap", [lambda x, t: (x, t), lambda x, t: [t, x], lambda x, t: {"n": x, "t": t}]
)
def test_a_long_chain_of_containers_is_walked_to_its_end(wrap: Any) -> None:
    chain: Any = None
    for _ in range(20_000):
        chain = wrap(chain, torch.zeros(1))
    assert live_bytes(chain) == 20_000 * 4
    assert sum(1 for _ in live_tensors(chain)) == 20_000
