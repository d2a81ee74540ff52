"""Questions about images, each with its answer out of a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from bench import BenchError, Split, register
from bench.errors import shown

from ._images import ImageData, Size, is_image
from ._questions import AGREED, Questions
from ._tables import SPLITS, read_json
from ._texts import TextConfig, TextData

QUESTIONS, IMAGES, ANSWERS, ONE = "questions.json", "images", "answers.txt", "all"


class VqaFolderConfig(TextConfig):
    """``size``: height and width of images in pixels, or one for both; see `TextConfig` for how
    questions become numbers.
    """

    size: Size = (64, 64)
    tokens: int = Field(16, ge=4, le=4096)


@dataclass(frozen=True)
class _Question:
    text: str
    image: Path
    scores: dict[int, float]


@register("dataset", "vqa-folder")
class VqaFolder(ImageData, TextData):
    """Questions in ROOT/{train,test}/questions.json on images in ROOT/{train,test}/images.

    The file is a list of [question, answer, image], or of objects with ``question``, ``image`` and
    ``answer`` (or several people's ``answers``); the image is named by its file's name, with or
    without its ending. ROOT/answers.txt has the answers that count, one a line. Domains, if there
    are several, are folders in ROOT; there may be no folders for splits. Labels are the score of
    each answer, float32 of shape (n, answers): 1 for the answer; of several people's answers a
    third of those that are equal, at most 1.
    """

    Config = VqaFolderConfig
    config: VqaFolderConfig
    task = "visual-question-answering"
    dense = True  # what a question asks must stay

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)
        self._folders = {ONE: self.root} if _splits(self.root) else {}
        if not self._folders:
            inner = sorted(each for each in self.root.iterdir() if each.is_dir() and _splits(each))
            self._folders = {each.name: each for each in inner}
        if not self._folders:
            raise BenchError(
                f"root {self.root} has no {QUESTIONS}: this layout is ROOT/train/{QUESTIONS}, "
                f"ROOT/train/{IMAGES}/*.png and ROOT/{ANSWERS}"
            )

    def domains(self) -> list[str]:
        return list(self._folders)

    def splits(self, domain: str) -> list[str]:
        return list(_splits(self._folders[domain]))

    def split(self, domain: str, name: str) -> Split:
        rows = self._questions(_splits(self._folders[domain])[name])
        asked, files = [row.text for row in rows], [row.image for row in rows]
        x = Questions.of(asked, files, self.config.size, self.encoder, self.config.tokens)
        y = torch.zeros(len(rows), len(self.class_names))
        for i, row in enumerate(rows):
            for answer, score in row.scores.items():
                y[i, answer] = score
        return Split(x, y)

    def described(self, split: Split, position: int) -> str:
        return f"{split.x.question(position)} {self.class_names[int(split.y[position].argmax())]}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The answers."""
        places = [self.root, *self._folders.values()]
        found = [folder / ANSWERS for folder in places if (folder / ANSWERS).is_file()]
        if not found:
            raise BenchError(f"{self.root / ANSWERS}: is not there: list the answers, one a line")
        lines = [line.strip() for line in found[0].read_text(encoding="utf-8").splitlines()]
        answers = tuple(dict.fromkeys(line for line in lines if line))
        if len(answers) < 2:
            raise BenchError(f"{found[0]}: has {len(answers)} answers: list two or more")
        return answers

    def _questions(self, folder: Path) -> list[_Question]:
        file = folder / QUESTIONS
        rows = read_json(file)
        if not isinstance(rows, list) or not rows:
            raise BenchError(f"{file}: is {shown(rows)}: give a list of questions")
        inside = (folder / IMAGES).iterdir() if (folder / IMAGES).is_dir() else ()
        images = {each.stem: each for each in sorted(inside) if is_image(each.name)}
        numbers = {answer: i for i, answer in enumerate(self.class_names)}
        return [
            self._question(row, f"{file}: question {i}", folder, images, numbers)
            for i, row in enumerate(rows)
        ]

    def _question(
        self, row: Any, place: str, folder: Path, images: dict[str, Path], numbers: dict[str, int]
    ) -> _Question:
        if isinstance(row, list) and len(row) == 3:
            row = dict(zip(("question", "answer", "image"), row, strict=True))
        if not isinstance(row, dict) or not isinstance(row.get("question"), str):
            raise BenchError(f"{place}: is {shown(row)}: give [question, answer, image]")
        given = row.get("answers", [row.get("answer")])
        answers = given if isinstance(given, list) else [given]
        scores = _scores([str(each) for each in answers], numbers)
        if not scores:
            raise BenchError(
                f"{place}: answer {shown(answers[0] if answers else None)} is none of "
                f"{ANSWERS}: add it there, or remove the question"
            )
        name = str(row.get("image"))
        image = images.get(name) or images.get(Path(name).stem)
        if image is None:
            raise BenchError(
                f"{place}: image {shown(row.get('image'))} is not in {folder / IMAGES}"
            )
        return _Question(row["question"], image, scores)


def _scores(answers: Sequence[str], numbers: dict[str, int]) -> dict[int, float]:
    """The score of each known answer, by its number."""
    enough = min(AGREED, len(answers))
    counts = Counter(answers)
    return {numbers[a]: min(n / enough, 1.0) for a, n in counts.items() if a in numbers}


def _splits(folder: Path) -> dict[str, Path]:
    """The folder of each split; of questions that lie in the folder itself the split "all"."""
    if (folder / QUESTIONS).is_file():
        return {"all": folder}
    found = sorted(each for each in folder.iterdir() if (each / QUESTIONS).is_file())
    named: dict[str, Path] = {}
    for each in found:
        if (name := SPLITS.get(each.name.lower())) is None:
            continue
        if name in named:
            raise BenchError(f"{each}: split {name!r} is also {named[name]}: remove one")
        named[name] = each
    return {name: named[name] for name in dict.fromkeys(SPLITS.values()) if name in named}
