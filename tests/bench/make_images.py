"""Write a folder of many JPEGs: two domains, ten classes, each image different from all others.

    python make_images.py /tmp/many --images 50000 --size 224

makes the data of which docs/how-to/own-data.md says how much memory a run takes. Files that are
there are left as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def make(root: Path, images: int, size: int) -> None:
    """Half of the images in ``root/plain``, half, darker, in ``root/dark``."""
    for d, domain in enumerate(("plain", "dark")):
        for c in range(CLASSES):
            (root / domain / f"class{c}").mkdir(parents=True, exist_ok=True)
        for i in range(images // 2):
            file = root / domain / f"class{i % CLASSES}" / f"{i:06}.jpg"
            if not file.exists():
                picture(i % CLASSES, d, i, size).save(file, quality=85)


def picture(of_class: int, domain: int, number: int, size: int) -> Image.Image:
    """Coarse colored patches that depend on the class, with noise of the image's own."""
    pattern = np.random.default_rng(of_class).integers(60, 196, (7, 7, 3))
    noise = np.random.default_rng((domain, number)).normal(0, 25, (7, 7, 3))
    pixels = (pattern + noise).clip(0, 255) * (0.6 if domain else 1.0)
    return Image.fromarray(pixels.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    make(given.root, given.images, given.size)
