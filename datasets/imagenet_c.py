"""The corruptions of ImageNet-C at five severities, by the library imagecorruptions.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019: 15 that are reported, and 4 that they held out for tuning. The library is
that of Michaelis et al. (2019) in its maintained edition, ``imagecorruptions-imaug``, which makes
them of images of any size from 32 pixels on; it is an optional extra of this project.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import BenchError
from bench.contracts.dataset import Part

FAMILY = "imagenet-c"
ALL_FAMILY = "imagenet-c-19"
"""All 19 in the test's streams, as EdgeTA has them; those that methods are tuned on are others."""

LEAST_PIXELS = 32
SEVERITIES = (1, 2, 3, 4, 5)

KINDS: dict[Part, tuple[str, ...]] = {
    "test": (
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur",
        "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast",
        "elastic_transform", "pixelate", "jpeg_compression",
    ),
    "validation": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}  # fmt: skip
"""The corruptions of each part, in the order of the paper: none is in both."""

MOVE_THINGS = {"elastic_transform"}
"""What moves things in an image: labels of its pixels would be wrong."""

_SEEDED = {"glass_blur", "impulse_noise"}
"""Those that draw from a seed of their own, and not from numpy's global generator."""


def names(part: Part, dense: bool) -> list[str]:
    """All of a part as ``fog-3``, severity by severity; ``dense``: that leave things in place."""
    kinds = [kind for kind in KINDS[part] if not (dense and kind in MOVE_THINGS)]
    return [f"{kind}-{severity}" for severity in SEVERITIES for kind in kinds]


def all_names() -> list[str]:
    """All 19 as ``fog-3``, severity by severity."""
    return [f"{kind}-{severity}" for severity in SEVERITIES for of in KINDS.values() for kind in of]


def is_known(name: str) -> bool:
    """Whether a corruption such as ``fog-3`` is one of them."""
    return any(name.rpartition("-")[0] in of for of in KINDS.values())


def is_like_one(name: str) -> bool:
    """Whether a corruption that this project has of its own is of a kind that is one of them."""
    kind = name.rpartition("-")[0]
    return any(each.startswith(kind) for of in KINDS.values() for each in of)


def require(shape: tuple[int, ...]) -> None:
    """BenchError, with the cure, where the library is missing or images of a shape are too small.

    ``shape``: of an image, (channels, height, width).
    """
    if find_spec("imagecorruptions") is None:
        raise BenchError(
            f"corruptions of {FAMILY} need the library imagecorruptions: "
            "pip install imagecorruptions-imaug"
        )
    if min(shape[1:]) < LEAST_PIXELS:
        raise BenchError(
            f"corruptions of {FAMILY} are for images of {LEAST_PIXELS} x {LEAST_PIXELS} pixels or "
            f"more, and these have {shape[1]} x {shape[2]}: set size to {LEAST_PIXELS} or more"
        )


def corrupt(name: str, image: Tensor, seed: int) -> Tensor:
    """An image under a corruption such as ``fog-3``.

    ``image``: float32 of shape (1 or 3, height, width) in [0, 1], rounded to 256 levels as files
    have them. Equal for equal seeds, from 0 to 2^32 - 1; numpy's global generator is as before.
    """
    from imagecorruptions import corrupt as library

    kind, _, severity = name.rpartition("-")
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    seeded: dict[str, Any] = {"seed": seed} if kind in _SEEDED else {}
    before = np.random.get_state()
    try:
        np.random.seed(seed)
        made = library(np.ascontiguousarray(pixels), int(severity), kind, **seeded)
    finally:
        np.random.set_state(before)
    changed = torch.from_numpy(np.array(made)).permute(2, 0, 1).float() / 255
    return changed.mean(0, keepdim=True) if len(image) == 1 else changed
