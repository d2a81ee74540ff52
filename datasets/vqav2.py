"""VQA v2: questions of people about COCO's photos, as published by Goyal et al. (CVPR 2017)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from bench import BenchError, LocalPath, Split, register
from bench.contracts.dataset import Part
from bench.errors import shown

from . import imagenet_c
from ._derived import derived, derived_key
from ._images import ImageData, Size, corruptions_of
from ._questions import AGREED, Questions
from ._tables import read_json, read_text
from ._texts import TextConfig, TextData
from ._vqa_answers import normalized

ONE = "all"
PARTS = {"train": "train2014", "test": "val2014"}
"""What files of each split are called: the answers of the published test split are not public."""


class VqaV2Config(TextConfig):
    """Which answers are the classes, and how images and questions become numbers.

    answers : how many
    first : the place of the first one in the list of answers, counted from 1: with answers 100 the
        first hundred, with first 101 those after them
    answer_list : a text file with an answer a line; by default all answers, those first that are
        the most frequent one of most questions of the train split, then those of most people
    size : height and width of images in pixels, or one for both
    tokens, vocabulary, hashes, lowercase : see `TextConfig`
    """

    size: Size = (224, 224)
    tokens: int = Field(32, ge=4, le=4096)
    answers: int = Field(100, ge=2, le=10_000)
    first: int = Field(1, ge=1)
    answer_list: LocalPath = ""


@register("dataset", "vqav2")
class VqaV2(ImageData, TextData):
    """VQA v2: ROOT/v2_OpenEnded_mscoco_train2014_questions.json, ..., ROOT/train2014/*.jpg, ...

    The files are as published: questions, annotations and images of train2014 and of val2014, which
    is split ``test``, as the answers of the published test split are not public. Answers are
    normalized as in the official evaluation. Labels are the score of each answer, float32 of shape
    (n, answers): min(1, n / 3) for n people of ten who gave it. Questions without a score are left
    out.
    """

    Config = VqaV2Config
    config: Any
    task = "visual-question-answering"
    dense = True  # what a question asks must stay
    families = (imagenet_c.FAMILY, imagenet_c.ALL_FAMILY)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)

    def domains(self) -> list[str]:
        return [ONE]

    def splits(self, domain: str) -> list[str]:
        return list(PARTS)

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        return corruptions_of(part, self.dense, family)

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        return ImageData.corrupted(self, split, name, key)

    def split(self, domain: str, name: str) -> Split:
        content, numbers = self._content[name], {a: i for i, a in enumerate(self.class_names)}
        of = torch.tensor([numbers.get(answer, -1) for answer in content["answers"]])
        question, answer, count = content["given"].unbind(dim=1)
        answer = of[answer]
        known = answer >= 0
        kept, row = question[known].unique(return_inverse=True)
        if not len(kept):
            raise BenchError(
                f"{self._file(name, 'annotations')}: no question has one of the {len(numbers)} "
                "answers: change 'first' or 'answers'"
            )
        y = torch.zeros(len(kept), len(numbers))
        y[row, answer[known]] = (count[known] / AGREED).clamp(max=1.0)
        places = kept.tolist()
        asked = [content["questions"][i] for i in places]
        files = [self._image(name, int(content["images"][i])) for i in places]
        c = self.config
        return Split(Questions.of(asked, files, c.size, self.encoder, c.tokens), y)

    def described(self, split: Split, position: int) -> str:
        return f"{split.x.question(position)} {self.class_names[int(split.y[position].argmax())]}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The answers."""
        c = self.config
        file = Path(c.answer_list) if c.answer_list else None
        if file is None:
            ranked = list(self._content["train"]["ranked"])
        else:
            lines = map(normalized, read_text(file).splitlines())
            ranked = list(dict.fromkeys(line for line in lines if line))
        chosen = tuple(ranked[c.first - 1 : c.first - 1 + c.answers])
        if len(chosen) < 2:
            raise BenchError(
                f"{file or self._file('train', 'annotations')}: has {len(ranked)} answers, and "
                f"those from place {c.first} on are {len(chosen)}: set 'first' to a lower place"
            )
        return chosen

    def files(self) -> Iterator[Path]:
        for name in PARTS:
            yield self._file(name, "questions")
            yield self._file(name, "annotations")
            images = self._content[name]["images"].unique().tolist()
            yield from (self._image(name, image) for image in images)

    def _file(self, name: str, kind: str) -> Path:
        mode = "OpenEnded_" if kind == "questions" else ""
        return self.root / f"v2_{mode}mscoco_{PARTS[name]}_{kind}.json"

    def _image(self, name: str, number: int) -> Path:
        return self.root / PARTS[name] / f"COCO_{PARTS[name]}_{number:012}.jpg"

    @cached_property
    def _content(self) -> dict[str, dict[str, Any]]:
        """What is needed of the large files, from the cache."""
        found = {}
        for name in PARTS:
            files = [self._file(name, kind) for kind in ("questions", "annotations")]
            for file in files:
                if not file.is_file():
                    raise BenchError(
                        f"{file}: is not there: unpack the questions and annotations of VQA v2 "
                        f"into {self.root}"
                    )
            key = derived_key(VqaV2, self.root, files, "questions")
            made = derived("questions", key, lambda files=files: _compact(*files))  # type: ignore[misc]
            for image in made["images"].unique().tolist():
                if not self._image(name, image).is_file():
                    raise BenchError(
                        f"{self._image(name, image)}: is not there, and {files[0]} asks about it: "
                        f"unpack COCO's {PARTS[name]}.zip into {self.root}"
                    )
            found[name] = made
        return found


def _compact(questions: Path, annotations: Path) -> dict[str, Any]:
    """The questions in their order, their images, and how many people gave which answer.

    ``given``: rows of the place of a question, the place of an answer in ``answers`` and how many
    people gave it. ``ranked``: the answers by the questions whose most frequent one they are, then
    by the people who gave them.
    """
    asked = {}
    for i, each in enumerate(_list(questions, "questions")):
        try:
            asked[int(each["question_id"])] = (str(each["question"]), int(each["image_id"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BenchError(
                f"{questions}: question {i} is {shown(each)}: it needs question_id, question and "
                "image_id"
            ) from error
    place = {identifier: i for i, identifier in enumerate(asked)}
    numbers: dict[str, int] = {}
    most: Counter[str] = Counter()
    people: Counter[str] = Counter()
    given: list[tuple[int, int, int]] = []
    annotated = set()
    for i, each in enumerate(_list(annotations, "annotations")):
        where = f"{annotations}: annotation {i}"
        try:
            answers = [normalized(str(a["answer"])) for a in each["answers"]]
            question = place[each["question_id"]]
        except (KeyError, TypeError) as error:
            raise BenchError(
                f"{where} is {shown(each)}: it needs answers, and a question_id that "
                f"{questions.name} has"
            ) from error
        if not answers:
            raise BenchError(f"{where}: has no answers: remove it and its question, or fetch anew")
        annotated.add(question)
        counts = Counter(answer for answer in answers if answer)
        if counts:
            most[min(counts, key=lambda a: (-counts[a], a))] += 1
        people.update(counts)
        for answer, count in counts.items():
            given.append((question, numbers.setdefault(answer, len(numbers)), count))
    if missing := sorted(set(range(len(asked))) - annotated):
        raise BenchError(
            f"{annotations}: has no answers to {len(missing)} questions of {questions.name}, the "
            f"first with question_id {list(asked)[missing[0]]}: fetch both anew"
        )
    every = sorted(numbers, key=lambda answer: (-most[answer], -people[answer], answer))
    return {
        "questions": [question for question, _ in asked.values()],
        "images": torch.tensor([image for _, image in asked.values()], dtype=torch.int64),
        "answers": list(numbers),
        "given": torch.tensor(given, dtype=torch.int64).view(-1, 3),
        "ranked": every,
    }


def _list(file: Path, name: str) -> list[Any]:
    content = read_json(file)
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not found:
        raise BenchError(f"{file}: has no list {name!r}: fetch it anew")
    return found
