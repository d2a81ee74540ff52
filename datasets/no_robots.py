"""No Robots: instructions and answers written by people, as Hugging Face publishes them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from bench import BenchError, register
from bench.errors import shown

from ._tables import split_name
from .question_answer import DialogueConfig, QuestionAnswer

ONE, FOLDER = "all", "data"


class NoRobotsConfig(DialogueConfig):
    """How words of questions and answers become numbers.

    tokens : of both together; a question takes half of them at most
    vocabulary : a ``tokenizer.json``; without one the most frequent words have numbers of their own
    words : how many do
    hashes : has no meaning here
    """

    tokens: int = Field(128, ge=8, le=4096)


@register("dataset", "no-robots")
class NoRobots(QuestionAnswer):
    """No Robots, for text generation: ROOT/data/{train,test}-*.parquet with column ``messages``.

    Each answer of the assistant is a sample, and the user's message before it is the question;
    system messages are left out. Inputs are the question followed by the answer; the label of a
    token is the next one where that is of the answer or its end, else -100, int64 of shape
    (n, tokens). Classes are the tokens.
    """

    Config = NoRobotsConfig

    def domains(self) -> list[str]:
        return [ONE]

    def splits(self, domain: str) -> list[str]:
        return list(self._pairs)

    def pairs(self, domain: str, name: str) -> list[tuple[str, str]]:
        return self._pairs[name]

    def files(self) -> Iterator[Path]:
        return (file for files in self._files.values() for file in files)

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """The files of each split, in the order of their names."""
        found: dict[str, list[Path]] = {}
        for file in sorted((self.root / FOLDER).glob("*.parquet")):
            head = file.name.partition("-")[0].removesuffix(".parquet").removesuffix("_sft")
            found.setdefault(split_name(head, str(file)), []).append(file)
        for name in ("train", "test"):
            if name not in found:
                raise BenchError(
                    f"{self.root / FOLDER}: has no {name}-*.parquet: fetch the folder data of "
                    "HuggingFaceH4/no_robots"
                )
        return {name: found[name] for name in ("train", "test")}

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[str, str]]]:
        if find_spec("pyarrow") is None:
            raise BenchError(
                f"root {self.root}: parquet files are read by the library pyarrow: "
                "pip install pyarrow"
            )
        return {
            name: [pair for file in files for pair in _dialogues(file)]
            for name, files in self._files.items()
        }


def _dialogues(file: Path) -> Iterator[tuple[str, str]]:
    """What users asked, and what was answered."""
    parquet = importlib.import_module("pyarrow.parquet")
    damaged = importlib.import_module("pyarrow").ArrowException
    try:
        rows: list[Any] = parquet.read_table(file, columns=["messages"])["messages"].to_pylist()
    except (damaged, OSError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise BenchError(
            f"{file}: cannot be read as parquet with a column 'messages' ({why}): fetch it anew"
        ) from error
    for i, messages in enumerate(rows):
        asked = None
        for message in messages or ():
            if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
                raise BenchError(
                    f"{file}: row {i}: message {shown(message)} has no role and content: fetch it "
                    "anew"
                )
            said = str(message["content"] or "").strip()
            if message["role"] == "assistant" and asked and said:
                yield asked, said
            if message["role"] in ("user", "assistant"):
                asked = said if message["role"] == "user" else None
