"""Operations of decompositions, transforms, distances and resampling: what no product shows.

Sources: G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., 2013 ("GVL", by section), for
dense linear algebra; M. Frigo and S. G. Johnson, The Design and Implementation of FFTW3, Proc. IEEE
93(2), 2005 for transforms; A. Graves et al., Connectionist Temporal Classification, ICML 2006;
N. J. Higham, Functions of Matrices, SIAM 2008, for the exponential. Where an algorithm iterates
(eigenvalues, singular values) these are the flop counts that GVL states for the usual number of
iterations. Lower orders are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2, prod
from typing import Any

from torch import Tensor

Named = Mapping[str, Any]
Formula = Callable[[Named, Any], float]


def _matrices(x: Tensor) -> tuple[float, int, int]:
    """How many matrices a tensor holds, and their longer and shorter side."""
    rows, columns = x.shape[-2:]
    return float(prod(x.shape[:-2])), max(rows, columns), min(rows, columns)


def _cubic(share: float, name: str = "A") -> Formula:
    """``share`` n³ for each square matrix."""

    def formula(n: Named, _: Any) -> float:
        number, _long, short = _matrices(n[name])
        return number * share * short**3

    return formula


def _eigh(n: Named, _: Any) -> float:
    """Symmetric QR algorithm, GVL 8.3: 9 n³, eigenvalues alone 4/3 n³."""
    return _cubic(9.0 if n["compute_v"] else 4 / 3)(n, _)


def _svd(n: Named, _: Any) -> float:
    """Golub-Reinsch, GVL 8.6: values alone; with the thin factors; with square ones."""
    number, m, k = _matrices(n["A"])
    if not n["compute_uv"]:
        return number * (4 * m * k**2 - 4 / 3 * k**3)
    if n["full_matrices"]:
        return number * (4 * m**2 * k + 8 * m * k**2 + 9 * k**3)
    return number * (14 * m * k**2 + 8 * k**3)


def _pinv(n: Named, _: Any) -> float:
    """Thin singular vectors (eigenvectors if hermitian), and a product of theirs."""
    number, m, k = _matrices(n["self"])
    factors = 9 * k**3 if n["hermitian"] else 14 * m * k**2 + 8 * k**3
    return number * (factors + 2 * m * k**2)


def _qr(n: Named, _: Any) -> float:
    """Householder, GVL 5.2: R, and Q formed explicitly in the modes that give it."""
    rows, columns = n["A"].shape[-2:]
    number, short = float(prod(n["A"].shape[:-2])), min(rows, columns)
    r = _factor_r(rows, columns)
    if n["mode"] == "r":
        return number * r
    wanted = rows if n["mode"] == "complete" else short
    return number * (r + _form_q(rows, wanted, short))


def _factor_r(m: int, n: int) -> float:
    """2 n² (m - n/3), and the same of the transposed sides where the matrix is wide."""
    k = min(m, n)
    return 2 * k**2 * (m - k / 3) + 2 * m * k * max(n - k, 0)


def _form_q(m: int, columns: int, reflections: int) -> float:
    """4 m q r - 2 (m + q) r² + 4/3 r³, GVL 5.1.6 by backward accumulation."""
    r = reflections
    return 4 * m * columns * r - 2 * (m + columns) * r**2 + 4 / 3 * r**3


def _lu(name: str) -> Formula:
    """Gaussian elimination with partial pivoting, GVL 3.4; m n² - n³/3 for the shorter side n."""

    def formula(n: Named, _: Any) -> float:
        number, m, k = _matrices(n[name])
        return number * (m * k**2 - k**3 / 3)

    return formula


def _solve(factor: float, matrix: str, right: str, per_entry: float = 2.0) -> Formula:
    """``factor`` n³ to factor, and ``per_entry`` n for each right-hand entry to substitute."""

    def formula(n: Named, out: Any) -> float:
        number, _long, size = _matrices(n[matrix])
        return number * factor * size**3 + per_entry * size * n[right].numel()

    return formula


def _lstsq(n: Named, _: Any) -> float:
    """Householder least squares (GVL 5.3), or the SVD in the drivers that use it; GVL 5.5."""
    number, m, k = _matrices(n["self"])
    driver = n["driver"] or "gelsy"
    factors = 4 * m * k**2 + 8 * k**3 if driver in ("gelss", "gelsd") else 2 * k**2 * (m - k / 3)
    return number * factors + 4.0 * k * n["b"].numel()


def _ormqr(n: Named, _: Any) -> float:
    """Reflections applied one after the other: 4 for each entry that they reach, GVL 5.1.4."""
    return 4.0 * n["input2"].shape[-1] * n["input3"].numel()


def _householder(n: Named, _: Any) -> float:
    rows, columns = n["input"].shape[-2:]
    number = float(prod(n["input"].shape[:-2]))
    return number * _form_q(rows, columns, n["tau"].shape[-1])


def _exponential(n: Named, _: Any) -> float:
    """Scaling and squaring (Higham, ch. 10): 5 products for the largest degree, and the squarings.

    What torch takes: the Taylor polynomial of degree 18 up to a 1-norm of 1.09 for each half.
    """
    number, _long, size = _matrices(n["self"])
    norm = 0.0
    if n["self"].numel() and type(n["self"]).__name__ != "FakeTensor":
        norm = float(n["self"].detach().abs().sum(-2).max())
    squarings = max(ceil(log2(norm / 1.09)), 0) if norm > 0 else 0
    return number * 2.0 * size**3 * (5 + squarings)


# --- transforms ----------------------------------------------------------------------------


def _fft(is_real: bool, of_output: bool = False) -> Formula:
    """5 N log2 N of a complex transform of N points (Frigo & Johnson), half of it of a real one."""

    def formula(n: Named, out: Any) -> float:
        x = out if of_output else n["self"]
        points = prod(x.shape[d] for d in n["dim"])
        return (2.5 if is_real else 5.0) * x.numel() * log2(max(points, 2))

    return formula


# --- distances and products of three ----------------------------------------------------------


def _cdist(n: Named, out: Any) -> float:
    """Difference, power and sum for each pair and coordinate."""
    return 3.0 * out.numel() * n["x1"].shape[-1]


def _cdist_backward(n: Named, _: Any) -> float:
    """The gradient of one input: difference, power, product and sum for each pair."""
    return 4.0 * n["cdist"].numel() * n["x1"].shape[-1]


def _euclidean(n: Named, out: Any) -> float:
    """One product of matrices, to which the squares of both are appended."""
    return 2.0 * out.numel() * (n["x1"].shape[-1] + 2)


def _pdist(n: Named, out: Any) -> float:
    return 3.0 * out.numel() * n["self"].shape[-1]


def _pdist_backward(n: Named, _: Any) -> float:
    return 4.0 * n["pdist"].numel() * n["self"].shape[-1]


def _trilinear(n: Named, _: Any) -> float:
    """A multiply-add for each place of the three broadcast tensors, as in a bilinear layer."""
    shapes = []
    for i in (1, 2, 3):
        shape = list(n[f"i{i}"].shape)
        for place in sorted(n[f"expand{i}"]):
            shape.insert(place, 1)
        shapes.append(shape)
    return 2.0 * prod(max(sides) for sides in zip(*shapes, strict=True))


# --- windows: pooling, resampling, bags ----------------------------------------------------------


def _pool(dimensions: int, of: str = "") -> Formula:
    """One operation for each entry of each window."""

    def formula(n: Named, out: Any) -> float:
        values = n[of] if of else out[0] if isinstance(out, tuple) else out
        side: Sequence[int] = n["kernel_size"]
        area = prod(side) if len(side) > 1 else side[0] ** dimensions
        return float(values.numel() * area)

    return formula


def _each_input(name: str = "self") -> Formula:
    return lambda n, _: float(n[name].numel())


def _resample(taps: int, of: str = "") -> Formula:
    """A multiply-add for each of the ``taps`` inputs of an output."""
    return lambda n, out: 2.0 * taps * (n[of] if of else out).numel()


_GRID_TAPS = {0: (2, 2), 1: (1, 1), 2: (4, 4)}
"""Inputs along one side for bilinear, nearest and bicubic sampling."""


def _grid(dimensions: int, backward: bool = False) -> Formula:
    """A multiply-add for each tap of an output; once more for each gradient that is made."""

    def formula(n: Named, out: Any) -> float:
        taps = _GRID_TAPS[n["interpolation_mode"]][0] ** dimensions
        places = n["grad_output"].numel() if backward else out.numel()
        times = 1 + sum(map(bool, n["output_mask"])) if backward else 1
        return 2.0 * taps * places * times

    return formula


def _bag(n: Named, out: Any) -> float:
    """A sum of the looked-up rows, weighted where weights are given."""
    each = 2.0 if n["per_sample_weights"] is not None else 1.0
    return each * n["indices"].numel() * n["weight"].shape[-1]


def _bag_backward(n: Named, _: Any) -> float:
    each = 2.0 if n["per_sample_weights"] is not None else 1.0
    return each * n["indices"].numel() * n["grad"].shape[-1]


# --- sequences -----------------------------------------------------------------------------------


def _ctc(passes: int) -> Formula:
    """Graves et al., eq. (6): two sums and a product for each place and state, 2 L + 1 of them."""

    def formula(n: Named, _: Any) -> float:
        places, batch = n["log_probs"].shape[0], n["log_probs"].shape[1:-1].numel()
        targets = n["targets"]
        longest = targets.shape[1] if targets.ndim > 1 else targets.shape[0] / max(batch, 1)
        classes = n["log_probs"].shape[-1] if passes > 1 else 0
        return places * batch * (3.0 * (2 * longest + 1) * passes + classes)

    return formula


FORMULAS: dict[str, Formula] = {
    "_linalg_eigh": _eigh,
    "linalg_eig": _cubic(25.0, "self"),  # GVL 7.5, with the vectors
    "_linalg_eigvals": _cubic(10.0, "self"),
    "_linalg_svd": _svd,
    "linalg_pinv": _pinv,
    "linalg_inv_ex": _cubic(2.0),
    "linalg_qr": _qr,
    "geqrf": lambda n, _: prod(n["self"].shape[:-2]) * _factor_r(*n["self"].shape[-2:]),
    "ormqr": _ormqr,
    "linalg_householder_product": _householder,
    "linalg_lu": _lu("A"),
    "linalg_lu_factor_ex": _lu("A"),
    "_linalg_det": _lu("A"),
    "_linalg_slogdet": _lu("A"),
    "linalg_cholesky_ex": _cubic(1 / 3, "self"),  # GVL 4.2
    "cholesky": _cubic(1 / 3, "self"),
    "cholesky_inverse": _cubic(2 / 3, "self"),
    "linalg_ldl_factor_ex": _cubic(1 / 3, "self"),  # GVL 4.4
    "_linalg_solve_ex": _solve(2 / 3, "A", "B"),  # GVL 3.4 and 3.1
    "linalg_lu_solve": _solve(0.0, "LU", "B"),
    "cholesky_solve": _solve(0.0, "input2", "self"),
    "_cholesky_solve_helper": _solve(0.0, "A", "self"),
    "linalg_ldl_solve": _solve(0.0, "LD", "B"),
    "linalg_solve_triangular": _solve(0.0, "self", "B", 1.0),
    "triangular_solve": _solve(0.0, "A", "self", 1.0),
    "linalg_lstsq": _lstsq,
    "linalg_matrix_exp": _exponential,
    "linalg_cross": lambda n, out: 3.0 * out.numel(),
    "_fft_r2c": _fft(is_real=True),
    "_fft_c2c": _fft(is_real=False),
    "_fft_c2r": _fft(is_real=True, of_output=True),
    "_cdist_forward": _cdist,
    "_cdist_backward": _cdist_backward,
    "_euclidean_dist": _euclidean,
    "_pdist_forward": _pdist,
    "_pdist_backward": _pdist_backward,
    "_trilinear": _trilinear,
    "max_pool2d_with_indices": _pool(2),
    "max_pool3d_with_indices": _pool(3),
    "avg_pool2d": _pool(2),
    "avg_pool3d": _pool(3),
    "avg_pool2d_backward": _pool(2, "grad_output"),
    "avg_pool3d_backward": _pool(3, "grad_output"),
    "max_pool2d_with_indices_backward": _each_input("grad_output"),
    "_adaptive_avg_pool2d": _each_input(),
    "adaptive_max_pool2d": _each_input(),
    "upsample_linear1d": _resample(2),
    "upsample_bilinear2d": _resample(4),
    "upsample_bicubic2d": _resample(16),
    "upsample_trilinear3d": _resample(8),
    "upsample_linear1d_backward": _resample(2, "grad_output"),
    "upsample_bilinear2d_backward": _resample(4, "grad_output"),
    "upsample_bicubic2d_backward": _resample(16, "grad_output"),
    "upsample_trilinear3d_backward": _resample(8, "grad_output"),
    "grid_sampler_2d": _grid(2),
    "grid_sampler_3d": _grid(3),
    "grid_sampler_2d_backward": _grid(2, backward=True),
    "grid_sampler_3d_backward": _grid(3, backward=True),
    "_embedding_bag": _bag,
    "_embedding_bag_forward_only": _bag,
    "_embedding_bag_backward": _bag_backward,
    "_embedding_bag_dense_backward": _bag_backward,
    "_ctc_loss": _ctc(1),
    "_ctc_loss_backward": _ctc(2),
    "col2im": _each_input(),
}
