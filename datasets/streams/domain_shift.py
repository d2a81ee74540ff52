"""Domain shift over any data set: real target domains, or corruptions of the source domain."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from pydantic import Field

from bench import BenchError, DataChoice, Domain, Split, Stream, StreamConfig, register
from bench.contracts.dataset import Part
from bench.errors import did_you_mean

from .._samples import divide, joined, part_of, sample_names, without


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], pydantic.BeforeValidator(_several)]
Count = Annotated[int, Field(ge=1)]


class DomainShiftConfig(StreamConfig):
    """Which domains of which data come in which order, and how many samples of them.

    part : the stream that is reported (``test``), or the one to tune on
    data : a data set with its settings, as ``{name: image-folder, root: DIR, size: 64}``
    source : the domain that the model is trained on, or several, joined; by default the first
    targets : the target domains; by default all others
    corruptions : in the place of other domains the source domain under these, as ``blur-2``, or
        ``blur`` for both severities; by default, where the data have one domain, all there are
    order : of the target domains: as ``listed``, or ``shuffled`` by the seed
    test : share of a domain that is tested on, where the data have no test split
    source_share : share of the source domain that the model is trained on where domains are its
        corruptions; they are made of the rest
    source_samples, samples, test_samples : at most, of the source to train on, of a target domain
        to adapt on, and of each to test
    """

    part: Part = "test"
    data: DataChoice = Field(default_factory=lambda: DataChoice(name="digits"))
    source: Names = ()
    targets: Names = ()
    corruptions: Names = ()
    order: Literal["listed", "shuffled"] = "listed"
    test: float = Field(0.3, gt=0, lt=1)
    source_share: float = Field(0.6, gt=0, lt=1)
    source_samples: Count | None = None
    samples: Count | None = None
    test_samples: Count | None = None

    @pydantic.field_validator("source", "targets", "corruptions")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a thing twice; domains must be distinct")
        return value

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> DomainShiftConfig:
        if self.targets and self.corruptions:
            raise ValueError("targets and corruptions: give one of them")
        return self


@dataclass(frozen=True)
class _Divided:
    """A domain's samples: to adapt on, and to test."""

    adaptation: Split
    test: Split


