"""Texts as numbers of tokens: by hashing words, or by a vocabulary in a file."""

from __future__ import annotations

import hashlib
import random
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataSet, DataSetConfig, LazyInputs, LocalPath, Split
from bench.contracts.data import Inputs, SampleType
from bench.contracts.dataset import Part
from bench.io.digest import file_digest

from ._samples import parts_at
from .text_corruptions import CORRUPTIONS, KEEP_WORDS, SHARES, change_words

PADDING, START, FIRST_WORD = 0, 1, 2
"""Numbers of tokens where words are hashed: padding, the first of a text, the first of a word."""

IGNORED = -100
"""The label of a token that has none."""

_PIECES = re.compile(r"\w+|[^\w\s]")


class TextConfig(DataSetConfig):
    """How texts become numbers.

    tokens : the length that texts are cut and padded to
    vocabulary : a ``tokenizer.json`` of the tokenizers library, or a ``vocab.txt`` of word pieces,
        one a line; without one each word has the number of its hash
    hashes : how many numbers there are without a vocabulary
    lowercase : whether capitals and small letters are the same
    """

    tokens: int = Field(32, ge=4, le=4096)
    vocabulary: LocalPath = ""
    hashes: int = Field(4096, ge=16, le=1_000_000)
    lowercase: bool = True


class Encoder(ABC):
    """Numbers of a text's tokens; ``key``: what they depend on beside the text, as JSON."""

    key: Any

    @abstractmethod
    def words(self, words: Sequence[str], tokens: int) -> tuple[list[int], list[int | None]]:
        """Up to ``tokens`` numbers of a text of words, and of each the word's place, or None."""

    @abstractmethod
    def text(self, text: str, tokens: int) -> list[int]:
        """Up to ``tokens`` numbers of a text."""


class _HashedWords(Encoder):
    def __init__(self, hashes: int, lowercase: bool) -> None:
        self._size, self._lowercase = hashes, lowercase
        self.key = ["hashes", hashes, lowercase]

    def words(self, words: Sequence[str], tokens: int) -> tuple[list[int], list[int | None]]:
        ids = [START, *map(self._number, words)]
        return ids[:tokens], [None, *range(len(words))][:tokens]

    def text(self, text: str, tokens: int) -> list[int]:
        return self.words(pieces(text), tokens)[0]

    def _number(self, word: str) -> int:
        word = word.lower() if self._lowercase else word
        return FIRST_WORD + zlib.crc32(word.encode()) % (self._size - FIRST_WORD)


def pieces(text: str) -> list[str]:
    """A text's words and signs."""
    return _PIECES.findall(text)


