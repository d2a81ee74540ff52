"""Questions with answers to be generated, in tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Split, register
from bench.contracts.data import Inputs, SampleType
from bench.io.folder_files import files_below

from ._samples import parts_at
from ._tables import SUFFIXES, Row, read_table
from ._texts import IGNORED, Text, TextConfig, TextData, Texts, pieces, tokenizer

SPECIAL = ("[padding]", "[question]", "[answer]", "[end]", "[unknown]")
"""The first numbers where the vocabulary is made of the data's words."""

ENDS = ("<|endoftext|>", "</s>", "<eos>", "[SEP]")
"""What a tokenizer's vocabulary may have for the end of a text."""


class DialogueConfig(TextConfig):
    """How words of questions and answers become numbers.

    tokens : of both together; a question takes half of them at most
    vocabulary : a ``tokenizer.json``; without one the most frequent words of all domains have
        numbers of their own
    words : how many do
    hashes : has no meaning here
    """

    tokens: int = Field(64, ge=8, le=4096)
    words: int = Field(2000, ge=16, le=100_000)


class QuestionAnswerConfig(DialogueConfig):
    """Which columns mean what, and how words become numbers.

    question, answer : the columns
    tokens : of both together; a question takes half of them at most
    vocabulary : a ``tokenizer.json``; without one the most frequent words of all domains have
        numbers of their own
    words : how many do
    hashes : has no meaning here
    """

    question: str = "question"
    answer: str = "answer"


@dataclass(frozen=True)
class _Dialogue(Text):
    """A question's words, with the answer."""

    answer: str = ""


class _Vocabulary:
    """The most frequent words of some texts."""

    def __init__(self, texts: Iterator[str], most: int, lowercase: bool) -> None:
        self._lowercase = lowercase
        counts = Counter(word for text in texts for word in self._words(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self.names = (*SPECIAL, *ranked[:most])
        self._numbers = {word: i for i, word in enumerate(self.names)}

    def parts(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """The numbers of a question with the sign of an answer, and of the answer with its end."""
        asked, told = ([self._number(w) for w in self._words(t)] for t in (question, answer))
        return [1, *asked, 2], [*told, 3]

    def _words(self, text: str) -> list[str]:
        return pieces(text.lower() if self._lowercase else text)

    def _number(self, word: str) -> int:
        return self._numbers.get(word, SPECIAL.index("[unknown]"))


class _Tokenizer:
    """A tokenizer of the tokenizers library; question and answer are divided by a line's end."""

    def __init__(self, file: Path, lowercase: bool) -> None:
        self._tokenizer = tokenizer(file, lowercase)
        numbers = self._tokenizer.get_vocab()
        self.names = tuple(sorted(numbers, key=numbers.__getitem__))
        self._end = next((numbers[end] for end in ENDS if end in numbers), None)
        if self._end is None:
            raise BenchError(f"vocabulary {file}: has no token for the end: {', '.join(ENDS)}")

    def parts(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """As of `_Vocabulary`."""
        asked, told = (
            self._tokenizer.encode(text, add_special_tokens=False).ids
            for text in (f"{question}\n", answer)
        )
        return asked, [*told, self._end]


class _Dialogues(Texts):
    """Questions and answers as one text; ``prompt_mask`` names the tokens of the question."""

    def __init__(
        self, texts: Sequence[Text], vocabulary: _Vocabulary | _Tokenizer, tokens: int
    ) -> None:
        super().__init__(texts, None, tokens)
        self._vocabulary = vocabulary

    def read(self, positions: Tensor) -> Inputs:
        read = super().read(positions)
        assert isinstance(read, dict)
        asked = [len(self.divided(self.texts[i])[0]) for i in positions.tolist()]
        places = torch.arange(self._tokens)
        mask = (places < torch.tensor(asked).unsqueeze(1)).long()
        return {**read, "prompt_mask": mask}

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {**super().sample_types, "prompt_mask": ((self._tokens,), torch.int64)}

    def ids(self, text: Text) -> list[int]:
        asked, told = self.divided(text)
        return asked + told

    def divided(self, text: Text) -> tuple[list[int], list[int]]:
        """The numbers of the question and of the answer, as many as are read."""
        assert isinstance(text, _Dialogue)
        asked, told = self._vocabulary.parts(" ".join(text.words), text.answer)
        asked = asked[-(self._tokens // 2) :]  # its end says that an answer follows
        return asked, told[: self._tokens - len(asked)]

    def settings(self) -> Any:
        answers = [self.texts[i].answer for i in self.positions.tolist()]
        return [super().settings(), self._vocabulary.names, answers]


@register("dataset", "question-answer")
class QuestionAnswer(TextData):
    """Questions and answers in ROOT/DOMAIN.jsonl (.csv, .tsv, .json), for text generation.

    Inputs are the question followed by the answer; the label of a token is the next one where that
    is of the answer or its end, else -100, int64 of shape (n, tokens). Classes are the tokens.
    """

    Config: ClassVar[type[DialogueConfig]] = QuestionAnswerConfig
    config: Any
    task = "generation"

    def domains(self) -> list[str]:
        return list(self._rows)

    def split(self, domain: str, name: str) -> Split:
        texts = []
        for question, answer in self.pairs(domain, name):
            key = hashlib.sha256(f"{question}\n{answer}".encode()).hexdigest()
            texts.append(_Dialogue(tuple(question.split()), key, answer=answer))
        return self.made(texts, torch.empty(0))

    def pairs(self, domain: str, name: str) -> list[tuple[str, str]]:
        """The questions of a split, each with its answer."""
        c = self.config
        return [(row.text(c.question), row.text(c.answer)) for row in self._rows[domain]]

    def made(self, texts: Sequence[Text], y: Tensor) -> Split:
        x = _Dialogues(texts, self.vocabulary, self.config.tokens)
        y = torch.full((len(texts), self.config.tokens), IGNORED)
        for row, text in enumerate(texts):
            asked, told = x.divided(text)
            y[row, len(asked) - 1 : len(asked) - 1 + len(told)] = torch.tensor(told)
        return Split(x, y)

    def described(self, split: Split, position: int) -> str:
        ((texts, place),) = parts_at(split.x, torch.tensor([position]))
        return f"{' '.join(texts.texts[place].words)} -> {texts.texts[place].answer}"

    @cached_property
    def vocabulary(self) -> _Vocabulary | _Tokenizer:
        """What makes numbers of words."""
        c = self.config
        if c.vocabulary:
            return _Tokenizer(Path(c.vocabulary), c.lowercase)
        splits = ((domain, name) for domain in self.domains() for name in self.splits(domain))
        texts = (text for split in splits for pair in self.pairs(*split) for text in pair)
        return _Vocabulary(texts, c.words, c.lowercase)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The tokens."""
        return self.vocabulary.names

    def files(self) -> Iterator[Path]:
        vocabulary = Path(self.config.vocabulary).resolve()  # it may lie beside them
        tables = (f for f in files_below(self.root) if f.suffix in SUFFIXES)
        return (f for f in tables if f.resolve() != vocabulary)

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        found = {file.stem: read_table(file) for file in self.files()}
        if not found:
            raise BenchError(
                f"root {self.root} has no tables: this layout is ROOT/DOMAIN.jsonl, or another of "
                f"{', '.join(SUFFIXES)}"
            )
        return found
