"""Multiple choice questions of medicine and law, as AdaptLLM publishes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from bench import BenchError, register
from bench.errors import did_you_mean, shown

from ._tables import Row, json_rows
from .question_answer import DialogueConfig, QuestionAnswer

ONE, FILE = "all", "test.json"


class ChoiceTasksConfig(DialogueConfig):
    """Which tasks are read, and how words of questions and answers become numbers.

    tasks : the folders that are read; by default all
    test : share of the questions that is tested: of each task, drawn from a fixed seed, as nothing
        but one file of each is published
    tokens : of question and answer together; a question takes half of them at most
    vocabulary : a ``tokenizer.json``; without one the most frequent words have numbers of their own
    words : how many do
    hashes : has no meaning here
    """

    tasks: tuple[str, ...] = ()
    test: float = Field(0.2, gt=0, lt=1)
    tokens: int = Field(256, ge=8, le=4096)


class _ChoiceTasks(QuestionAnswer):
    """ROOT/TASK/test.json: objects with ``input``, ``options`` and ``gold_index``."""

    Config = ChoiceTasksConfig

    def domains(self) -> list[str]:
        return [ONE]

    def splits(self, domain: str) -> list[str]:
        return ["train", "test"]

    def pairs(self, domain: str, name: str) -> list[tuple[str, str]]:
        return [pair for of in self._tasks.values() for pair in _part(of, name, self.config.test)]

    def files(self) -> Iterator[Path]:
        return iter(self._files)

    @cached_property
    def _files(self) -> list[Path]:
        there = {file.parent.name: file for file in sorted(self.root.glob(f"*/{FILE}"))}
        if not there:
            raise BenchError(f"root {self.root} has no tasks: this layout is ROOT/TASK/{FILE}")
        for task in self.config.tasks:
            if task not in there:
                raise BenchError(
                    f"{self.root / task / FILE}: is not there, and 'tasks' names it; "
                    f"{did_you_mean(task, there)}"
                )
        return [there[task] for task in self.config.tasks or there]

    @cached_property
    def _tasks(self) -> dict[str, list[tuple[str, str]]]:
        """The questions and answers of each task."""
        return {file.parent.name: [_pair(row) for row in json_rows(file)] for file in self._files}


@register("dataset", "medicine-tasks")
class MedicineTasks(_ChoiceTasks):
    """Questions of medicine with options, for text generation: ROOT/{ChemProt,RCT,...}/test.json.

    The question is ``input`` with the options, if it does not name them, and the answer the right
    option; of ``input_options`` the question is what all begin with, and the answer the rest of the
    right one with ``output``. What is right is never told by the question. Inputs are the question
    followed by the answer; the label of a token is the next one where that is of the answer or its
    end, else -100, int64 of shape (n, tokens). Classes are the tokens.
    """


@register("dataset", "law-tasks")
class LawTasks(_ChoiceTasks):
    """Questions of law with options, for text generation: ROOT/{scotus,case_hold,...}/test.json.

    As medicine-tasks: the question is ``input`` with the options, and the answer the right option.
    """


def _pair(row: Row) -> tuple[str, str]:
    """A question, with its options where it has them, and the answer."""
    if "input_options" in row.values:
        inputs, gold = _options(row, "input_options"), _gold(row)
        words = [each.split() for each in inputs]
        ends = min(map(len, words)) - 1  # where one is the beginning of all others
        rows = enumerate(zip(*words, strict=False))
        n = next((i for i, of in rows if len(set(of)) > 1), ends)
        if n < 1:
            raise BenchError(
                f"{row.place}: its input_options begin with no common question: correct them, or "
                "remove the row"
            )
        return " ".join(words[0][:n]), " ".join([*words[gold][n:], row.text("output")])
    question, options = row.text("input"), _options(row, "options")
    gold = _gold(row)
    if not all(option in question for option in options):
        question = "\n".join([question, *(f"- {option}" for option in options)])
    return question, options[gold]


def _options(row: Row, column: str) -> list[str]:
    found = row.values.get(column)
    if not isinstance(found, list) or len(found) < 2 or not all(map(_is_text, found)):
        raise BenchError(
            f"{row.place}: {column} is {shown(found)}: give two texts or more, or remove the row"
        )
    return [option.strip() for option in found]


def _gold(row: Row) -> int:
    """The place of the right option."""
    gold, n = row.values.get("gold_index"), len(row.values.get("options", ()))
    n = n or len(row.values.get("input_options", ()))
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < n:
        raise BenchError(
            f"{row.place}: gold_index is {shown(gold)}, and there are {n} options: correct it, or "
            "remove the row"
        )
    return gold


def _is_text(option: Any) -> bool:
    return isinstance(option, str) and bool(option.strip())


def _part(pairs: Sequence[tuple[str, str]], name: str, share: float) -> Iterator[tuple[str, str]]:
    """The questions of a split: equal ones are on one side, whatever else a file has."""
    asked = list(dict.fromkeys(question for question, _ in pairs))
    order = np.random.default_rng(0).permutation(len(asked))
    held = {asked[i] for i in order[: max(round(share * len(asked)), 1)]}
    return ((q, a) for q, a in pairs if (q in held) == (name == "test"))
