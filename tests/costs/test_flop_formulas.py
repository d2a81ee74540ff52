"""Operators that do products inside: their operations by hand, and a mark where none is known."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.costs.step_tracer import StepTrace, StepTracer

N = 8


def counted(work: Callable[[], Any]) -> StepTrace:
    with StepTracer() as tracer:
        work()
    return tracer.trace


def matrix(rows: int = N, columns: int = N) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)) + rows * torch.eye(
        rows, columns
    )


LINEAR_ALGEBRA: list[tuple[Callable[[Tensor], Any], float]] = [
    (torch.linalg.eigh, 9 * N**3),
    (torch.linalg.eig, 25 * N**3),
    (lambda a: torch.linalg.svd(a, full_matrices=False), 22 * N**3),
    (torch.linalg.inv, 2 * N**3),
    (torch.linalg.qr, 8 / 3 * N**3),
    (torch.linalg.cholesky, N**3 / 3),
    (torch.linalg.det, 2 / 3 * N**3),
    (torch.linalg.lu, 2 / 3 * N**3),
    (torch.linalg.pinv, 24 * N**3),
    (lambda a: torch.linalg.solve(a, matrix(N, 3)), 2 / 3 * N**3 + 2 * N * N * 3),
    (lambda a: torch.linalg.solve_triangular(a, matrix(N, 3), upper=True), N * N * 3),
    (lambda a: torch.cholesky_solve(matrix(N, 3), a), 2 * N * N * 3),
    (lambda a: torch.linalg.lstsq(a, matrix(N, 3)), 4 / 3 * N**3 + 4 * N * N * 3),
    (lambda a: torch.linalg.matrix_exp(a * 0.0), 10 * N**3),
]


@pytest.mark.parametrize("case", range(len(LINEAR_ALGEBRA)))
def test_a_decomposition_costs_what_golub_and_van_loan_count(case: int) -> None:
    work, expected = LINEAR_ALGEBRA[case]
    a = matrix() @ matrix().t()
    trace = counted(lambda: work(a))
    assert trace.uncounted == set()
    assert trace.flops == pytest.approx(expected, abs=2 * N * N)  # checks, and a matrix made


def test_a_batch_of_matrices_costs_each_and_a_tall_one_more_than_its_square() -> None:
    batch = torch.stack([matrix() for _ in range(5)])
    assert counted(lambda: torch.linalg.inv_ex(batch)).flops == 5 * 2 * N**3
    high = matrix(4 * N, N)
    tall = counted(lambda: torch.linalg.qr(high)).flops
    r = 2 * N**2 * (4 * N - N / 3)
    q = 4 * 4 * N * N * N - 2 * (4 * N + N) * N**2 + 4 / 3 * N**3
    assert tall == pytest.approx(r + q)


SPARSE = torch.eye(N).to_sparse()
COMPRESSED = SPARSE.to_sparse_csr()
GRID = torch.zeros(2, 5, 6, 2)

OTHERS: dict[str, tuple[Callable[[], Any], float]] = {
    "distances": (lambda: torch.cdist(matrix(3, 3), matrix(4, 3)), 3 * 3 * 4 * 3),
    "distances by a product": (
        lambda: torch.cdist(torch.ones(30, 5), torch.ones(40, 5)),
        2 * 30 * 40 * 7,
    ),
    "distances within": (lambda: F.pdist(torch.ones(4, 5)), 3 * 6 * 5),
    "complex fft": (lambda: torch.fft.fft(torch.ones(3, 16, dtype=torch.cfloat)), 5 * 48 * 4),
    "real fft": (lambda: torch.fft.rfft(torch.ones(3, 16)), 2.5 * 48 * 4),
    "back to real": (
        lambda: torch.fft.irfft(torch.ones(3, 9, dtype=torch.cfloat)),
        2.5 * 48 * 4,
    ),
    "bilinear": (
        lambda: F.bilinear(torch.ones(4, 3), torch.ones(4, 5), torch.ones(2, 3, 5)),
        2 * 4 * 2 * 3 * 5,
    ),
    "complex product": (
        lambda: torch.ones(2, 3, dtype=torch.cfloat) @ torch.ones(3, 5, dtype=torch.cfloat),
        8 * 2 * 3 * 5,
    ),
    "sparse product": (lambda: torch.sparse.mm(SPARSE, torch.ones(N, 3)), 2 * N * 3),
    "sparse operand": (lambda: SPARSE @ torch.ones(N, 3), 2 * N * 3),
    "sparse rows": (lambda: COMPRESSED @ torch.ones(N, 3), 2 * N * 3),
    "sparse vector": (lambda: SPARSE @ torch.ones(N), 2 * N),
    "bag": (lambda: F.embedding_bag(torch.zeros(4, 3).long(), torch.ones(9, 5)), 12 * 5),
    "sampling": (
        lambda: F.grid_sample(torch.ones(2, 3, 8, 8), GRID, align_corners=False),
        2 * 4 * 2 * 3 * 5 * 6,
    ),
    "resampling": (
        lambda: F.interpolate(torch.ones(1, 3, 4, 4), scale_factor=2, mode="bilinear"),
        2 * 4 * 3 * 8 * 8,
    ),
    "pooling": (lambda: F.max_pool2d(torch.ones(2, 3, 8, 8), 2), 2 * 3 * 16 * 4),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_product_shows_is_counted_by_hand(name: str) -> None:
    work, expected = OTHERS[name]
    trace = counted(work)
    made = sum(n * f for (kind, _, f, _), n in counted(lambda: None).operations.items() if kind)
    assert trace.uncounted == set()
    # what makes the arguments costs one operation for each element
    assert expected <= trace.flops - made <= expected + 700


def test_a_transform_of_two_sides_takes_the_logarithm_of_all_points() -> None:
    x = torch.ones(2, 16, 16, dtype=torch.cfloat)
    assert counted(lambda: torch.fft.fft2(x)).flops == 5 * 512 * log2(256)


def test_a_recurrent_layer_in_one_operator_is_its_products() -> None:
    x = torch.ones(5, 2, 16)
    layer = nn.LSTM(16, 4)
    products = 2 * 5 * 2 * (4 * 4 * 16 + 4 * 4 * 4)
    with torch.no_grad():
        assert counted(lambda: layer(x)).flops == pytest.approx(products, rel=0.02)
    trained = counted(lambda: layer(x)[0].sum().backward()).flops
    assert trained == pytest.approx(3 * products, rel=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_a_quantized_layer_is_its_product_and_its_packed_weights_are_memory(dtype: Any) -> None:
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    packed = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=dtype)
    trace = counted(lambda: packed(torch.ones(3, 64)))
    assert trace.flops == pytest.approx(2 * 3 * 64 * 32, abs=3 * (64 + 32))
    assert trace.bytes > 64 * 32
    each = 1 if dtype is torch.qint8 else 2
    resident = StepTracer(packed).trace.resident_bytes
    assert 64 * 32 * each <= resident <= 64 * 32 * each * 2.2 + 4 * 32


# --- what has no formula ----------------------------------------------------------------


def test_an_operator_of_torch_without_a_formula_is_named() -> None:
    x = torch.ones(1, 1, 8, 8)
    trace = counted(lambda: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True))
    assert trace.uncounted == {"operator aten::_upsample_bilinear2d_aa"}


def test_an_operator_of_somebody_else_is_named_however_it_is_called() -> None:
    @torch.library.custom_op("bench_tests::add_all", mutates_args=())
    def add_all(x: Tensor) -> Tensor:
        return x @ x @ x

    trace = counted(lambda: add_all(torch.ones(4, 4)))
    assert trace.uncounted == {"operator bench_tests::add_all"}
    assert trace.flops < 2 * 4**3


@pytest.mark.parametrize(
    "work",
    [
        lambda x: F.cross_entropy(F.gelu(x), torch.zeros(len(x)).long()).backward(),
        lambda x: F.layer_norm(x, x.shape[1:]).std().backward(),
        lambda x: F.dropout(x.sort(dim=1)[0].cumsum(0)).sum().backward(),
        lambda x: x[x > 0].unique().flip(0),
        lambda x: torch.zeros(9).scatter_add_(0, x.detach()[0].long(), x.detach()[0]),
    ],
)
def test_what_does_one_operation_for_each_element_has_no_mark(work: Callable[..., Any]) -> None:
    x = torch.rand(5, 7, requires_grad=True)
    assert counted(lambda: work(x)).uncounted == set()


ACTIVATIONS = (
    "ReLU6", "Hardswish", "Hardsigmoid", "SiLU", "ELU", "SELU", "CELU", "LeakyReLU", "ReLU",
    "Hardtanh", "GELU", "Mish", "PReLU", "RReLU", "Softplus", "Softsign", "Softshrink",
    "Hardshrink", "Tanhshrink", "LogSigmoid", "Sigmoid", "Tanh",
)  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_torch_and_its_gradient_has_no_mark(name: str) -> None:
    activation = getattr(torch.nn, name)()
    x = torch.rand(5, 7, requires_grad=True)
    assert counted(lambda: activation(x).sum().backward()).uncounted == set()


@pytest.mark.parametrize("name", ACTIVATIONS[:9])
def test_every_activation_in_place_has_no_mark(name: str) -> None:
    activation = getattr(torch.nn, name)(inplace=True)
    x = torch.rand(5, 7, requires_grad=True)
    assert counted(lambda: activation(x * 1.0).sum().backward()).uncounted == set()
