"""Words with part-of-speech tags in CoNLL-U files, as Universal Dependencies publishes them."""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from bench import BenchError, Split, register
from bench.errors import did_you_mean

from ._tables import split_name
from ._texts import Text, TextConfig, TextData

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
"""The universal part-of-speech tags, universaldependencies.org/u/pos."""

ENDINGS = (".conllu", ".conllu.gz")
ALL = "all"


class ConlluConfig(TextConfig):
    """``domain``: the ``genre``, which is the head of each sent_id up to its first hyphen, or the
    ``file``; ``splits``: of files such as en_ewt-ud-train.conllu the ``published`` ones, or all
    files ``joined``; see `TextConfig` for how words become numbers.
    """

    domain: Literal["genre", "file"] = "genre"
    splits: Literal["joined", "published"] = "joined"


@register("dataset", "conllu")
class Conllu(TextData):
    """Sentences of ROOT/*.conllu (or .conllu.gz) with the universal part of speech of each word.

    The label of a word stands at its first token; padding, the first token of a text and further
    pieces of a word have -100. Sentences longer than ``tokens`` are cut. All files are read
    together, whatever split their names say, unless ``splits`` is published.
    """

    Config = ConlluConfig
    config: ConlluConfig
    task = "token-classification"
    class_names = UPOS

    def domains(self) -> list[str]:
        return list(self._sentences)

    def splits(self, domain: str) -> list[str]:
        return list(self._sentences[domain])

    def split(self, domain: str, name: str) -> Split:
        return self.made(self._sentences[domain][name], torch.empty(0))

    def files(self) -> Any:
        return (file for file in self.root.iterdir() if file.name.endswith(ENDINGS))

    @cached_property
    def _sentences(self) -> dict[str, dict[str, list[Text]]]:
        """The sentences of each domain and split."""
        found: dict[str, dict[str, list[Text]]] = defaultdict(dict)
        for file in sorted(self.files()):
            name, split = file.name.partition(".")[0], ALL
            if self.config.splits == "published":
                name, _, part = name.rpartition("-")
                split = split_name(part, str(file))
            for head, text in _sentences(file):
                domain = name
                if self.config.domain == "genre":
                    domain = head.partition("-")[0]
                    if not domain:
                        raise BenchError(
                            f"{file}: the sentence {' '.join(text.words[:5])!r} has no sent_id "
                            "that begins with a genre: set domain: file"
                        )
                found[domain].setdefault(split, []).append(text)
        if not found:
            raise BenchError(
                f"root {self.root} has no sentences: this layout is ROOT/*.conllu or *.conllu.gz"
            )
        return dict(sorted(found.items()))


def _sentences(file: Path) -> Iterator[tuple[str, Text]]:
    """The sent_id of each sentence, and its words with their tags."""
    head, words, tags = "", [], []
    for number, line in enumerate([*_lines(file), ""], start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            head = value.strip() if key.strip() == "sent_id" else head
        elif line:
            fields = line.split("\t")
            if len(fields) != 10:
                raise BenchError(
                    f"{file}:{number}: has {len(fields)} fields, and a word of CoNLL-U has 10 "
                    "between tabs: correct the line"
                )
            if not fields[0].isdigit():  # 3-4 is a range of words, 3.1 an empty node
                continue
            if fields[3] not in UPOS:
                raise BenchError(
                    f"{file}:{number}: tag {fields[3]!r} is no universal part of speech; "
                    f"{did_you_mean(fields[3], UPOS)}"
                )
            words.append(fields[1])
            tags.append(UPOS.index(fields[3]))
        elif words:
            name = hashlib.sha256(" ".join(words).encode()).hexdigest()
            yield head, Text(tuple(words), name, tuple(tags))
            head, words, tags = "", [], []


def _lines(file: Path) -> list[str]:
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: cannot be read ({error}): unpack or fetch it anew") from error
