"""Customer reviews with marked opinions, as Liu and others publish them."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench import BenchError, Split, register
from bench.io.folder_files import files_below

from ._tables import read_table
from ._texts import Text, TextConfig, TextData

MARK = re.compile(r"\[([+-])(\d?)\]")
"""An opinion on a feature, as in ``size[+2],weight[-1]##the text``."""


@register("dataset", "customer-reviews")
class CustomerReviews(TextData):
    """Sentences of reviews and whether their opinions are good: ROOT/DOMAIN/**/*.txt or *.json.

    Text files are those of Hu & Liu (KDD 2004) and Ding, Liu & Yu (WSDM 2008): a line has
    ``feature[+2],feature[-1]##sentence``. JSON files are tables with ``sentence`` and ``polarity``
    (+ or -), a row for each feature. The class is the sign of a sentence's sum; sentences without
    opinions, and with a sum of 0, are left out. A domain is a folder in the root.
    """

    Config = TextConfig
    class_names = ("negative", "positive")

    def domains(self) -> list[str]:
        return list(self._sentences)

    def split(self, domain: str, name: str) -> Split:
        sums = {text: total for text, total in self._sentences[domain].items() if total}
        if not sums:
            raise BenchError(
                f"{self.root / domain}: has no sentence with opinions such as size[+2]##text: "
                "remove the folder, or take the data set 'text-table'"
            )
        y = torch.tensor([int(total > 0) for total in sums.values()])
        return self.made([Text.of(text) for text in sums], y)

    @cached_property
    def _sentences(self) -> dict[str, dict[str, int]]:
        """The sum of opinions of each sentence, by domain."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for file in sorted(self.files()):
            domain = file.relative_to(self.root).parts[0]
            for text, opinion in _opinions(file):
                found[domain][text] += opinion
        if not found:
            raise BenchError(
                f"root {self.root} has no folders with .txt or .json files: this layout is "
                "ROOT/DOMAIN/*.txt"
            )
        return {domain: dict(sentences) for domain, sentences in found.items()}

    def files(self) -> Any:
        every = (f for f in files_below(self.root) if f.suffix in (".txt", ".json"))
        return (f for f in every if f.parent != self.root and "readme" not in f.name.lower())


def _opinions(file: Path) -> list[tuple[str, int]]:
    """Sentences and the sum of the opinions in each."""
    if file.suffix == ".json":
        found = []
        for row in read_table(file):
            sign = row.text("polarity")
            if sign not in ("+", "-"):
                raise BenchError(f"{row.place}: polarity is {sign!r}: write + or -")
            found.append((row.text("sentence"), 1 if sign == "+" else -1))
        return found
    return marked(file.read_text(encoding="utf-8", errors="replace"))


def marked(reviews: str) -> list[tuple[str, int]]:
    """Sentences of reviews, each after its opinions and ##, and the sum of the opinions in each."""
    pairs = [line.partition("##") for line in reviews.splitlines()]
    return [
        (text.strip(), sum(int(f"{sign}{n or 1}") for sign, n in MARK.findall(marks)))
        for marks, mark, text in pairs
        if mark and text.strip()
    ]
