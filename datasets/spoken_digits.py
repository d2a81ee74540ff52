"""Spoken digits as images: spectrograms of the Free Spoken Digit Dataset."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import BenchError, DataSetConfig, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType
from bench.io.digest import file_digest
from bench.io.folder_files import files_below

from ._images import ImageData, Size

NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
LAST_TESTED = 4
"""The published test split: recordings 0 to 4 of each digit and speaker."""

WINDOW, LOWEST = 256, -80.0
"""Samples of a window, which overlap by half; and the decibels below the loudest that are 0."""


class SpokenDigitsConfig(DataSetConfig):
    """``size``: frequencies and times of a spectrogram, or one number for both."""

    size: Size = (32, 32)


class _Spectrograms(LazyInputs):
    """Recordings as float32 of shape (n, 1, frequencies, times) in [0, 1], low tones below."""

    def __init__(self, files: list[Path], size: tuple[int, int]) -> None:
        super().__init__(torch.arange(len(files)))
        self._files, self._size = files, size

    def read(self, positions: Tensor) -> Inputs:
        return torch.stack([_spectrogram(self._files[i], self._size) for i in positions.tolist()])

    def names(self, positions: Tensor) -> list[str]:
        return [file_digest(self._files[i]) for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((1, *self._size), torch.float32)}


@register("dataset", "spoken-digits")
class SpokenDigits(ImageData):
    """Recordings of digits, ROOT/**/DIGIT_SPEAKER_NUMBER.wav, as images of their loudness.

    A domain is a speaker. Recordings 0 to 4 of each digit are the published test split. An image is
    the spectrogram in decibels below its loudest place, resized, however long the recording is.
    """

    Config = SpokenDigitsConfig
    config: SpokenDigitsConfig
    class_names = tuple("0123456789")
    dense = True  # moved, a spectrogram is another sound

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (1, *config.size)

    def domains(self) -> list[str]:
        return sorted({speaker for speaker, _ in self._found})

    def splits(self, domain: str) -> list[str]:
        return [split for split in ("train", "test") if (domain, split) in self._found]

    def split(self, domain: str, name: str) -> Split:
        pairs = self._found[domain, name]
        y = torch.tensor([digit for digit, _ in pairs])
        return Split(_Spectrograms([file for _, file in pairs], self.config.size), y)

    def files(self) -> Iterator[Path]:
        return (file for file in files_below(self.root) if file.suffix == ".wav")

    @cached_property
    def _found(self) -> dict[tuple[str, str], list[tuple[int, Path]]]:
        """The recordings of each speaker and split with their digits."""
        found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
        for file in self.files():
            named = NAME.fullmatch(file.name)
            if named is None:
                raise BenchError(
                    f"{file}: is not called DIGIT_SPEAKER_NUMBER.wav: rename it, or move it away"
                )
            split = "test" if int(named[3]) <= LAST_TESTED else "train"
            found.setdefault((named[2], split), []).append((int(named[1]), file))
        if not found:
            raise BenchError(
                f"root {self.root} has no recordings: this layout is ROOT/DIGIT_SPEAKER_NUMBER.wav"
            )
        return found


def _spectrogram(file: Path, size: tuple[int, int]) -> Tensor:
    from scipy.io import wavfile
    from scipy.signal import spectrogram

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of further notes in a file
            rate, sound = wavfile.read(file)
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(f"{file}: cannot be read as sound ({error}): fetch it anew") from error
    if sound.ndim > 1 or len(sound) < WINDOW:
        raise BenchError(
            f"{file}: is of shape {sound.shape}, and {WINDOW} samples or more in one channel are "
            "read: fetch it anew, or remove it"
        )
    _, _, power = spectrogram(
        sound.astype(np.float64), rate, nperseg=WINDOW, noverlap=WINDOW // 2, detrend=False
    )
    decibels = 10 * np.log10(power / max(power.max(), 1e-12) + 1e-12)
    image = torch.from_numpy(1 - decibels.clip(LOWEST, 0) / LOWEST).float().flip(0)
    return torch.nn.functional.interpolate(
        image[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
