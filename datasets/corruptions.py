"""Image shifts: each turns clean images into those of one target domain.

Images are float32 of shape (n, 1, height, width) in [0, 1]. What severity 1 (moderate) and 2
(strong) mean in a shift's own unit stands in `SEVERITIES` and, for the shifts that methods are
tuned on, in `VALIDATION_SEVERITIES`. The corruptions follow the families of Hendrycks & Dietterich
(ICLR 2019) scaled to small grey images; the geometric ones are the classical rotated and translated
digits (Ghifary et al., ICCV 2015). torchvision is slow to import, so it is imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Shift = Callable[[Tensor, float, torch.Generator], Tensor]

SEVERITIES: dict[str, tuple[str, float, float]] = {
    # name: (unit, severity 1, severity 2)
    "rotation": ("degrees, anticlockwise", 15.0, 25.0),
    "noise": ("standard deviation of added Gaussian noise", 0.15, 0.25),
    "blur": ("standard deviation of the Gaussian kernel, pixels", 2.5, 3.5),
    "contrast": ("factor on the distance to the mean grey", 0.6, 0.4),
    "brightness": ("grey added", 0.12, 0.22),
    "inversion": ("share of the way to the negative image", 0.1, 0.2),
    "occlusion": ("side of the erased square, pixels", 9.0, 12.0),
    "scale": ("factor on the size", 0.85, 0.7),
    "shear": ("degrees, horizontal", 15.0, 25.0),
    "translation": ("pixels, along a random diagonal", 2.0, 3.0),
    "salt-pepper": ("share of pixels set to black or white", 0.06, 0.12),
    "stripes": ("amplitude of a sinusoidal grating", 0.15, 0.3),
}
"""The unit and the two severities of every shift of a test stream."""

VALIDATION_SEVERITIES: dict[str, tuple[str, float, float]] = {
    "perspective": ("share by which the upper edge is narrowed", 0.3, 0.42),
    "gamma": ("exponent of the grey values", 2.5, 4.0),
    "pixelate": ("blocks of one grey, a side", 6.0, 4.0),
    "speckle": ("standard deviation of the Gaussian factor (mean 1) on a pixel", 2.0, 4.0),
    "dilation": ("side of the square whose brightest grey a pixel takes, pixels", 4.0, 6.0),
    "illumination": ("grey gained at one edge and lost at the opposite, any direction", 0.3, 0.6),
}
"""The same for validation streams: no kind of shift that a test stream has."""


def apply_shift(name: str, images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Apply shift ``name`` at severity 1 or 2.

    Every random draw is from ``generator``. Returns images of the same shape, clamped to [0, 1].
    Raises KeyError if there is no such shift; ValueError if the severity is not 1 or 2.
    """
    if severity not in (1, 2):
        raise ValueError(f"severity {severity!r} of shift {name!r}: use 1 or 2")
    _, moderate, strong = (SEVERITIES | VALIDATION_SEVERITIES)[name]
    amount = moderate if severity == 1 else strong
    return _SHIFTS[name](images, amount, generator).clamp_(0.0, 1.0)