def tokenizer(file: Path, lowercase: bool) -> Any:
    """A vocabulary in a file as a tokenizer of the tokenizers library, without padding.

    BenchError if the file is no ``tokenizer.json`` and no ``vocab.txt`` of word pieces.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    try:
        if file.suffix == ".json":
            made: Any = Tokenizer.from_file(str(file))
        else:
            made = BertWordPieceTokenizer(str(file), lowercase=lowercase)
    except Exception as error:  # the library raises plain ones
        raise BenchError(
            f"vocabulary {file}: is neither a tokenizer.json nor a vocab.txt of word pieces "
            f"with [UNK], [CLS] and [SEP] ({error}): give one of them"
        ) from error
    made.no_padding()
    made.no_truncation()
    return made


class _Tokenizer(Encoder):
    """A vocabulary in a file, by the tokenizers library."""

    def __init__(self, file: Path, lowercase: bool) -> None:
        self._tokenizer = tokenizer(file, lowercase)
        self.key = [file_digest(file), lowercase]

    def words(self, words: Sequence[str], tokens: int) -> tuple[list[int], list[int | None]]:
        found = self._encoded(list(words), tokens, is_pretokenized=True)
        return found.ids, found.word_ids

    def text(self, text: str, tokens: int) -> list[int]:
        ids: list[int] = self._encoded(text, tokens).ids
        return ids

    def _encoded(self, given: Any, tokens: int, **how: Any) -> Any:
        self._tokenizer.enable_truncation(max_length=tokens)
        return self._tokenizer.encode(given, **how)


@dataclass(frozen=True)
class Text:
    """One text: its words as they stand between spaces, or as a file divides them, with ``tags``,
    the labels of words where there are any. ``name``: see `LazyInputs.names`.
    """

    words: tuple[str, ...]
    name: str
    tags: tuple[int, ...] | None = None

    @classmethod
    def of(cls, text: str) -> Text:
        """A text as it is written."""
        return cls(tuple(text.split()), hashlib.sha256(text.encode()).hexdigest())


class Texts(LazyInputs):
    """Texts as ``input_ids`` and ``attention_mask``, int64 of shape (n, tokens).

    Where words have tags ``unit_mask`` names their first tokens, which decisions are about.
    """

    def __init__(self, texts: Sequence[Any], encoder: Encoder | None, tokens: int) -> None:
        super().__init__(torch.arange(len(texts)))
        self.texts, self._encoder, self._tokens = texts, encoder, tokens

    def read(self, positions: Tensor) -> Inputs:
        ids = torch.zeros(len(positions), self._tokens, dtype=torch.int64)
        mask, units = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, position in enumerate(positions.tolist()):
            text = self.texts[position]
            found = self.ids(text)
            ids[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
            mask[row, : len(found)] = 1
            if self._tagged:
                units[row, list(self.first_tokens(text))] = 1
        read = {"input_ids": ids, "attention_mask": mask}
        return read | {"unit_mask": units} if self._tagged else read

    @property
    def _tagged(self) -> bool:
        """Whether words are what is decided on."""
        return bool(self.texts) and self.texts[0].tags is not None

    def first_tokens(self, text: Text) -> dict[int, int]:
        """The words whose tokens are read, by the place of the first token of each."""
        assert self._encoder is not None
        first: dict[int, int] = {}
        for column, place in enumerate(encoded(text, self._encoder, self._tokens)[1]):
            if place is not None and place not in first.values():
                first[column] = place
        return first

    def ids(self, text: Text) -> list[int]:
        """The numbers of a text's tokens, at most ``tokens``."""
        assert self._encoder is not None
        return encoded(text, self._encoder, self._tokens)[0]

    def names(self, positions: Tensor) -> list[str]:
        return [self.texts[i].name for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        one: SampleType = ((self._tokens,), torch.int64)
        types = {"input_ids": one, "attention_mask": one}
        return types | {"unit_mask": one} if self._tagged else types

    def settings(self) -> Any:
        """The words themselves: a corruption changes them and not their names."""
        chosen = [self.texts[i] for i in self.positions.tolist()]
        words = "\n".join(" ".join(text.words) for text in chosen)
        key = self._encoder.key if self._encoder else None
        return [key, hashlib.sha256(words.encode()).hexdigest()]


def encoded(text: Text, encoder: Encoder, tokens: int) -> tuple[list[int], list[int | None]]:
    """Numbers of a text's tokens, and the places of their words where these have tags."""
    if text.tags is None:
        return encoder.text(" ".join(text.words), tokens), []
    return encoder.words(text.words, tokens)


class TextData(DataSet):
    """A data set of texts, which can be corrupted."""

    config: TextConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (config.tokens,)

    @cached_property
    def encoder(self) -> Encoder:
        """What makes numbers of texts."""
        c = self.config
        if c.vocabulary:
            return _Tokenizer(Path(c.vocabulary), c.lowercase)
        return _HashedWords(c.hashes, c.lowercase)

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        kinds = [kind for kind in CORRUPTIONS[part] if self._has_effect(kind)]
        return [f"{kind}-{severity}" for severity in SHARES for kind in kinds]

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        kind, _, severity = name.rpartition("-")
        changed = []
        for texts, position in parts_at(split.x, split.x.positions):
            text = texts.texts[position]
            draw = random.Random(f"{key}/{position}/{text.name}")
            words = change_words(kind, int(severity), text.words, draw)
            changed.append(replace(text, words=words))
        return self.made(changed, split.y)

    def described(self, split: Split, position: int) -> str:
        ((texts, place),) = parts_at(split.x, torch.tensor([position]))
        words = " ".join(texts.texts[place].words)
        return ": ".join(part for part in (super().described(split, position), words) if part)

    def made(self, texts: Sequence[Text], y: Tensor) -> Split:
        """A split of texts; the labels of words, where there are any, follow their tokens."""
        x = Texts(texts, self.encoder, self.config.tokens)
        if texts and texts[0].tags is not None:
            y = self._labels_of_tokens(x, texts)
        return Split(x, y)

    def _labels_of_tokens(self, x: Texts, texts: Sequence[Text]) -> Tensor:
        """The tag of each word at its first token, int64 of shape (n, tokens)."""
        y = torch.full((len(texts), self.config.tokens), IGNORED)
        for row, text in enumerate(texts):
            assert text.tags is not None
            for column, place in x.first_tokens(text).items():
                y[row, column] = text.tags[place]
        return y

    def _has_effect(self, kind: str) -> bool:
        if kind == "capitals" and self.config.lowercase:
            return False
        return self.task != "token-classification" or kind in KEEP_WORDS
