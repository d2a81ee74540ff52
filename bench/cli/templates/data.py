"""my-idea: images whose class is in the file's name; change it into your own layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import BenchError, DataSet, DataSetConfig, LazyInputs, Split, register
from bench.io.digest import file_digest


class MyIdeaConfig(DataSetConfig):
    """``root``: folder of the domains' folders; ``size``: pixels a side."""

    size: int = 32


@register("dataset", "my-idea")
class MyIdea(DataSet):
    """Images in ROOT/DOMAIN/CLASS_NUMBER.png."""

    Config = MyIdeaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # refuses a root that is no folder
        self.input_shape = (3, config.size, config.size)
        self._files = {
            folder.name: sorted(folder.glob("*_*.png"))
            for folder in sorted(self.root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
        }
        if not any(self._files.values()):
            raise BenchError(f"root {self.root} has no images ROOT/DOMAIN/CLASS_NUMBER.png")
        every = {_class(file) for files in self._files.values() for file in files}
        self.class_names = tuple(sorted(every))

    def domains(self) -> list[str]:
        return list(self._files)

    def split(self, domain: str, name: str) -> Split:
        files = self._files[domain]
        y = torch.tensor([self.class_names.index(_class(file)) for file in files])
        return Split(Images(files, self.config.size), y)


class Images(LazyInputs):
    """Images that are read when a batch needs them, float32 (n, 3, size, size) in [0, 1]."""

    def __init__(self, files: Sequence[Path], size: int) -> None:
        super().__init__(torch.arange(len(files)))
        self._files, self._size = files, size

    def read(self, positions: Tensor) -> Tensor:
        return torch.stack([self._image(self._files[i]) for i in positions.tolist()])

    def names(self, positions: Tensor) -> list[str]:
        return [file_digest(self._files[i]) for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, Any]:
        return {"": ((3, self._size, self._size), torch.float32)}

    def _image(self, file: Path) -> Tensor:
        import numpy as np
        from PIL import Image

        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert("RGB").resize((self._size, self._size)))
        except OSError as error:
            raise BenchError(f"{file}: cannot be read ({error}): replace or remove it") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _class(file: Path) -> str:
    return file.stem.rpartition("_")[0]
