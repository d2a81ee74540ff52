"""Images in files, decoded when a batch needs them, as they are or corrupted."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pydantic
import torch
from torch import Tensor

from bench import BenchError, DataSet, LazyInputs, Split
from bench.contracts.data import Inputs, SampleType
from bench.contracts.dataset import Part
from bench.io.digest import digest, file_digest
from bench.io.folder_files import LARGEST_READ

from . import imagenet_c
from .corruptions import SEVERITIES, VALIDATION_SEVERITIES, apply_shift

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
"""Endings of the names of image files."""

CACHED_BYTES = 256 * 2**20
"""Decoded images that a process keeps, at most."""

GEOMETRIC = {"rotation", "occlusion", "scale", "shear", "translation", "perspective", "dilation"}
"""Corruptions that move or hide what an image shows: labels of its pixels would be wrong."""


IMAGES, ONE = "images", "all"
"""The folder of a domain's images, and the name of the domain where there is only one."""


def image_folders(root: Path, layout: str) -> dict[str, Path]:
    """The folders that hold a folder of images, by domain: the root itself, or those in it.

    BenchError, saying that ``layout`` is read, if there are none.
    """
    if (root / IMAGES).is_dir():
        return {ONE: root}
    found = sorted(each for each in root.iterdir() if (each / IMAGES).is_dir())
    if not found:
        raise BenchError(
            f"root {root} has no folder {IMAGES!r} and none in its folders: this layout is {layout}"
        )
    return {each.name: each for each in found}


def _both(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


Pixels = Annotated[int, pydantic.Field(ge=8, le=2048)]
Size = Annotated[tuple[Pixels, Pixels], pydantic.BeforeValidator(_both)]
"""Height and width in pixels, or one number for both."""


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


Crop = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the last two are outside."""


def decode(file: Any, size: tuple[int, int], place: Any = None, crop: Crop | None = None) -> Tensor:
    """An image file, or a stream of its bytes, as uint8 of shape (3, height, width).

    It, or a part of it, is resized to ``size`` (height, width), whatever its shape, bilinearly and
    smoothed. Raises BenchError, naming ``place``, by default the file, if it cannot be read.
    """
    from PIL import Image

    with _opened(file, place or file) as image:
        part = image.convert("RGB")
        part = part.crop(crop) if crop else part
        resized = part.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def decode_mask(file: Path, size: tuple[int, int]) -> tuple[set[int], Tensor]:
    """The class numbers in a mask file, and the mask as int64 of shape (height, width).

    It is resized to the nearest pixels. Raises BenchError if it is a color image.
    """
    mask = read_mask(file, "or name its colors in colors.csv")
    return set(np.unique(mask).tolist()), nearest(mask, size).long()


def read_mask(file: Path, cure: str = "or fetch it anew") -> np.ndarray:
    """The numbers of a mask's pixels: gray values or places in a palette, uint8 (height, width).

    BenchError, with a further ``cure``, if it is a color image.
    """
    with _opened(file) as image:
        if image.mode not in ("L", "P"):
            raise BenchError(
                f"{file}: is an image of mode {image.mode}, and a mask has one class number a "
                f"pixel: save it as gray values or with a palette, {cure}"
            )
        return np.array(image)


def nearest(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A mask of uint8 resized to ``size`` (height, width) by the nearest pixels: no new numbers."""
    from PIL import Image

    resized = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized))


def read_gray(file: Path) -> np.ndarray:
    """An image's gray values, uint8 (height, width), whatever its mode."""
    with _opened(file) as image:
        return np.array(image.convert("L"))


def decode_colors(
    file: Path, size: tuple[int, int], numbers: Mapping[tuple[int, int, int], int]
) -> Tensor:
    """A mask of colors as int64 of shape (height, width): the number of each pixel's color.

    It is resized to the nearest pixels. Raises BenchError for a color that has no number.
    """
    from PIL import Image

    with _opened(file) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise BenchError(
                f"{file}: is an image of mode {image.mode}, and colors.csv names colors: save the "
                "mask in color, or remove colors.csv"
            )
        colors = image.convert("RGB")
        pixels = np.array(colors).reshape(-1, 3).astype(np.int64) @ (65536, 256, 1)
        codes = {(r << 16) + (g << 8) + b: n for (r, g, b), n in numbers.items()}
        for code in np.unique(pixels).tolist():
            if code not in codes:
                color = (code >> 16, code >> 8 & 255, code & 255)
                raise BenchError(
                    f"{file}: has the color {color}, which colors.csv does not name: add it there, "
                    "or correct the mask (save masks as PNG: JPEG changes colors)"
                )
        known = np.array(sorted(codes))
        resized = np.array(colors.resize((size[1], size[0]), Image.Resampling.NEAREST))
        places = np.searchsorted(known, resized.astype(np.int64) @ (65536, 256, 1))
        return torch.from_numpy(np.array([codes[code] for code in known.tolist()])[places])


def image_size(file: Path) -> tuple[int, int]:
    """Height and width in pixels of an image file, by its head."""
    with _opened(file) as image:
        return image.height, image.width


