"""AugMix views of one image: mixtures of chains of small, random changes, all views at a time."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts.data import on_device

from ._losses import at_least_float32

CHAINS, DEPTH, GREY = 3, 3, 128 / 255
OPERATIONS = (
    "rotate", "shear x", "shear y", "translate x", "translate y", "autocontrast", "equalize",
    "solarize", "posterize",
)  # fmt: skip
MOTIONS = OPERATIONS[:5]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Crop = Literal["padded", "resized"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class AugMix(nn.Module):
    """Views of an image (Hendrycks et al., ICLR 2020), as MEMO's authors draw them.

    The image is cropped, and m times the crop is mixed with 1 - m times the sum of three chains of
    one to three operations with weights w; m is of Beta(1, 1) and w of Dirichlet(1, 1, 1). Images
    are brought to [0, 1] by the range of the source's inputs and back. The authors change images
    of whole levels, 0 to 255; here only equalize and posterize round to these.

    ``low``, ``high``: the range; ``crop``: ``padded``, moved by up to an eighth of a side (the
    authors' 4 pixels of CIFAR-10's 32), or ``resized``, a part of 8 to 100 % of the area (theirs
    for ImageNet); ``flip``: half of the crops horizontally; ``severity``: of operations, 1 to 10.
    """

    def __init__(self, low: float, high: float, crop: Crop, flip: bool, severity: int) -> None:
        super().__init__()
        self.low, self.span = low, (high - low) or 1.0
        self.crop, self.flip, self.severity = crop, flip, severity

    @torch.no_grad()
    def forward(self, image: Tensor, views: int, draw: np.random.Generator) -> Tensor:
        """Views (views, channels, height, width) of one image (1, channels, height, width)."""
        unit = ((at_least_float32(image) - self.low) / self.span).clamp(0, 1)
        crops = self._crops(unit, views, draw)
        weights, share = draw.dirichlet([1.0] * CHAINS, views), draw.beta(1.0, 1.0, views)
        chains = self._chains(crops.repeat(CHAINS, 1, 1, 1), draw)
        mixed = _like(share, crops) * crops
        for i, chain in enumerate(chains.split(views)):
            mixed = mixed + _like((1 - share) * weights[:, i], crops) * chain
        return (mixed * self.span + self.low).to(image.dtype)

    def _crops(self, image: Tensor, n: int, draw: np.random.Generator) -> Tensor:
        """Random crops (n, channels, height, width) of one image, black outside of it."""
        height, width = image.shape[2:]
        mirrored = draw.uniform(size=n) < (0.5 if self.flip else 0.0)
        if self.crop == "padded":
            down, right = height // 8, width // 8
            top = draw.integers(0, 2 * down, (n, 1), endpoint=True) + np.arange(height)
            left = draw.integers(0, 2 * right, (n, 1), endpoint=True) + np.arange(width)
            left = np.where(mirrored[:, None], left[:, ::-1], left)
            wide = F.pad(image[0], (right, right, down, down))
            rows, columns = (on_device(torch.from_numpy(p), image.device) for p in (top, left))
            return wide[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
        area, ratio = draw.uniform(0.08, 1.0, n), np.exp(draw.uniform(-1, 1, n) * math.log(4 / 3))
        across, down_ = (np.minimum(np.sqrt(area * r), 1.0) for r in (ratio, 1 / ratio))
        c, f = draw.uniform(0, 1 - across) * width, draw.uniform(0, 1 - down_) * height
        c, across = np.where(mirrored, c + across * width, c), np.where(mirrored, -across, across)
        zero = np.zeros(n)
        how = np.stack([across, zero, c, zero, down_, f], axis=1)
        return moved(image.expand(n, -1, -1, -1), how, 0.0)

    def _chains(self, x: Tensor, draw: np.random.Generator) -> Tensor:
        """Each image changed by one to three operations in turn, in place."""
        n = len(x)
        depth = draw.integers(1, DEPTH, n, endpoint=True)
        for step in range(DEPTH):
            kind = draw.integers(0, len(OPERATIONS), n)
            level = draw.uniform(0.1, self.severity, n) / 10
            sign = np.where(draw.uniform(size=n) > 0.5, -1.0, 1.0)
            goes_on = depth > step
            how = _motions(kind, level, sign, *x.shape[2:])
            moves = goes_on & (how != IDENTITY).any(axis=1)  # many are by no whole pixel
            if moves.any():
                chosen = _places(moves, x)
                x.index_copy_(0, chosen, moved(x[chosen], how[moves], GREY))
            for number, name in enumerate(OPERATIONS[len(MOTIONS) :], start=len(MOTIONS)):
                of_kind = goes_on & (kind == number)
                if of_kind.any():
                    chosen = _places(of_kind, x)
                    x.index_copy_(0, chosen, _recoloured(name, x[chosen], level[of_kind]))
        return x


def moved(x: Tensor, coefficients: Floats, fill: float) -> Tensor:
    """Images (n, channels, height, width), each seen through an affine map of its own.

    The point (p, q), in pixels from the upper left corner, shows (a p + b q + c, d p + e q + f) of
    the image, bilinearly, and ``fill`` outside of it; ``coefficients``: (n, 6), a to f.
    """
    height, width = x.shape[2:]
    a, b, c, d, e, f = coefficients.T
    b, d = b * height / width, d * width / height
    rows = [[a, b, a + b + 2 * c / width - 1], [d, e, d + e + 2 * f / height - 1]]
    maps = np.stack([np.stack(row, axis=1) for row in rows], axis=1)
    theta = on_device(torch.from_numpy(maps), x.device).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x - fill, grid, align_corners=False) + fill


def _motions(kind: Integers, level: Floats, sign: Floats, height: int, width: int) -> Floats:
    """Coefficients of operations of these kinds; degrees and pixels are whole numbers."""
    found = np.tile(IDENTITY, (len(kind), 1))
    angle = -np.radians(sign * np.floor(30 * level))
    cosine, sine = np.cos(angle), np.sin(angle)
    across, down = width / 2, height / 2
    turned = [
        cosine, sine, across - cosine * across - sine * down,
        -sine, cosine, down + sine * across - cosine * down,
    ]  # fmt: skip
    name = np.array(OPERATIONS)[kind]
    found[name == "rotate"] = np.stack(turned, axis=1)[name == "rotate"]
    steps = {
        "shear x": (1, 0.3 * level),
        "shear y": (3, 0.3 * level),
        "translate x": (2, np.floor(width / 3 * level)),
        "translate y": (5, np.floor(height / 3 * level)),
    }
    for motion, (place, size) in steps.items():
        found[name == motion, place] = (sign * size)[name == motion]
    return found


def _recoloured(name: str, x: Tensor, level: Floats) -> Tensor:
    """Images in [0, 1] after an operation on their values."""
    from torchvision.transforms.v2 import functional as images

    if name == "autocontrast":
        changed: Tensor = images.autocontrast(x)
        return changed
    if name == "equalize":
        changed = images.equalize(x)
        return changed
    if name == "solarize":
        threshold = _like((256 - np.floor(256 * level)) / 255, x)
        return torch.where(x < threshold, x, 1 - x)
    width = _like(2.0 ** (4 + np.floor(4 * level)), x)  # of a step, in levels
    return (255 * x / width).floor() * width / 255


def _like(values: Floats, x: Tensor) -> Tensor:
    """One value for each image, to be combined with images ``x``."""
    return on_device(torch.from_numpy(values), x.device).to(x.dtype).reshape(-1, 1, 1, 1)


def _places(chosen: NDArray[np.bool_], x: Tensor) -> Tensor:
    return on_device(torch.from_numpy(chosen.nonzero()[0]), x.device)
