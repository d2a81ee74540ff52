"""Reviews of the four collections that continual learning of sentiment is tested on."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import torch

from bench import BenchError, Split, register
from bench.errors import shown
from bench.io.folder_files import files_below

from ._tables import SPLITS, read_table, read_text
from ._texts import Text, TextConfig, TextData
from .customer_reviews import marked

ALL = "all"
SIGNS = {"+": 1, "positive": 1, "-": -1, "negative": -1, "neutral": 0, "conflict": 0}
"""What polarities count."""

Sums = dict[str, int]
"""The sum of opinions of each sentence."""


class AbsaReviewsConfig(TextConfig):
    """How texts become numbers, see `TextConfig`.

    splits : the ``published`` ones of train.json, dev.json and test.json, whose test splits have 20
        to 200 sentences; or ``joined``, which a stream divides
    """

    tokens: int = 64
    splits: Literal["published", "joined"] = "published"


@register("dataset", "absa-reviews")
class AbsaReviews(TextData):
    """Sentences of reviews and whether their opinions are good, of HL5, Liu3, Ding9 and SemEval14.

    Either PyContinual's files, ROOT/**/DOMAIN/{train,dev,test}.json, as dat/absa/Bing5Domains/asc,
    or the original ones, whose names are the domains: ROOT/**/DOMAIN.txt with
    ``feature[+2]##sentence``, or SemEval's ROOT/**/DOMAIN.xml. The class is the sign of the sum of
    a sentence's opinions; sentences without opinions, and with a sum of 0, are left out, as is what
    is neutral or in conflict.
    """

    Config = AbsaReviewsConfig
    config: Any
    class_names = ("negative", "positive")

    def domains(self) -> list[str]:
        return list(self._sentences)

    def splits(self, domain: str) -> list[str]:
        return list(self._sentences[domain])

    def split(self, domain: str, name: str) -> Split:
        sums = {text: total for text, total in self._sentences[domain][name].items() if total}
        if not sums:
            raise BenchError(
                f"root {self.root}: domain {domain!r}: its split {name!r} has no sentence with "
                "opinions such as size[+2]##text: remove the file, or correct it"
            )
        y = torch.tensor([int(total > 0) for total in sums.values()])
        return self.made([Text.of(text) for text in sums], y)

    def files(self) -> Any:
        every = (f for f in files_below(self.root) if f.suffix in (".json", ".txt", ".xml"))
        return (f for f in every if "readme" not in f.name.lower() and _is_reviews(f))

    @cached_property
    def _sentences(self) -> dict[str, dict[str, Sums]]:
        """The opinions of sentences, by domain and split."""
        found: dict[str, dict[str, Sums]] = defaultdict(dict)
        places: dict[str, Path] = {}
        for file in sorted(self.files()):
            split = SPLITS.get(file.stem.lower())
            domain = file.parent.name if split else file.stem
            split = split if split and self.config.splits == "published" else ALL
            other = places.setdefault(domain, file)
            if other.parent != file.parent:
                raise BenchError(
                    f"{file}: domain {domain!r} is also {other}: give one another name, or remove "
                    "it"
                )
            sums = found[domain].setdefault(split, defaultdict(int))
            for text, opinion in _opinions(file):
                sums[text] += opinion
        if not found:
            raise BenchError(
                f"root {self.root} has no reviews: this layout is ROOT/**/DOMAIN/train.json, "
                "ROOT/**/DOMAIN.txt or ROOT/**/DOMAIN.xml"
            )
        order = {split: i for i, split in enumerate(SPLITS.values())}
        return {
            domain: dict(sorted(splits.items(), key=lambda pair: order.get(pair[0], 0)))
            for domain, splits in sorted(found.items())
        }


def _is_reviews(file: Path) -> bool:
    """Of JSON files those of published splits are meant: others are vocabularies, say."""
    return file.suffix != ".json" or file.stem.lower() in SPLITS


def _opinions(file: Path) -> list[tuple[str, int]]:
    """Sentences and the opinions in each."""
    if file.suffix == ".json":
        rows = read_table(file)
        return [(row.text("sentence"), _sign(row.text("polarity"), row.place)) for row in rows]
    if file.suffix == ".xml":
        return _of_semeval(file)
    return marked(read_text(file))


def _of_semeval(file: Path) -> list[tuple[str, int]]:
    try:
        sentences = list(ElementTree.fromstring(read_text(file)).iter("sentence"))
    except ElementTree.ParseError as error:
        raise BenchError(f"{file}: is not XML ({error}): fetch it anew") from error
    found = []
    for i, sentence in enumerate(sentences):
        place = f"{file}: sentence {i}"
        if not (text := (sentence.findtext("text") or "").strip()):
            raise BenchError(f"{place}: has no text: fetch the file anew")
        for term in sentence.iter("aspectTerm"):
            found.append((text, _sign(term.get("polarity", ""), place)))
    return found


def _sign(polarity: str, place: str) -> int:
    if polarity not in SIGNS:
        raise BenchError(f"{place}: polarity is {shown(polarity)}: write one of {', '.join(SIGNS)}")
    return SIGNS[polarity]
