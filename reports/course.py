"""Scores along the stream: what the figure and the page show of a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.records.record import Results

from .aggregate import Row
from .metrics import has_matrix, is_online
from .statistics import Run


def stages_of(protocol: Mapping[str, Any], domains: Sequence[str]) -> list[str]:
    """The places of the stream in order: the source too where its accuracy is followed."""
    return ["source", *domains] if has_matrix(protocol) else list(domains)


def along_the_stream(
    row: Row, protocol: Mapping[str, Any], domains: Sequence[str]
) -> dict[int, dict[Run, float]]:
    """Scores in [0, 1] by place in `stages_of` and run; places that no run knows are left out."""
    at: dict[int, dict[Run, float]] = defaultdict(dict)
    for run, results in row.results.items():
        for place, score in _of_run(results, protocol, domains):
            at[place][run] = score
    return dict(at)


def _of_run(
    results: Results, protocol: Mapping[str, Any], domains: Sequence[str]
) -> Iterator[tuple[int, float]]:
    matrix, online = has_matrix(protocol), is_online(protocol)
    if matrix and results.matrix is not None:
        yield 0, results.matrix[0][0]
    for i, domain in enumerate(results.domains):
        other = results.seen(i + 1) if matrix else domain.online
        value = other if matrix or online else domain.after
        if value is not None:
            yield domains.index(domain.name) + matrix, value
