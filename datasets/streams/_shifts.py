"""Streams whose inputs shift: to the other domains of the data, or to corruptions of the source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from bench import BenchError, Split
from bench.errors import did_you_mean

from .._samples import without
from ._data import DataStream, DataStreamConfig, Divided, Names, disjoint, of_classes

OVERLAP = "+"
"""Between the names of corruptions that a sample is given together, as ``blur-1+noise-2``."""


class ShiftConfig(DataStreamConfig):
    """As `DataStreamConfig`, and what the inputs shift to.

    targets : the target domains; by default all others
    corruptions : in the place of other domains the source domain under these, as ``blur-2``,
        ``blur`` for all severities, or ``blur-1+noise-2`` for both together; by default, where the
        data have one domain, all there are
    family : of the corruptions, as ``imagenet-c``; by default the first one that has them all
    order : of the target domains: as ``listed``, or ``shuffled`` by the seed
    source_share : share of the source domain that the model is trained on where domains are its
        corruptions; they are made of the rest
    """

    targets: Names = ()
    corruptions: Names = ()
    family: str = ""
    order: Literal["listed", "shuffled"] = "listed"
    source_share: float = Field(0.6, gt=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> ShiftConfig:
        if self.targets and (self.corruptions or self.family):
            raise ValueError("targets and corruptions: give one of them")
        return self


class ShiftedStream(DataStream):
    """A stream of shifts, whose order a subclass makes its domains of.

    The validation stream takes what the source model is trained on, divides it again, and has
    corruptions of its own: of the family that the stream has, those held out for validation.

    Attributes
    ----------
    real : whether the shifts are domains of the data, and not corruptions
    inputs : the names of the shifts, in the order of the stream
    """

    Config = ShiftConfig

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.require_domains("targets", config.targets)
        others = [name for name in self.data.domains() if name not in self.source_domains]
        if both := [name for name in config.targets if name in self.source_domains]:
            raise BenchError(f"domain {both[0]!r} is source and target: name it once")
        corrupts = config.corruptions or config.family
        # The source of a validation stream is divided as that of its test stream.
        self._other_domains = bool(config.targets or (others and not corrupts))
        self.real = self._other_domains and config.part == "test"
        self._family = self._find_family()
        self.inputs = self._ordered(list(config.targets or others) if self.real else self._names())

    def source_settings(self) -> dict[str, Any]:
        kept = {"real": self._other_domains, "source_share": self.config.source_share}
        return {**super().source_settings(), **kept}

    # --- names --------------------------------------------------------------------------------

    def _find_family(self) -> str:
        """The family of the corruptions; BenchError if none has them."""
        families, asked = ("", *self.data.families), self.config.family
        if asked and asked not in families:
            raise BenchError(f"family: {asked!r} is unknown; {did_you_mean(asked, families[1:])}")
        every = {name: self.data.corruptions("test", name) for name in families}
        if self.config.corruptions and not any(every.values()):
            raise BenchError(f"corruptions: {self.config.data.name} has none: name target domains")
        missing = {}
        for family in [asked] if asked else families:
            known = {*every[family], *map(_kind, every[family])}
            given = [part for name in self.config.corruptions for part in name.split(OVERLAP)]
            missing[family] = next((name for name in given if name not in known), None)
            if missing[family] is None:
                if family:
                    self.data.require_family(family)
                return family
        elsewhere = {n for names in every.values() for n in names}
        wrong = next(iter(missing.values()))
        assert wrong is not None
        if not asked and wrong in elsewhere | set(map(_kind, elsewhere)):
            raise BenchError(
                f"corruptions: {', '.join(self.config.corruptions)} are not of one family: take "
                "those of one, see 'bench data show'"
            )
        names = [n for family in missing for n in every[family]]
        known_names = [*map(_kind, names), *names] if "-" in wrong else map(_kind, names)
        raise BenchError(
            f"corruptions: {wrong!r} is none of this data set's; "
            f"{did_you_mean(wrong, dict.fromkeys(known_names))}"
        )

    def _names(self) -> list[str]:
        """The corruptions of this part, those that are named or all."""
        c = self.config
        known = list(self.data.corruptions(c.part, self._family))
        if not known:
            raise BenchError(
                f"{c.data.name} in {self.data.root} has one domain and no corruptions: there is no "
                "target domain"
            )
        if not c.corruptions or c.part == "validation":
            return known
        names: list[str] = []
        for given in c.corruptions:
            if OVERLAP not in given:
                names += [name for name in known if given in (name, _kind(name))]
                continue
            for part in given.split(OVERLAP):
                if part not in known:
                    raise BenchError(
                        f"corruptions: {given!r}: give {part!r} a severity, as {part}-1"
                    )
            names.append(given)
        return list(dict.fromkeys(names))

    def _ordered(self, names: list[str]) -> list[str]:
        if self.config.order == "listed":
            return names
        return [names[i] for i in np.random.default_rng(self.seed).permutation(len(names))]

    # --- samples ------------------------------------------------------------------------------

    def shifted(self, split: Split, shift: str, key: str) -> Split:
        """A split under a corruption, or several together; as it is where the shifts are real."""
        if self.real:
            return split
        prefix = f"{self._family}/" if self._family else ""
        for number, name in enumerate(shift.split(OVERLAP)):
            split = self.data.corrupted(split, prefix + name, f"{key}/{number}" if number else key)
        return split

    def clean(self, shift: str) -> Divided:
        """The samples that a shift is made of, before corruptions."""
        return self._real_parts[shift] if self.real else self._parts[1]

    @property
    def source_parts(self) -> Divided:
        """What the source model learns, and is tested on."""
        return self._parts[0].of_classes(self.source_classes)

    @cached_property
    def _of_test_part(self) -> tuple[Divided, Divided]:
        """The test part's source, and what of its domain the source model does not learn."""
        learned, tested = self.of_source
        if self._other_domains:
            if tested is None:
                learned, tested = self.divided(learned, self.config.test, 0, "source")
            source = Divided(without(learned, tested), tested)
            return source, source
        return self._in_three(learned, tested)

    def _in_three(self, learned: Split, tested: Split | None) -> tuple[Divided, Divided]:
        """What the source model learns and is tested on, and what domains are made of."""
        rest, source = self.divided(learned, self.config.source_share, 0, "source")
        if tested is None:
            rest, tested = self.divided(rest, self.config.test, self.seed, "test")
        source, rest = without(source, tested), without(rest, tested)
        return Divided(source, tested), Divided(rest, tested)

    @cached_property
    def _parts(self) -> tuple[Divided, Divided]:
        source, unseen = self._of_test_part
        if self.config.part == "test":
            return source, unseen
        learned = source.adaptation
        if self.reported_classes is not None:
            learned = of_classes(learned, self.reported_classes)
        learned = self.limited(learned, self.config.source_samples, 0, "source")
        return self._in_three(learned, None)

    @cached_property
    def _real_parts(self) -> dict[str, Divided]:
        """The real target domains, without samples that are learned here and tested there."""
        parts = {}
        for name in self.inputs:
            learned, tested = (self.published([name], each) for each in ("train", "test"))
            if learned is None:
                raise BenchError(f"domain {name!r} has no samples to adapt on")
            if tested is None:
                learned, tested = self.divided(learned, self.config.test, self.seed, name)
            parts[name] = Divided(learned, tested)
        return disjoint(self._parts[0], parts)


def _kind(name: str) -> str:
    return name.rpartition("-")[0]


def kinds(names: Sequence[str]) -> dict[str, list[str]]:
    """Corruptions by their kind, in rising severity."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_kind(name), []).append(name)
    return {kind: sorted(of, key=lambda n: int(n.rpartition("-")[2])) for kind, of in found.items()}
