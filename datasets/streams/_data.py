"""What all streams over data sets share: their source, and who learns and tests what."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import pydantic
import torch
from pydantic import Field

from bench import BenchError, DataChoice, Domain, Split, Stream, StreamConfig
from bench.contracts.dataset import Part
from bench.errors import did_you_mean

from .._samples import divide, joined, part_of, sample_names, without
from .._tables import SPLITS


def _several(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(str(each) if type(each) is int else each for each in value)
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], pydantic.BeforeValidator(_several)]
"""Names of different things, or one; numbers count as names."""
Count = Annotated[int, Field(ge=1)]


class DataStreamConfig(StreamConfig):
    """Which data, and how many samples of them.

    part : the stream that is reported (``test``), or the one to tune on
    data : a data set with its settings, as ``{name: image-folder, root: DIR, size: 64}``
    source : the domain that the model is trained on, or several, joined; by default the first
    test : share of a domain that is tested on, where the data have no test split
    source_samples, samples, test_samples : at most, of the source to train on, of a target domain
        to adapt on, and of each to test
    """

    part: Part = "test"
    data: DataChoice = Field(default_factory=lambda: DataChoice(name="digits"))
    source: Names = ()
    test: float = Field(0.3, gt=0, lt=1)
    source_samples: Count | None = None
    samples: Count | None = None
    test_samples: Count | None = None

    @pydantic.field_validator("*")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("names a thing twice; domains must be distinct")
        return value


@dataclass(frozen=True)
class Divided:
    """Samples of a domain: to adapt on, and to test."""

    adaptation: Split
    test: Split

    def of_classes(self, classes: Sequence[int] | None) -> Divided:
        """Those of some classes; all for None."""
        if classes is None:
            return self
        return Divided(of_classes(self.adaptation, classes), of_classes(self.test, classes))

    def without_tested(self) -> Divided:
        """As it is, but that nothing is learned that is tested."""
        return Divided(without(self.adaptation, self.test), self.test)


class DataStream(Stream):
    """A stream over a data set: its source, and which samples are learned and tested.

    Samples that are made of the same (equal files, equal texts) stay on one side: what is tested in
    any domain is learned in none. A data set's published train and test splits are kept; others are
    divided, classes in their shares. The source's samples are the same for every seed.

    Attributes
    ----------
    data : the data set
    source_domains : those that the model is trained on
    source_classes : the classes that it is trained on; None for all
    reported_classes : those of the source of part "test", which the validation stream is made of
    """

    Config: ClassVar[type[DataStreamConfig]] = DataStreamConfig
    preload = ("PIL.Image",)
    source_classes: Sequence[int] | None = None
    reported_classes: Sequence[int] | None = None

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.data = config.data.build()
        self.classes = len(self.data.class_names)
        self.input_shape = self.data.input_shape
        self.task = self.data.task  # type: ignore[misc]
        known = list(self.data.domains())
        self.source_domains = config.source or tuple(known[:1])
        self.require_domains("source", config.source)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        cls(config, 0)  # says at once which domain is not there
        return config.data.content_digest()

    @classmethod
    def task_of(cls, config: Any) -> str:
        from bench import load

        data_class = load("dataset", config.data.name)
        task: str = data_class.task_of(data_class.Config.model_validate(config.data.config))
        return task

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation"})

    def source_settings(self) -> dict[str, Any]:
        c = self.config
        kept = {"part": c.part, "source": list(self.source_domains), "test": c.test}
        if self.source_classes is not None:
            kept |= {"classes": list(self.source_classes)}
        if c.part == "validation" and self.reported_classes is not None:
            kept |= {"reported_classes": list(self.reported_classes)}
        return {**kept, "samples": c.source_samples}

    def require_domains(self, setting: str, names: Iterable[str]) -> None:
        """BenchError for a domain that the data set does not have."""
        known = list(self.data.domains())
        for name in names:
            if name not in known:
                raise BenchError(
                    f"{setting}: {self.config.data.name} in {self.data.root} has no domain "
                    f"{name!r}; {did_you_mean(name, known)}"
                )

    def require_classification(self, setting: str) -> None:
        """BenchError if samples are not of one class each, as ``setting`` needs."""
        if self.task != "classification":
            raise BenchError(
                f"{setting} is for samples of one class each, and {self.config.data.name} is "
                f"{self.task}: take other data, or leave it out"
            )

    def class_numbers(self, setting: str, names: Iterable[str]) -> list[int]:
        """Numbers of classes by their names; BenchError for one that is not there."""
        known = list(self.data.class_names)
        for name in names:
            if name not in known:
                raise BenchError(
                    f"{setting}: {self.config.data.name} has no class {name!r}; "
                    f"{did_you_mean(name, known)}"
                )
        return [known.index(name) for name in names]

    def require_name(self, name: str) -> None:
        """BenchError if there is no target domain of this name."""
        if name not in (names := self.domain_names()):
            raise BenchError(
                f"{type(self).__name__} has no domain {name!r}; {did_you_mean(name, names)}"
            )

    # --- who learns and tests what ------------------------------------------------------------

    def published(self, domains: Iterable[str], name: str) -> Split | None:
        """A published split of domains; of those without a test split all samples as "train"."""
        found = []
        for domain in domains:
            splits = list(self.data.splits(domain))
            for each in splits:
                if each not in ("all", *SPLITS.values()):
                    raise BenchError(
                        f"{self.config.data.name}: domain {domain!r} has a split {each!r}: a data "
                        f"set calls its splits {', '.join(dict.fromkeys(SPLITS.values()))} or all"
                    )
            if name == "train" and "test" not in splits:
                found += [self.data.split(domain, each) for each in splits]
            elif name in splits:
                found.append(self.data.split(domain, name))
        return joined(found) if found else None

    @cached_property
    def of_source(self) -> tuple[Split, Split | None]:
        """The source's samples to learn, and its published test split."""
        tested = [d for d in self.source_domains if "test" in self.data.splits(d)]
        if tested and len(tested) < len(self.source_domains):
            return self._partly_published()
        learned = self.published(self.source_domains, "train")
        if learned is None:
            raise BenchError(f"domain {self.source_domains[0]!r} has no samples to train on")
        return learned, self.published(self.source_domains, "test")

    def _partly_published(self) -> tuple[Split, Split]:
        """Of domains without a published test split a share is held out."""
        learned, held = [], []
        for domain in self.source_domains:
            train, test = (self.published([domain], name) for name in ("train", "test"))
            if train is None:
                raise BenchError(f"domain {domain!r} has no samples to train on")
            if test is None:
                train, test = self.divided(train, self.config.test, 0, f"source/{domain}")
            learned.append(train)
            held.append(test)
        return joined(learned), joined(held)

    def divided(self, split: Split, share: float, seed: int, what: str) -> tuple[Split, Split]:
        """A split without ``share`` of it, and that share."""
        rest, held = divide(sample_names(split.x), split.y, share, generator(seed, what))
        return part_of(split, rest), part_of(split, held)

    def limited(self, split: Split, most: int | None, seed: int, what: str) -> Split:
        """At most so many samples of a split, in their order."""
        if most is None or most >= len(split):
            return split
        chosen = generator(seed, f"{what}/limit").permutation(len(split))[:most]
        return part_of(split, torch.from_numpy(np.sort(chosen)))

    def made(self, name: str, parts: Divided, most: int | None, seed: int) -> Domain:
        """A domain of at most so many samples to adapt on."""
        learned = self.limited(parts.adaptation, most, seed, name)
        tests = self.config.test_samples
        return Domain(name, learned, self.limited(parts.test, tests, self.seed, f"{name}/test"))


def of_classes(split: Split, classes: Sequence[int]) -> Split:
    """The samples of a split that are of some classes; of scores the best one is the class."""
    y = split.y if split.y.ndim == 1 else split.y.argmax(dim=1)
    return part_of(split, torch.isin(y, torch.tensor(classes)).nonzero().squeeze(1))


def disjoint(source: Divided, parts: dict[str, Divided]) -> dict[str, Divided]:
    """Parts without samples that are learned in one of them, or the source, and tested in another.

    The source's adaptation split stays as it is.
    """
    tests = {name: without(part.test, source.adaptation) for name, part in parts.items()}
    every = [source.test, *tests.values()]
    return {n: Divided(without(p.adaptation, *every), tests[n]) for n, p in parts.items()}


def generator(seed: int, what: str) -> np.random.Generator:
    """What a stream draws ``what`` from."""
    return np.random.default_rng((seed, zlib.crc32(what.encode())))
