"""Questions about digits that two sensors see, of which the first degrades along the stream."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from bench import BenchError, DataChoice, Domain, Split, Stream, StreamConfig, register, take
from bench.io.digest import digest

from .._samples import joined
from ..corruptions import apply_shift
from ._data import generator

IMAGE, RANGE = "image", "range"
SIDES, INK = 4, 0.5
"""From which a digit is looked at, and the grey that a look ends at."""

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ANSWERS = (*NUMERALS, "yes", "no")
QUESTIONS = (
    "which digit is it ?",
    "which digit ends one more ?",
    "is it even ?",
    "is it above four ?",
)
CAPTIONS = ("it is a {}", "the digit is {}")
FILLER = "."
"""Stands before a shorter question."""
LENGTH = max(len(question.split()) for question in QUESTIONS)
WORDS = (
    FILLER, *ANSWERS,
    *sorted({word for text in (*QUESTIONS, *CAPTIONS) for word in text.split()} - {"{}"}),
)  # fmt: skip
OF_SOURCE, OF_TEST = 0.4, 0.25
"""Shares of the second data that go with the source, and of these and others that are tested."""


class ModalitySwitchConfig(StreamConfig):
    """What is seen, how much of it there is, and how the first modality degrades.

    part : the stream that is reported, or the one to tune on
    data : images of digits
    second : a data set of the same classes that is paired with them; by default ``range``, made of
        the images
    size : pixels a side of both
    source_samples, test_samples : how many
    samples : of each domain; a smaller one is the beginning of a larger one
    dimming : share of the light that the images lose
    blur : standard deviation of the Gaussian kernel in pixels
    """

    part: Literal["test", "validation"] = "test"
    data: DataChoice = Field(default_factory=lambda: DataChoice(name="digits"))
    second: DataChoice | None = None
    size: int = Field(32, ge=16, le=224)
    source_samples: int = Field(700, ge=50)
    test_samples: int = Field(300, ge=10)
    samples: tuple[int, ...] = Field((100, 300, 700), min_length=1)
    dimming: float = Field(0.8, ge=0, lt=1)
    blur: float = Field(2.5, ge=0, le=20)

    @field_validator("samples")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or len(set(value)) < len(value):
            raise ValueError("give different numbers of samples, each 1 or more")
        return value


@register("stream", "modality-switch")
class ModalitySwitch(Stream):
    """Questions about digits by two sensors; at night the first one sees little, 3 domains.

    Inputs are a dict: ``image``, float32 (n, 1, size, size), the same of a second modality, and
    ``input_ids``, int64 (n, words), one of four questions. Classes are the answers: ten numerals,
    yes and no. Source samples to learn from have a ``caption`` too, which says the digit in words.

    The second modality is ``range``: the distances from the image's four sides to the digit's first
    ink, line by line, of the same real image before it degrades, as a range finder measures them; a
    band of rows for each side. Or it is a data set of the same classes, called by its name, whose
    samples have no common origin with the images: each image is paired with a sample of its class,
    drawn among those of its split.

    Domain ``night-N`` has N samples to learn from, its images dimmed and blurred; the second
    modality stays as it is. The validation stream is made of the source, its images in coarse
    blocks instead.
    """

    Config = ModalitySwitchConfig
    config: ModalitySwitchConfig
    preload = ("sklearn.datasets",)
    supervised = True
    classes = len(ANSWERS)

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.input_shape = (1, config.size, config.size)
        self.second = RANGE if config.second is None else config.second.name

    @classmethod
    def data_digest(cls, config: Any) -> str:
        chosen = [config.data, *([config.second] if config.second else [])]
        return digest([each.content_digest() for each in chosen])

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation"})

    def source_settings(self) -> dict[str, Any]:
        return self.config.model_dump(
            mode="json", exclude={"samples", "test_samples", "dimming", "blur"}
        )

    def domain_names(self) -> list[str]:
        return [f"night-{n}" for n in self.config.samples]

    def source(self) -> Domain:
        learned = self._split("source")
        digits = self._images.y[self._parts["source"]]
        numbers = generator(0, "captions").integers(len(CAPTIONS), size=len(digits))
        captions = [
            CAPTIONS[i].format(NUMERALS[digit])
            for i, digit in zip(numbers, digits.tolist(), strict=True)
        ]
        x = {**learned.x, "caption": torch.stack([_ids(text, 0) for text in captions])}
        return Domain("source", Split(x, learned.y), self._split("test"))

    def domain(self, name: str) -> Domain:
        names = self.domain_names()
        if name not in names:
            raise BenchError(f"ModalitySwitch has no domain {name!r}; it has {', '.join(names)}")
        most = self.config.samples[names.index(name)]
        learned, tested = self._split("adaptation"), self._split("test")
        if self.config.part == "validation":
            most = min(most, len(learned))
        few = Split(take(learned.x, torch.arange(most)), learned.y[:most])
        return Domain(name, self._degraded(few, 0), self._degraded(tested, 1))

    # --- the first modality, and who learns and tests it ------------------------------------------

    @cached_property
    def _images(self) -> Split:
        return _whole(self.config.data, self.input_shape, {"size": self.config.size})

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        """Positions of the images of each split."""
        c, n = self.config, len(self._images)
        if n < (needed := c.source_samples + c.test_samples + max(c.samples)):
            raise BenchError(
                f"samples: {max(c.samples)} with {c.source_samples} of the source and "
                f"{c.test_samples} to test are {needed}, and {c.data.name} has {n} images: take "
                "fewer"
            )
        order, kept, tested = generator(0, "images").permutation(n), c.source_samples, 0
        if c.part == "validation":
            order, kept = order[:kept], kept // 2
            tested = min(c.test_samples, kept // 2)
        rest = generator(self.seed, "arrival").permutation(order[kept:])
        tested = tested or c.test_samples
        found = {"source": order[:kept], "test": rest[:tested], "adaptation": rest[tested:]}
        return {name: torch.from_numpy(part.copy()) for name, part in found.items()}

    def _split(self, part: str) -> Split:
        """The clean samples of a split, without captions."""
        at = self._parts[part]
        image, digits = self._images.x[at], self._images.y[at]
        numbers = generator(0, "questions").integers(len(QUESTIONS), size=len(self._images))[at]
        asked = torch.stack([_ids(QUESTIONS[i], LENGTH) for i in numbers])
        answers = [_answer(i, digit) for i, digit in zip(numbers, digits.tolist(), strict=True)]
        second = _profiles(image) if self.config.second is None else self._paired(part, digits)
        x = {IMAGE: image, self.second: second, "input_ids": asked}
        return Split(x, torch.tensor(answers))

    def _degraded(self, split: Split, number: int) -> Split:
        draw = torch.Generator().manual_seed(2 * self.seed + number)
        image, c = split.x[IMAGE], self.config
        if c.part == "validation":
            return Split({**split.x, IMAGE: apply_shift("pixelate", image, 2, draw)}, split.y)
        if c.blur:
            from torchvision.transforms.v2 import functional as F

            size = 2 * round(2 * c.blur) + 1
            image = F.gaussian_blur(image, kernel_size=[size, size], sigma=[c.blur, c.blur])
        return Split({**split.x, IMAGE: (1 - c.dimming) * image}, split.y)

    # --- the second modality from a data set ------------------------------------------------------

    def _paired(self, part: str, digits: Tensor) -> Tensor:
        """A sample of its class for each digit, drawn among those of the split."""
        draw = generator(self.seed if part != "source" else 0, f"pairs/{part}")
        found = np.array([draw.choice(self._partners[part, digit]) for digit in digits.tolist()])
        paired: Tensor = self._others.x[torch.from_numpy(found)]
        return paired

    @cached_property
    def _others(self) -> Split:
        assert self.config.second is not None
        return _whole(self.config.second, self.input_shape, {})

    @cached_property
    def _partners(self) -> dict[tuple[str, int], np.ndarray]:
        """Positions in the second data by split and digit: no sample is in two splits."""
        found: dict[tuple[str, int], np.ndarray] = {}
        for digit in range(len(NUMERALS)):
            of_class = (self._others.y == digit).nonzero().squeeze(1).numpy()
            order = generator(0, f"partners/{digit}").permutation(of_class)
            kept = round(OF_SOURCE * len(order))
            if self.config.part == "validation":
                order, kept = order[:kept], kept // 2
            rest = generator(self.seed, f"partners/{digit}").permutation(order[kept:])
            tested = round(OF_TEST / (1 - OF_SOURCE) * len(rest))
            parts = {"source": order[:kept], "test": rest[:tested], "adaptation": rest[tested:]}
            for part, positions in parts.items():
                if not len(positions):
                    raise BenchError(
                        f"second: digit {digit} has {len(of_class)} samples in all, too few for "
                        "three splits: give data with 10 or more of each"
                    )
                found[part, digit] = positions
        return found


def _whole(choice: DataChoice, shape: tuple[int, ...], settings: dict[str, Any]) -> Split:
    """All samples of a data set as tensors, its classes numbered as the digits that they are."""
    choice = DataChoice.model_validate({"name": choice.name, **choice.config, **settings})
    data = choice.build()
    if tuple(data.input_shape) != shape:
        raise BenchError(
            f"{choice.name}: its samples are {tuple(data.input_shape)}, and the stream's {shape}: "
            "give gray images of the stream's 'size'"
        )
    names = {str(i): i for i in range(len(NUMERALS))} | {n: i for i, n in enumerate(NUMERALS)}
    for name in data.class_names:
        if name not in names:
            raise BenchError(f"{choice.name}: class {name!r} is no digit: give data of digits")
    whole = joined([data.split(d, s) for d in data.domains() for s in data.splits(d)])
    numbers = torch.tensor([names[name] for name in data.class_names])
    return Split(take(whole.x, torch.arange(len(whole))), numbers[whole.y])


def _profiles(image: Tensor) -> Tensor:
    """Distances from each side to the first ink, in [0, 1] of the side, 1 where there is none.

    ``image``: (n, 1, size, size); a band of equal rows for each side, (n, 1, size, size).
    """
    size = image.shape[-1]
    turned = torch.stack([torch.rot90(image[:, 0], k, (-2, -1)) for k in range(SIDES)], dim=1)
    ink = turned > INK
    first = torch.where(ink.any(dim=-2), ink.int().argmax(dim=-2), size)  # (n, sides, size)
    bands = torch.arange(size) * SIDES // size
    return (first.float() / size)[:, bands].unsqueeze(1)


def _ids(text: str, length: int) -> Tensor:
    """Numbers of a text's words, filled up in front."""
    words = text.split()
    words = [FILLER] * (length - len(words)) + words
    return torch.tensor([WORDS.index(word) for word in words])


def _answer(question: int, digit: int) -> int:
    """The number of the true answer."""
    if question < 2:
        return (digit + question) % len(NUMERALS)
    truth = digit % 2 == 0 if question == 2 else digit > 4
    return ANSWERS.index("yes" if truth else "no")
