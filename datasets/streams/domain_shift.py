"""Domain shift over any data set: real target domains, or corruptions of the source domain."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from pydantic import Field

from bench import BenchError, Domain, Split, register

from .._samples import joined, part_of
from ._arrivals import Arrival, Markov, Mixed, dirichlet_order, markov_states, require_size
from ._data import Divided, Names, generator, of_classes
from ._shifts import OVERLAP, ShiftConfig, ShiftedStream, kinds


class DomainShiftConfig(ShiftConfig):
    """Which domains of which data come in which order, and how many samples of them.

    change : of the severity of corruptions: each severity is a domain of its own, in the order
        given (``sudden``); it rises domain by domain and falls again (``gradual``); or it rises
        sample by sample within one domain for each corruption (``within``)
    repeat : how often the target domains come, in the same order and with the same samples, as in
        recurring test-time adaptation (Hoang et al., NeurIPS 2024); the second time as ``NAME@2``
    arrival : how samples arrive: ``mixed``, or ``{name: dirichlet, concentration: 0.1}``, or
        ``{name: markov, windows: 5, domain_stay: 0.9, class_stay: 0.9, class_imbalance: 10}``
    classes : those of which there are samples to adapt on (limited categories); all are tested
    """

    change: Literal["sudden", "gradual", "within"] = "sudden"
    repeat: int = Field(1, ge=1, le=100)
    arrival: Arrival = Mixed()
    classes: Names = ()

    @pydantic.model_validator(mode="after")
    def _one_sequence(self) -> DomainShiftConfig:
        if self.change != "sudden" and self.targets:
            raise ValueError(f"change: {self.change} is of corruptions, and targets have none")
        if isinstance(self.arrival, Markov) and (self.repeat > 1 or self.change != "sudden"):
            raise ValueError(
                "arrival: markov orders the domains itself: remove 'repeat' and 'change'"
            )
        return self


@register("stream", "domain-shift")
class DomainShift(ShiftedStream):
    """Any data set: a source domain, then its other domains or corruptions of the source.

    Samples that are made of the same (equal files, equal texts) stay on one side: what is tested in
    any domain is learned in none. A data set's published train and test splits are kept; others are
    divided, classes in their shares. The source's samples are the same for every seed. The
    validation stream takes what the source model is trained on, divides it again, and has other
    corruptions. Where ``arrival`` is a Markov chain, a domain is a window of one sequence over all
    domains; its test split has samples of these in the window's shares, their classes as they are.
    """

    Config = DomainShiftConfig
    config: DomainShiftConfig

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        if config.change != "sudden":
            if self._other_domains:
                raise BenchError(
                    f"change: {config.change} is of corruptions: name some, or leave it out"
                )
            if any(OVERLAP in name for name in self.inputs):
                raise BenchError(f"change: {config.change}: give corruptions one by one")
        if config.classes or config.arrival.name == "dirichlet":
            setting = "classes" if config.classes else "arrival: dirichlet"
            self.require_classification(setting)
        self._limited = self.class_numbers("classes", config.classes)
        if isinstance(config.arrival, Markov):
            if config.arrival.of_classes:
                self.require_classification("arrival: markov over classes")
            require_size(config.arrival, len(self.inputs), self.classes)
        self._steps = self._make_steps()

    @classmethod
    def validation(cls, config: Any) -> Any:
        """The validation stream has other domains: transitions between those given are not its."""
        made = super().validation(config)
        if isinstance(made.arrival, Markov):
            arrival = made.arrival.model_copy(update={"domain_matrix": ()})
            made = made.model_copy(update={"arrival": arrival})
        return made

    def source(self) -> Domain:
        return self.made("source", self.source_parts, self.config.source_samples, 0)

    def domain_names(self) -> list[str]:
        if isinstance(self.config.arrival, Markov):
            return [f"window-{i + 1}" for i in range(self.config.arrival.windows)]
        return list(self._steps)

    def domain(self, name: str) -> Domain:
        self.require_name(name)
        if isinstance(self.config.arrival, Markov):
            return self._window(self.domain_names().index(name))
        return self._step(name)

    # --- domain by domain ---------------------------------------------------------------------

    def _make_steps(self) -> dict[str, list[str]]:
        """The shifts of each domain, in its order: several where the severity rises within."""
        change = self.config.change
        if change == "within":
            once = list(kinds(self.inputs).items())
        elif change == "gradual":
            rising = kinds(self.inputs).values()
            once = [(n, [n]) for of in rising for n in (*of, *reversed(of[:-1]))]
        else:
            once = [(name, [name]) for name in self.inputs]
        steps: dict[str, list[str]] = {}
        seen: dict[str, int] = {}
        for name, shifts in once * self.config.repeat:
            seen[name] = seen.get(name, 0) + 1
            steps[name if seen[name] == 1 else f"{name}@{seen[name]}"] = shifts
        return steps

    def _step(self, name: str) -> Domain:
        shifts, arrival = self._steps[name], self.config.arrival
        base = name.partition("@")[0]
        clean = self.clean(shifts[0])
        learned = clean.adaptation
        if self._limited:
            learned = of_classes(learned, self._limited)
        parts = Divided(learned, clean.test)
        domain = self.made(base, parts, self.config.samples, self.seed)
        learned, ordered = domain.adaptation, len(shifts) > 1
        rng = generator(self.seed, f"{base}/order")
        if arrival.name == "dirichlet":
            order, ordered = dirichlet_order(learned.y.numpy(), arrival, rng), True
            learned = part_of(learned, torch.from_numpy(order))
        elif ordered:
            learned = part_of(learned, torch.from_numpy(rng.permutation(len(learned))))
        tested = domain.test
        if len(shifts) > 1:  # of every class some samples under every severity
            order = generator(self.seed, f"{base}/order/test").permutation(len(tested))
            tested = part_of(tested, torch.from_numpy(order))
        made = (
            self._risen(split, shifts, f"{self.seed}/{base}/{part}")
            for part, split in (("adaptation", learned), ("test", tested))
        )
        return Domain(name, *made, ordered=ordered)

    def _risen(self, split: Split, shifts: list[str], key: str) -> Split:
        """A split whose samples are shifted, the first ones by the first shift, and so on."""
        if len(shifts) == 1:
            return self.shifted(split, shifts[0], key)
        pieces = np.array_split(np.arange(len(split)), len(shifts))
        return joined([
            self.shifted(part_of(split, torch.from_numpy(piece)), shift, f"{key}/{shift}")
            for piece, shift in zip(pieces, shifts, strict=True)
            if len(piece)
        ])  # fmt: skip

    # --- one sequence over all domains --------------------------------------------------------

    @cached_property
    def _whole(self) -> list[Divided]:
        """The samples of every shift."""
        made = []
        for shift in self.inputs:
            clean = self.clean(shift)
            learned = (
                of_classes(clean.adaptation, self._limited) if self._limited else clean.adaptation
            )
            domain = self.made(shift, Divided(learned, clean.test), None, self.seed)
            key = f"{self.seed}/{shift}"
            made.append(
                Divided(
                    self.shifted(domain.adaptation, shift, f"{key}/adaptation"),
                    self.shifted(domain.test, shift, f"{key}/test"),
                )
            )
        return made

    @cached_property
    def _sequence(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each sample of the sequence the shift, and its position among that one's samples."""
        arrival = self.config.arrival
        assert isinstance(arrival, Markov)
        rng = generator(self.seed, "markov")
        sizes = [len(part.adaptation) for part in self._whole]
        steps = arrival.windows * (self.config.samples or max(sum(sizes) // arrival.windows, 1))
        classes = self.classes if arrival.of_classes else 1
        shifts, labels = markov_states(len(self.inputs), classes, arrival, steps, rng)
        waiting = {
            (d, c): rng.permutation(self._members(d, c if classes > 1 else None))
            for d in range(len(self.inputs))
            for c in range(classes)
        }
        positions, come = np.empty(steps, dtype=np.int64), dict.fromkeys(waiting, 0)
        for step, state in enumerate(zip(shifts.tolist(), labels.tolist(), strict=True)):
            members = waiting[state]
            if not len(members):
                raise BenchError(
                    f"arrival: markov: domain {self.inputs[state[0]]!r} has no samples of class "
                    f"{self.data.class_names[state[1]]!r} to adapt on: give a class_matrix that "
                    "leaves the class out, or the domain some samples"
                )
            positions[step] = members[come[state] % len(members)]  # all have come: again
            come[state] += 1
        return shifts, positions

    def _members(self, shift: int, of_class: int | None) -> np.ndarray:
        y = self._whole[shift].adaptation.y
        if of_class is None:
            return np.arange(len(y))
        return np.flatnonzero(y.numpy() == of_class)

    def _window(self, number: int) -> Domain:
        shifts, positions = (
            np.array_split(part, len(self.domain_names()))[number] for part in self._sequence
        )
        present, counts = np.unique(shifts, return_counts=True)
        starts = np.cumsum([0, *(len(self._whole[d].adaptation) for d in present)])
        places = positions + starts[np.searchsorted(present, shifts)]
        learned = joined([self._whole[d].adaptation for d in present])
        tests = [self._whole[d].test for d in present]
        most = min(map(len, tests))
        tested = [
            self.limited(
                test, max(round(most * n / len(shifts)), 1), self.seed, f"{self.inputs[d]}/window"
            )
            for d, n, test in zip(present.tolist(), counts.tolist(), tests, strict=True)
        ]
        name = self.domain_names()[number]
        return Domain(
            name, part_of(learned, torch.from_numpy(places)), joined(tested), ordered=True
        )