def _affine(images: Tensor, angle: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    bilinear = InterpolationMode.BILINEAR
    return F.affine(images, angle, [0, 0], scale, [shear, 0.0], interpolation=bilinear)


def _blur(images: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    size = 2 * round(2 * sigma) + 1
    return F.gaussian_blur(images, kernel_size=[size, size], sigma=[sigma, sigma])


def _contrast(images: Tensor, factor: float, _: torch.Generator) -> Tensor:
    mean = images.mean(dim=(-3, -2, -1), keepdim=True)
    return mean + factor * (images - mean)


def _occlusion(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    size, (height, width) = int(side), images.shape[-2:]
    top = torch.randint(0, height - size + 1, (len(images), 1, 1, 1), generator=generator)
    left = torch.randint(0, width - size + 1, (len(images), 1, 1, 1), generator=generator)
    rows = torch.arange(height).view(1, 1, height, 1)
    columns = torch.arange(width).view(1, 1, 1, width)
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return images.masked_fill(inside, 0.0)


def _translation(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    step = int(pixels)
    signs = torch.randint(0, 2, (len(images), 2), generator=generator) * 2 - 1
    moved = torch.empty_like(images)
    for vertical in (-1, 1):
        for horizontal in (-1, 1):
            chosen = (signs == torch.tensor([vertical, horizontal])).all(dim=1)
            moved[chosen] = _roll_with_zeros(images[chosen], step * vertical, step * horizontal)
    return moved


def _roll_with_zeros(images: Tensor, down: int, right: int) -> Tensor:
    height, width = images.shape[-2:]
    margins = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = torch.nn.functional.pad(images, margins)
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def _salt_pepper(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(images.shape, generator=generator)
    out = images.masked_fill(draw < share / 2, 0.0)
    return out.masked_fill(draw > 1.0 - share / 2, 1.0)


def _stripes(images: Tensor, amplitude: float, generator: torch.Generator) -> Tensor:
    phase = 2 * torch.pi * torch.rand((len(images), 1, 1, 1), generator=generator)
    columns = torch.arange(images.shape[-1]).view(1, 1, 1, -1)
    return images + amplitude * torch.sin(2 * torch.pi * columns / 8.0 + phase)


def _perspective(images: Tensor, share: float, _: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    height, width = images.shape[-2:]
    right, bottom = width - 1.0, height - 1.0
    inset = share / 2 * right
    lower = [[right, bottom], [0.0, bottom]]
    before = [[0.0, 0.0], [right, 0.0], *lower]
    after = [[inset, 0.0], [right - inset, 0.0], *lower]
    return F.perspective(images, startpoints=before, endpoints=after)


def _pixelate(images: Tensor, blocks: float, _: torch.Generator) -> Tensor:
    coarse = torch.nn.functional.adaptive_avg_pool2d(images, int(blocks))
    return torch.nn.functional.interpolate(coarse, size=images.shape[-2:], mode="nearest")


def _dilation(images: Tensor, side: float, _: torch.Generator) -> Tensor:
    after = int(side) // 2
    before = int(side) - 1 - after
    padded = torch.nn.functional.pad(images, (before, after, before, after))
    return torch.nn.functional.max_pool2d(padded, int(side), stride=1)


def _illumination(images: Tensor, amplitude: float, generator: torch.Generator) -> Tensor:
    height, width = images.shape[-2:]
    angle = 2 * math.pi * torch.rand((len(images), 1, 1, 1), generator=generator)
    across = torch.linspace(-1.0, 1.0, width).view(1, 1, 1, width)
    down = torch.linspace(-1.0, 1.0, height).view(1, 1, height, 1)
    return images + amplitude * (torch.cos(angle) * across + torch.sin(angle) * down)


_SHIFTS: dict[str, Shift] = {
    "rotation": lambda images, degrees, _: _affine(images, angle=-degrees),
    "noise": lambda images, std, g: images + std * torch.randn(images.shape, generator=g),
    "blur": _blur,
    "contrast": _contrast,
    "brightness": lambda images, amount, _: images + amount,
    "inversion": lambda images, share, _: (1.0 - share) * images + share * (1.0 - images),
    "occlusion": _occlusion,
    "scale": lambda images, factor, _: _affine(images, scale=factor),
    "shear": lambda images, degrees, _: _affine(images, shear=degrees),
    "translation": _translation,
    "salt-pepper": _salt_pepper,
    "stripes": _stripes,
    "perspective": _perspective,
    "gamma": lambda images, exponent, _: images**exponent,
    "pixelate": _pixelate,
    "speckle": lambda images, std, g: images * (1.0 + std * torch.randn(images.shape, generator=g)),
    "dilation": _dilation,
    "illumination": _illumination,
}
