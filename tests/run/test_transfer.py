"""Forgetting and transfer: by hand, by their laws, and from a stream whose matrix is known."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.contracts.method import Method, MethodConfig
from bench.contracts.protocol import protocol_config
from bench.costs.factory import make_tracker
from bench.records.record import DomainResult, Record, Results
from bench.records.store import Store
from bench.run.protocols.base import Deployment, StreamResult, run_stream
from bench.run.validity import build_stream
from bench.run.window import Window
from bench.testing import TinyModel, TinyStream, TinyStreamConfig

OLD = Path(__file__).parents[1] / "records" / "samples" / "schema-1.json"


def results(
    matrix: list[list[float]] | None, sizes: list[int] | None = None, **domain: Any
) -> Results:
    """Results of a stream with this matrix; ``sizes``: test samples of source and domains."""
    sizes = sizes or [10] * len(matrix or [0, 0])
    fields = {"before": 0.1, "after": 0.2, "final": 0.3, **domain}
    domains = [
        DomainResult(
            name=f"d{i}", adaptation_samples=4, test_samples=n, steps=1, time_s=1.0,
            energy_j=None, window_closed=False, **fields,
        )
        for i, n in enumerate(sizes[1:])
    ]  # fmt: skip
    return Results.model_construct(
        source_before=1.0, source_after=1.0, source_samples=sizes[0], domains=domains, matrix=matrix
    )


# --- by hand ----------------------------------------------------------------------------

MATRIX = [
    # source, a, b, c
    [0.9, 0.2, 0.3, 0.4],  # before the stream
    [0.8, 0.7, 0.5, 0.3],  # after a
    [0.85, 0.9, 0.6, 0.2],  # after b
    [0.6, 0.5, 0.65, 0.8],  # after c
]
SIZES = [40, 10, 20, 30]


def test_accuracy_over_everything_seen_weighs_by_samples() -> None:
    r = results(MATRIX, SIZES)
    assert r.seen(0) == pytest.approx(0.9)
    assert r.seen(1) == pytest.approx((40 * 0.8 + 10 * 0.7) / 50)
    assert r.seen(2) == pytest.approx((40 * 0.85 + 10 * 0.9 + 20 * 0.6) / 70)
    at_end = (40 * 0.6 + 10 * 0.5 + 20 * 0.65 + 30 * 0.8) / 100
    assert r.seen(3) == r.seen_at_end == r.score == pytest.approx(at_end)
    assert r.seen_on_average == pytest.approx((39 / 50 + 55 / 70 + at_end) / 3)


def test_forgetting_is_measured_from_the_best_that_was_known() -> None:
    # Chaudhry et al., ECCV 2018: source 0.9, a 0.9 (after b), b 0.6, each less the last row.
    expected = ((0.9 - 0.6) + (0.9 - 0.5) + (0.6 - 0.65)) / 3
    assert results(MATRIX, SIZES).forgetting == pytest.approx(expected)


def test_backward_transfer_is_measured_from_when_a_domain_was_learned() -> None:
    # Lopez-Paz & Ranzato, NeurIPS 2017: from the diagonal.
    expected = ((0.6 - 0.9) + (0.5 - 0.7) + (0.65 - 0.6)) / 3
    assert results(MATRIX, SIZES).backward_transfer == pytest.approx(expected)


def test_forward_transfer_is_what_a_domain_gained_before_it_came() -> None:
    # b after a and c after b, from the source model; a has only the source model before it.
    expected = ((0.5 - 0.3) + (0.2 - 0.4)) / 2
    assert results(MATRIX, SIZES).forward_transfer == pytest.approx(expected)


def test_one_domain_can_be_forgotten_from_but_not_transferred_to() -> None:
    one = results([[0.9, 0.2], [0.7, 0.8]])
    assert one.forgetting == pytest.approx(0.2)  # of the source
    assert one.backward_transfer == pytest.approx(-0.2)
    assert one.forward_transfer is None
    assert one.seen_at_end == pytest.approx(0.75)


def test_without_a_matrix_only_what_the_domains_tell_is_known() -> None:
    r = results(None, [10, 10, 10], after=0.75, final=0.5)
    assert r.seen(1) is r.seen_at_end is r.seen_on_average is r.forward_transfer is None
    assert r.backward_transfer == -0.25
    assert r.forgetting == 0.25
    assert r.online is None
    assert r.score == 0.75


def test_the_score_is_over_all_seen_then_online_then_after() -> None:
    assert results([[0.0, 0.0], [0.5, 0.5]], online=0.4).score == 0.5
    assert results(None, online=0.4).score == 0.4
    assert results(None, online=0.0).score == 0.0  # known, and nothing right
    assert results(None).score == 0.2


def test_online_is_the_mean_of_the_domains_that_have_one() -> None:
    r = results(None, [1, 1, 1, 1])
    for domain, online in zip(r.domains, (0.25, None, 0.75), strict=True):
        domain.online = online
    assert r.online == 0.5


# --- laws -------------------------------------------------------------------------------

share = st.floats(0, 1)


@st.composite
def streams(draw: st.DrawFn, most: int = 5) -> tuple[list[list[float]], list[int]]:
    n = draw(st.integers(2, most + 1))
    matrix = draw(st.lists(st.lists(share, min_size=n, max_size=n), min_size=n, max_size=n))
    return matrix, draw(st.lists(st.integers(1, 500), min_size=n, max_size=n))


@given(constant=share, n=st.integers(2, 6))
def test_where_nothing_changes_nothing_is_forgotten_or_transferred(constant: float, n: int) -> None:
    r = results([[constant] * n] * n)
    assert r.forgetting == r.backward_transfer == 0.0
    assert r.forward_transfer == (0.0 if n > 2 else None)
    assert r.seen_at_end == pytest.approx(constant)
    assert r.seen_on_average == pytest.approx(constant)


@given(streams())
def test_forgetting_is_no_less_than_the_loss_since_learning(
    stream: tuple[list[list[float]], list[int]],
) -> None:
    r = results(*stream)
    assert r.forgetting >= -r.backward_transfer - 1e-12
    assert -1 <= r.forgetting <= 1
    assert -1 <= r.backward_transfer <= 1


@given(streams())
def test_what_is_seen_lies_between_the_worst_and_the_best(
    stream: tuple[list[list[float]], list[int]],
) -> None:
    matrix, sizes = stream
    r = results(matrix, sizes)
    for i, row in enumerate(matrix):
        assert min(row[: i + 1]) - 1e-12 <= r.seen(i) <= max(row[: i + 1]) + 1e-12
    stages = [r.seen(i) for i in range(1, len(matrix))]
    assert r.seen_on_average == pytest.approx(statistics.fmean(stages))
    assert r.seen_at_end == stages[-1]


@given(streams())
def test_metrics_by_loops_over_the_definitions(
    stream: tuple[list[list[float]], list[int]],
) -> None:
    matrix, sizes = stream
    r, last = results(matrix, sizes), len(matrix) - 1
    lost, gained, ahead = [], [], []
    for j in range(last):
        best = -1.0
        for i in range(j, last):
            best = max(best, matrix[i][j])
        lost.append(best - matrix[last][j])
        gained.append(matrix[last][j] - matrix[j][j])
    for j in range(2, last + 1):
        ahead.append(matrix[j - 1][j] - matrix[0][j])
    assert r.forgetting == pytest.approx(statistics.fmean(lost))
    assert r.backward_transfer == pytest.approx(statistics.fmean(gained))
    assert r.forward_transfer == (pytest.approx(statistics.fmean(ahead)) if ahead else None)


@given(streams(), st.data())
def test_what_is_not_seen_yet_does_not_count_as_seen_or_forgotten(
    stream: tuple[list[list[float]], list[int]], data: st.DataObject
) -> None:
    """Above the diagonal stands forward transfer alone."""
    matrix, sizes = stream
    n = len(matrix)
    changed = [
        [r if j <= i else data.draw(share) for j, r in enumerate(row)]
        for i, row in enumerate(matrix)
    ]
    first, second = results(matrix, sizes), results(changed, sizes)
    assert first.forgetting == second.forgetting
    assert first.backward_transfer == second.backward_transfer
    assert [first.seen(i) for i in range(n)] == [second.seen(i) for i in range(n)]


# --- the matrix of a stream -------------------------------------------------------------

NAMES = TinyStream.NAMES
PLACES = {name: place for place, name in enumerate(NAMES, 1)}


class ToyStream(TinyStream):
    """The domain at place i has ten times (i + 1) tests; all labels are 1."""

    def __init__(self) -> None:
        super().__init__(TinyStreamConfig(domains=3, samples=4))

    def labels(self, place: int, number: Tensor) -> Tensor:
        return torch.ones(len(number)).long()

    def tests(self, place: int) -> int:
        return 10 * (place + 1)


class Planned(Method):
    """After domain i, is right on the share MATRIX[i][j] of domain j's tests, rounded up."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.model = TinyModel(nn.Linear(1, 2), "")
        self.row = 0

    def predict(self, x: Tensor) -> Tensor:
        place = int(x[0, 0])
        number = x[:, 1] - TinyStream.TEST_MARK
        right = number < MATRIX[self.row][place] * 10 * (place + 1) - 1e-6
        return torch.stack([torch.full((len(x),), 0.5), right.float()], 1)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.row = PLACES[domain.name]