@register("stream", "domain-shift")
class DomainShift(Stream):
    """Any data set: a source domain, then its other domains or corruptions of the source.

    Samples that are made of the same (equal files, equal texts) stay on one side: what is tested in
    any domain is learned in none. A data set's published train and test splits are kept; others are
    divided, classes in their shares. The source's samples are the same for every seed. The
    validation stream takes what the source model is trained on, divides it again, and has other
    corruptions.
    """

    Config = DomainShiftConfig
    preload = ("PIL.Image",)

    def __init__(self, config: DomainShiftConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.data = config.data.build()
        self.classes = len(self.data.class_names)
        self.input_shape = self.data.input_shape
        self.task = self.data.task  # type: ignore[misc]
        known = list(self.data.domains())
        self._source = config.source or tuple(known[:1])
        for key in ("source", "targets"):
            for name in getattr(config, key):
                if name not in known:
                    raise BenchError(
                        f"{key}: {config.data.name} in {self.data.root} has no domain {name!r}; "
                        f"{did_you_mean(name, known)}"
                    )
        others = [name for name in known if name not in self._source]
        if both := [name for name in config.targets if name in self._source]:
            raise BenchError(f"domain {both[0]!r} is source and target: name it once")
        self._real = bool(config.targets or (others and not config.corruptions))
        self._names = self._order(self._targets(others))

    @classmethod
    def data_digest(cls, config: Any) -> str:
        cls(config, 0)  # says at once which domain is not there
        return config.data.content_digest()

    @classmethod
    def task_of(cls, config: Any) -> str:
        from bench import load

        return load("dataset", config.data.name).task

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation"})

    def source_settings(self) -> dict[str, Any]:
        c = self.config
        kept = {"test": c.test, "source_share": c.source_share, "samples": c.source_samples}
        return {"part": c.part, "source": list(self._source), "real": self._real, **kept}

    def source(self) -> Domain:
        return self._made("source", self._source_parts, self.config.source_samples, 0)

    def domain_names(self) -> list[str]:
        return list(self._names)

    def domain(self, name: str) -> Domain:
        if name not in self._names:
            raise BenchError(
                f"domain-shift has no domain {name!r}; {did_you_mean(name, self._names)}"
            )
        if self._real and self.config.part == "test":
            return self._made(name, self._real_parts[name], self.config.samples, self.seed)
        clean, key = self._unseen, f"{self.seed}/{name}"
        made = (
            self.data.corrupted(split, name, f"{key}/{part}")
            for part, split in (("adaptation", clean.adaptation), ("test", clean.test))
        )
        return self._made(name, _Divided(*made), self.config.samples, self.seed)

    # --- names of the target domains ----------------------------------------------------------

    def _targets(self, others: Sequence[str]) -> list[str]:
        c = self.config
        if self._real and c.part == "test":
            return list(c.targets or others)
        known = self.data.corruptions(c.part)
        if not known:
            raise BenchError(
                f"{c.data.name} in {self.data.root} has one domain and no corruptions: there is no "
                "target domain"
            )
        if not c.corruptions or c.part == "validation":
            return list(known)
        names = []
        for given in c.corruptions:
            found = [name for name in known if given in (name, name.rpartition("-")[0])]
            if not found:
                kinds = dict.fromkeys(name.rpartition("-")[0] for name in known)
                raise BenchError(
                    f"corruptions: {given!r} is none of this data set's; "
                    f"{did_you_mean(given, [*kinds, *known] if '-' in given else kinds)}"
                )
            names += found
        return list(dict.fromkeys(names))

    def _order(self, names: list[str]) -> list[str]:
        if self.config.order == "listed":
            return names
        return [names[i] for i in np.random.default_rng(self.seed).permutation(len(names))]

    # --- who learns and tests what ------------------------------------------------------------

    def _published(self, domains: Iterable[str], name: str) -> Split | None:
        """A published split of domains; of those without a test split all samples as "train"."""
        found = []
        for domain in domains:
            splits = list(self.data.splits(domain))
            if name == "train" and "test" not in splits:
                found += [self.data.split(domain, each) for each in splits]
            elif name in splits:
                found.append(self.data.split(domain, name))
        return joined(found) if found else None

    @cached_property
    def _of_source(self) -> tuple[_Divided, _Divided]:
        """The test part's source, and what of its domain the source model does not learn."""
        learned = self._published(self._source, "train")
        tested = self._published(self._source, "test")
        if learned is None:
            raise BenchError(f"domain {self._source[0]!r} has no samples to train on")
        if self._real:
            if tested is None:
                learned, tested = self._divided(learned, self.config.test, 0, "source")
            source = _Divided(without(learned, tested), tested)
            return source, source
        return self._in_three(learned, tested)

    def _in_three(self, learned: Split, tested: Split | None) -> tuple[_Divided, _Divided]:
        """What the source model learns and is tested on, and what domains are made of."""
        rest, source = self._divided(learned, self.config.source_share, 0, "source")
        if tested is None:
            rest, tested = self._divided(rest, self.config.test, self.seed, "test")
        source, rest = without(source, tested), without(rest, tested)
        return _Divided(source, tested), _Divided(rest, tested)

    @cached_property
    def _parts(self) -> tuple[_Divided, _Divided]:
        source, unseen = self._of_source
        if self.config.part == "validation":
            learned = self._limited(source.adaptation, self.config.source_samples, 0, "source")
            return self._in_three(learned, None)
        return source, unseen

    @property
    def _source_parts(self) -> _Divided:
        return self._parts[0]

    @property
    def _unseen(self) -> _Divided:
        return self._parts[1]

    @cached_property
    def _real_parts(self) -> dict[str, _Divided]:
        """The real target domains, without samples that are learned here and tested there."""
        source, parts = self._source_parts, {}
        for name in self._names:
            learned, tested = (self._published([name], each) for each in ("train", "test"))
            if learned is None:
                raise BenchError(f"domain {name!r} has no samples to adapt on")
            if tested is None:
                learned, tested = self._divided(learned, self.config.test, self.seed, name)
            parts[name] = _Divided(learned, without(tested, source.adaptation))
        every = [source.test, *(part.test for part in parts.values())]
        return {n: _Divided(without(p.adaptation, *every), p.test) for n, p in parts.items()}

    def _divided(self, split: Split, share: float, seed: int, what: str) -> tuple[Split, Split]:
        """A split without ``share`` of it, and that share."""
        rest, held = divide(sample_names(split.x), split.y, share, _generator(seed, what))
        return part_of(split, rest), part_of(split, held)

    def _limited(self, split: Split, most: int | None, seed: int, what: str) -> Split:
        if most is None or most >= len(split):
            return split
        chosen = _generator(seed, f"{what}/limit").permutation(len(split))[:most]
        return part_of(split, torch.from_numpy(np.sort(chosen)))

    def _made(self, name: str, parts: _Divided, most: int | None, seed: int) -> Domain:
        learned = self._limited(parts.adaptation, most, seed, name)
        tests = self.config.test_samples
        return Domain(name, learned, self._limited(parts.test, tests, self.seed, f"{name}/test"))


def _generator(seed: int, what: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(what.encode())))