@contextmanager
def _opened(file: Any, place: Any = None) -> Iterator[Any]:
    """An image file; BenchError, naming ``place``, if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchError(
            f"{place or file}: cannot be read as an image ({error}): replace or remove it"
        ) from error


FilePart = tuple[Path, Crop | None]
"""An image file, and the part of it that is meant; None for all."""


class _Cache:
    """The images that were decoded last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._images: OrderedDict[Any, Tensor] = OrderedDict()

    def images(self, parts: Sequence[FilePart], size: tuple[int, int]) -> list[Tensor]:
        """The images of files, decoded where they are not held or the file was changed."""
        keys = [(part, size, _written(part[0])) for part in parts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._images]
        for key, image in zip(missing, decoded([key[0] for key in missing], size), strict=True):
            self._images[key] = image
            self.held += image.nbytes
        found = [self._images[key] for key in keys]
        for key in keys:
            self._images.move_to_end(key)
        while self.held > self.limit:
            self.held -= self._images.popitem(last=False)[1].nbytes
        return found


def decoded(parts: Sequence[FilePart], size: tuple[int, int]) -> list[Tensor]:
    """Image files, by as many threads as torch computes with; BenchError names the first wrong one.

    They end with the batch: what follows is timed alone.
    """

    def read(part: FilePart) -> Tensor:
        return decode(part[0], size, crop=part[1]).contiguous()

    threads = min(torch.get_num_threads(), len(parts))
    if threads < 2:
        return list(map(read, parts))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, parts))


def _written(file: Path) -> tuple[int, int]:
    """When a file was written, and its bytes; zeros if it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


_cache = _Cache(CACHED_BYTES)


class ImageFiles(LazyInputs):
    """The images of ``files`` as float32 of shape (n, 3, height, width) in [0, 1].

    ``crops``: the part of each that is meant, int tensor of shape (n, 4), see `Crop`. Parts of one
    file have the name of the file: they stay on one side of a division.
    """

    def __init__(
        self, files: Sequence[Path], size: tuple[int, int], crops: Tensor | None = None
    ) -> None:
        super().__init__(torch.arange(len(files)))
        self._files, self._size, self._crops = files, size, crops
        self._names: list[str] = []

    def read(self, positions: Tensor) -> Inputs:
        images = _cache.images([self._part(i) for i in positions.tolist()], self._size)
        return torch.stack(images).float() / 255

    def _part(self, position: int) -> FilePart:
        if self._crops is None:
            return self._files[position], None
        left, upper, right, lower = self._crops[position].tolist()
        return self._files[position], (left, upper, right, lower)

    def names(self, positions: Tensor) -> list[str]:
        """Digests of the files; where they have over 1 GB, of their places and sizes."""
        if not self._names:
            sizes = {file: file.stat().st_size for file in dict.fromkeys(self._files)}
            few = sum(sizes.values()) <= LARGEST_READ
            found = {
                file: file_digest(file) if few else digest([*file.parts[-3:], size])
                for file, size in sizes.items()
            }
            self._names += [found[file] for file in self._files]
        return [self._names[i] for i in positions.tolist()]

    def settings(self) -> Any:
        return None if self._crops is None else self._crops[self.positions].tolist()

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((3, *self._size), torch.float32)}


class CorruptedImages(LazyInputs):
    """Images, alone or as ``image`` among other inputs, under a corruption such as ``blur-2``.

    An image's random draws are made from ``key`` and its position: they are the same in any batch.
    """

    def __init__(self, images: LazyInputs, corruption: str, key: str) -> None:
        super().__init__(images.positions)
        self._images, self._corruption, self._key = images, corruption, key

    def read(self, positions: Tensor) -> Inputs:
        x = self._images.read(positions)
        if isinstance(x, dict):
            return {**x, "image": self._changed(x["image"], positions)}
        return self._changed(x, positions)

    def _changed(self, images: Tensor, positions: Tensor) -> Tensor:
        changed = []
        for image, position in zip(images, positions.tolist(), strict=True):
            seed = zlib.crc32(f"{self._key}/{position}".encode())
            changed.append(corrupted_image(image, self._corruption, seed))
        return torch.stack(changed)

    def names(self, positions: Tensor) -> list[str]:
        return self._images.names(positions)

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return self._images.sample_types

    def settings(self) -> Any:
        return [self._corruption, self._key, self.positions.tolist(), self._images.settings()]


def corrupted_image(image: Tensor, corruption: str, seed: int) -> Tensor:
    """An image of shape (channels, height, width) under a corruption, see `DataSet.corrupted`."""
    _, slash, published = corruption.partition("/")
    if slash and imagenet_c.is_known(published):
        return imagenet_c.corrupt(published, image, seed)
    name, _, severity = (published if slash else corruption).rpartition("-")
    generator = torch.Generator().manual_seed(seed)
    return apply_shift(name, image.unsqueeze(0), int(severity), generator)[0]


def corruptions_of(part: Part, dense: bool, family: str) -> list[str]:
    """The corruptions of images in a part's streams; ``dense``: that leave things in place."""
    if family == imagenet_c.FAMILY:
        return imagenet_c.names(part, dense)
    if family and part == "test":
        return imagenet_c.all_names()
    if family:
        return [n for n in corruptions_of(part, dense, "") if not imagenet_c.is_like_one(n)]
    kinds = SEVERITIES if part == "test" else VALIDATION_SEVERITIES
    usable = [kind for kind in kinds if not (dense and kind in GEOMETRIC)]
    return [f"{kind}-{severity}" for severity in (1, 2) for kind in usable]


class ImageData(DataSet):
    """A data set of images, alone or beside other inputs, which can be corrupted.

    ``dense``: its labels say where in the image things are.
    """

    dense: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...]] = (imagenet_c.FAMILY,)

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        return corruptions_of(part, self.dense, family)

    def require_family(self, family: str) -> None:
        imagenet_c.require(self.input_shape)

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        return Split(CorruptedImages(split.x, name, key), split.y)
