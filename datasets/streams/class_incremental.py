"""New classes come along the stream, alone or in turn with shifts of the inputs, over any data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import cycle
from typing import Any, Literal

import numpy as np

from bench import BenchError, Domain, register

from ._data import Count, DataStream, DataStreamConfig, Divided, Names, disjoint, of_classes
from ._shifts import ShiftConfig, ShiftedStream

LEAST_SOURCE = 3
"""Classes of a source: the validation stream needs two of them, and one that is new."""

ANSWERS = "visual-question-answering"
Tasks = list[list[int]]


class ClassesConfig(DataStreamConfig):
    """As `DataStreamConfig`, and which classes come when.

    source_classes : the classes of the source, by name, or how many of the first ones; by default
        two in five, three at least
    per_task : new classes in a task; the last one has what is left
    task_order : of the other classes: as ``listed`` in the data, or ``shuffled`` by the seed
    """

    source_classes: Names | Count | None = None
    per_task: Count = 2
    task_order: Literal["listed", "shuffled"] = "listed"


class ClassIncrementalConfig(ClassesConfig):
    """Which classes of which data come when, and how many samples of them."""


class MixedConfig(ClassesConfig, ShiftConfig):
    """Which classes of which data come when, under which shifts, and how many samples of them."""


class _Classes(DataStream):
    """A stream whose source has some classes, and whose tasks bring the others.

    The validation stream knows the source's classes alone: the last of them come as its tasks, up
    to as many as the reported stream has, and the others, two at least, are its own source.
    """

    supervised = True
    config: ClassesConfig

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        if self.task != ANSWERS:  # which have a score each
            self.require_classification(f"a stream of new classes ({type(self).__name__})")
        chosen = self._chosen_source()
        self.reported_classes = chosen
        others = [number for number in range(self.classes) if number not in chosen]
        if not others:
            raise BenchError(
                f"source_classes: the source has all {self.classes} classes of {config.data.name}, "
                "so that none is new: name fewer"
            )
        self.tasks = self._tasks(others)
        if config.part == "validation":
            most = min(len(self.tasks) * config.per_task, len(chosen) - 2)
            if most < 1:
                raise BenchError(
                    f"source_classes: a source of {len(chosen)} classes leaves none for the tasks "
                    f"of a validation stream: give it {LEAST_SOURCE} or more"
                )
            chosen, others = chosen[:-most], chosen[-most:]
            self.tasks = self._tasks(others)
        self.source_classes = chosen

    def _chosen_source(self) -> list[int]:
        given = self.config.source_classes
        if isinstance(given, tuple):
            return self.class_numbers("source_classes", given)
        if given is None:
            given = max(round(0.4 * self.classes), LEAST_SOURCE)
        if given < 2:
            raise BenchError("source_classes: 1 is too few to tell apart: give 2 or more")
        return list(range(min(given, self.classes)))

    def _tasks(self, classes: Sequence[int]) -> Tasks:
        """The new classes of each task."""
        listed = list(classes)
        if self.config.task_order == "shuffled":
            order = np.random.default_rng(self.seed).permutation(len(listed))
            listed = [listed[i] for i in order]
        n = self.config.per_task
        return [listed[i : i + n] for i in range(0, len(listed), n)]

    def _name(self, task: Sequence[int]) -> str:
        return "-".join(["classes", *map(str, sorted(task))])


@register("stream", "class-incremental")
class ClassIncremental(_Classes):
    """Labelled classification data, or answers: a source of some classes, then tasks of new ones.

    A domain is a task and has the samples of its new classes, as they are; it is named by their
    numbers. Of answers with scores the best one is the class. The outputs of all classes are there
    from the start; which task a test sample is from is not given. Published train and test splits
    are kept; else a share of each class is tested.
    """

    Config = ClassIncrementalConfig
    shifts = ("class",)

    def source(self) -> Domain:
        return self.made("source", self._source, self.config.source_samples, 0)

    def domain_names(self) -> list[str]:
        return [self._name(task) for task in self.tasks]

    def domain(self, name: str) -> Domain:
        self.require_name(name)
        return self.made(name, self._parts[name], self.config.samples, self.seed)

    @cached_property
    def _source(self) -> Divided:
        assert self.source_classes is not None
        return self._of(self.source_classes, 0, "source")

    @cached_property
    def _parts(self) -> dict[str, Divided]:
        parts = {self._name(t): self._of(t, self.seed, self._name(t)) for t in self.tasks}
        return disjoint(self._source, parts)

    def _of(self, classes: Sequence[int], seed: int, what: str) -> Divided:
        """The samples of some classes, of this part."""
        learned, tested = self.of_source
        if self.config.part == "validation":
            assert self.reported_classes is not None
            reported = self._reported(self.reported_classes)
            learned, tested = self.limited(reported, self.config.source_samples, 0, "source"), None
        learned = of_classes(learned, classes)
        if tested is not None:
            return Divided(learned, of_classes(tested, classes)).without_tested()
        return Divided(*self.divided(learned, self.config.test, seed, what))

    def _reported(self, classes: Sequence[int]) -> Any:
        """What the source model of the reported stream learns."""
        learned, tested = (None if s is None else of_classes(s, classes) for s in self.of_source)
        assert learned is not None
        if tested is not None:
            return Divided(learned, tested).without_tested().adaptation
        return self.divided(learned, self.config.test, 0, "source")[0]


@register("stream", "mixed")
class MixedShift(_Classes, ShiftedStream):
    """Any labelled classification data: new classes and shifts of the inputs in turn.

    First a shift of the classes known so far, then new classes under the next shift, and so on; the
    shifts are other domains of the data, or corruptions, and come again when all have come. Outputs
    as in class-incremental. The validation stream has other classes as its tasks, all of the
    source's, and other corruptions.
    """

    Config = MixedConfig
    shifts = ("domain", "class")

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        order, known = cycle(self.inputs), list(self.source_classes or ())
        self._steps: dict[str, tuple[str, list[int]]] = {}
        for task in self.tasks:
            for classes, prefix in ((list(known), ""), (task, f"{self._name(task)}-")):
                shift = next(order)
                name = base = f"{prefix}{shift}"
                again = 1
                while name in self._steps:
                    again += 1
                    name = f"{base}@{again}"
                self._steps[name] = (shift, classes)
            known += task

    def source(self) -> Domain:
        return self.made("source", self.source_parts, self.config.source_samples, 0)

    def domain_names(self) -> list[str]:
        return list(self._steps)

    def domain(self, name: str) -> Domain:
        self.require_name(name)
        shift, classes = self._steps[name]
        clean = self.clean(shift).of_classes(classes)
        domain = self.made(name, clean, self.config.samples, self.seed)
        key = f"{self.seed}/{name}"
        made = (
            self.shifted(split, shift, f"{key}/{part}")
            for part, split in (("adaptation", domain.adaptation), ("test", domain.test))
        )
        return Domain(name, *made)
