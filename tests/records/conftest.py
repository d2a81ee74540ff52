"""Results by hand, for records that are ok."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.records.record import Amount, Costs, DomainResult, Results


def make_results(*scores: float, matrix: bool = False) -> Results:
    """Of ``scores`` on as many domains."""
    amounts = {
        name: Amount(value=value, unit=unit, kind="modelled", how="profile x")
        for name, value, unit in (
            ("adaptation_time", 2.0, "s"), ("adaptation_energy", 9.0, "J"),
            ("peak_memory", 4e7, "B"), ("runtime_memory", 1e9, "B"), ("source_storage", 0.0, "B"),
            ("inference_time", 1e-4, "s/sample"), ("inference_energy", 1e-3, "J"),
        )
    }  # fmt: skip
    domains = [
        DomainResult(
            name=f"d{i}", before=0.5, after=score, final=score, adaptation_samples=8,
            test_samples=8, steps=2, time_s=1.0, energy_j=4.5, window_closed=False,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip
    size = len(scores) + 1
    return Results(
        source_before=0.9, source_after=0.8, source_samples=8, domains=domains,
        costs=Costs(**amounts, steps={"adapt": 4}, flops=1e9, bytes=1e8, launches=9, tracing_s=0.1),
        matrix=[[0.5] * size] * size if matrix else None,
    )  # fmt: skip


@pytest.fixture(scope="session")
def good_results() -> Callable[..., Results]:
    return make_results