@pytest.fixture
def run(make_device: Callable[..., Any]) -> Callable[..., StreamResult]:
    def go(**protocol: Any) -> StreamResult:
        method = Planned()
        tracker = make_tracker([make_device()], method.stored)
        stream = build_stream(ToyStream())
        return run_stream(
            protocol_config({"batch_size": 7, **protocol}),
            Deployment(method, stream, tracker, False, 0),
        )

    return go


def exact(matrix: list[list[float]]) -> list[list[float]]:
    """Shares that can be had with 10, 20, 30 and 40 tests."""
    return [
        [-(-round(r * 10 * (j + 1), 6) // 1) / (10 * (j + 1)) for j, r in enumerate(row)]
        for row in matrix
    ]


def test_evaluate_all_gives_a_row_for_the_start_and_one_after_each_domain(
    run: Callable[..., StreamResult],
) -> None:
    stream = run(evaluate_all=True)
    assert stream.matrix is not None
    assert len(stream.matrix) == len(NAMES) + 1
    for row, expected in zip(stream.matrix, exact(MATRIX), strict=True):
        assert row == pytest.approx(expected, abs=1e-9)
    assert stream.source_samples == 10
    assert [s.test_samples for s in stream.stages] == [20, 30, 40]


def test_the_matrix_agrees_with_what_the_stream_reports_beside_it(
    run: Callable[..., StreamResult],
) -> None:
    stream = run(evaluate_all=True)
    matrix = stream.matrix
    assert matrix is not None
    assert (stream.source_before, stream.source_after) == (matrix[0][0], matrix[3][0])
    for i, stage in enumerate(stream.stages, start=1):
        assert stage.before == matrix[i - 1][i]
        assert stage.after == matrix[i][i]
        assert stage.final == matrix[3][i]


def test_the_matrix_is_not_made_unless_it_is_asked_for(run: Callable[..., StreamResult]) -> None:
    assert run().matrix is None


def test_a_matrix_is_made_under_the_online_protocol_as_well(
    run: Callable[..., StreamResult],
) -> None:
    online, periodic = (run(name=n, evaluate_all=True) for n in ("online", "periodic"))
    assert online.matrix == periodic.matrix
    assert online.stages[0].online == 1.0  # 4 samples, one batch, all among the first


def test_a_reset_takes_back_what_was_learned_before_the_next_domain_is_evaluated(
    run: Callable[..., StreamResult],
) -> None:
    stream = run(evaluate_all=True, reset="domain")
    matrix = stream.matrix
    assert matrix is not None
    assert [s.before for s in stream.stages] == matrix[0][1:]
    assert [s.final for s in stream.stages] == [matrix[i][i] for i in (1, 2, 3)]


# --- records ----------------------------------------------------------------------------


def test_a_record_from_before_there_was_a_matrix_loads_with_the_same_figures(
    tmp_path: Path,
) -> None:
    content = json.loads(OLD.read_text())
    new = {"matrix", "source_samples"}
    assert not new & set(content["results"])
    assert "online" not in content["results"]["domains"][0]
    for key in ("settings", "settings_origin"):
        assert key not in content["cell"]
        assert key not in content["method"]
    store = Store(tmp_path)
    store.records.mkdir()
    (store.records / f"{content['identity']}.json").write_text(OLD.read_text())
    (record,) = list(store)
    r = record.results
    assert r is not None
    assert (r.matrix, r.online, r.source_samples) == (None, None, 0)
    assert r.forgetting == -r.backward_transfer == pytest.approx(0.05)
    assert r.score == r.mean("after") == pytest.approx(0.7)
    assert r.seen_at_end is r.seen_on_average is r.forward_transfer is None
    assert (record.cell.settings_origin, record.method.settings_origin) == ("default", "default")
    assert record.identity == content["identity"]
    assert Record.model_validate_json(record.model_dump_json()) == record


@given(streams())
def test_a_matrix_keeps_its_figures_through_a_record(
    stream: tuple[list[list[float]], list[int]],
) -> None:
    content = json.loads(OLD.read_text())
    matrix, sizes = stream
    domain = content["results"]["domains"][0]
    content["results"] |= {
        "matrix": matrix,
        "source_samples": sizes[0],
        "domains": [{**domain, "test_samples": n} for n in sizes[1:]],
    }
    again = Record.model_validate_json(Record.model_validate(content).model_dump_json()).results
    assert again is not None
    assert again.matrix == matrix
    assert again.score == results(matrix, sizes).score
    assert again.forgetting == results(matrix, sizes).forgetting


@pytest.mark.parametrize("bad", [[[float("nan")]], [["many"]], [0.5]])
def test_a_matrix_of_anything_but_numbers_is_refused(bad: Any) -> None:
    content = json.loads(OLD.read_text())
    content["results"]["matrix"] = bad
    with pytest.raises(pydantic.ValidationError, match="matrix"):
        Record.model_validate(content)
