"""Choosing among 500 tensors at 1000 units: milliseconds (to reach: below 5)."""

from __future__ import annotations

import itertools
import random

from bench.methods.elastic.selection import exact


def test_choosing_among_500_tensors(benchmark):
    draw = random.Random(0)
    dw = [draw.randint(0, 4) for _ in range(500)]
    before = [0, *itertools.accumulate(draw.randint(0, 2) for _ in range(499))]
    importance = [draw.random() for _ in range(500)]
    chosen = benchmark(exact, importance, dw, before, 1000)
    assert before[chosen[-1]] + sum(dw[k] for k in chosen) <= 1000
