"""Several applications at once, each with a task, data and a stream of domains of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Domain, LazyInputs, Split, Stream, StreamConfig, register, take
from bench.contracts.choice import Choice
from bench.contracts.data import Inputs, SampleType
from bench.contracts.dataset import Part
from bench.contracts.stream import ApplicationFacts
from bench.io.digest import digest
from bench.tasks.applications import (
    APP,
    MOST,
    UNITS,
    ApplicationForm,
    by_owner,
    joined_labels,
    named,
)

from .._samples import sample_names


class StreamChoice(Choice):
    """A registered stream with its settings, as one setting of another."""

    kind: ClassVar[str] = "stream"
    title: ClassVar[str] = "stream"

    def make(self, seed: int) -> Stream:
        """The stream of a seed."""
        made: Stream = self.component(self.checked(), seed)
        return made

    def data_digest(self) -> str:
        """Digest of the data that it reads, and of its code."""
        found: str = self.component.data_digest(self.checked())
        return digest([self.code(), found])

    def validation(self) -> StreamChoice:
        """Its validation stream."""
        settings = self.component.validation(self.checked()).model_dump(mode="json")
        return StreamChoice.model_validate({"name": self.name, **settings})


class Streams(pydantic.RootModel[tuple[StreamChoice, ...]], frozen=True):
    """A stream for each application, from two to `MOST`."""

    root: tuple[StreamChoice, ...] = Field(min_length=2, max_length=MOST)

    def content_digest(self) -> str:
        """Digest of settings, files and code of all."""
        return digest([each.content_digest() for each in self.root])


def _embedded() -> Streams:
    orders = ("listed", "shuffled")
    return Streams.model_validate([{"name": "digits-shift", "order": order} for order in orders])


class SeveralTasksConfig(StreamConfig):
    """Whose data the applications have.

    part : the stream that is reported (``test``), or the one to tune on
    streams : one for each application, with its settings, as ``{name: domain-shift, data: ...}``;
        by default the embedded digits twice, their shifts in two orders
    windows : target domains of each; by default as many as the application with the fewest has
    """

    part: Part = "test"
    streams: Streams = Field(default_factory=_embedded)
    windows: int | None = Field(None, ge=1, le=1000)


@register("stream", "several-tasks")
class SeveralTasks(Stream):
    """Applications with tasks and data of their own: window by window the next domain of each.

    Target domain ``window-w`` holds the samples of the w-th domain of every application's stream.
    Samples of the applications take turns, in proportion to how many each has. Inputs are a dict:
    ``app``, int64 of shape (n,), from 0; ``unit_mask``, int64 of shape (n, units), which units of
    a sample count; and the inputs of each application, which are zeros where a sample is of
    another: ``N.NAME`` of application N, or ``N`` where they are one tensor. Labels are those of
    the task ``several-tasks``. An application may be classification, token-classification or
    visual-question-answering; of a question's answers the best one is its class.
    """

    Config = SeveralTasksConfig
    config: SeveralTasksConfig
    task = "several-tasks"
    preload = ("PIL.Image",)
    input_shape = ()

    def __init__(self, config: SeveralTasksConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.streams = [choice.make(seed) for choice in config.streams.root]
        self.applications = tuple(
            ApplicationFacts(each.task, tuple(each.input_shape), each.classes)
            for each in self.streams
        )
        self._forms = [ApplicationForm(app, each) for app, each in enumerate(self.applications)]
        self.classes = max(each.classes for each in self.streams)
        self.repeats_samples = any(  # type: ignore[misc]
            each.repeats_samples for each in self.streams
        )
        self._names = [list(each.domain_names()) for each in self.streams]
        fewest = min(map(len, self._names))
        self._windows = config.windows or fewest
        if config.part == "validation":
            self._windows = min(self._windows, fewest)
        if self._windows > fewest:
            raise BenchError(
                f"windows {self._windows}: an application's stream has {fewest} target domains; "
                "take fewer windows, or give it more domains"
            )

    @classmethod
    def data_digest(cls, config: SeveralTasksConfig) -> str:
        return digest([each.data_digest() for each in config.streams.root])

    @classmethod
    def validation(cls, config: SeveralTasksConfig) -> SeveralTasksConfig:
        each = [choice.validation() for choice in config.streams.root]
        return SeveralTasksConfig(
            part="validation", streams=Streams(tuple(each)), windows=config.windows
        )

    def source_settings(self) -> dict[str, Any]:
        names = [choice.name for choice in self.config.streams.root]
        each = zip(names, self.streams, strict=True)
        return {"streams": [[name, stream.source_settings()] for name, stream in each]}

    def source(self) -> Domain:
        return self._joined("source", [stream.source() for stream in self.streams])

    def domain_names(self) -> list[str]:
        return [f"window-{number + 1}" for number in range(self._windows)]

    def domain(self, name: str) -> Domain:
        names = self.domain_names()
        if name not in names:
            raise BenchError(f"SeveralTasks has no domain {name!r}; it has {', '.join(names)}")
        window = names.index(name)
        own = zip(self.streams, self._names, strict=True)
        return self._joined(name, [stream.domain(of[window]) for stream, of in own])

    def _joined(self, name: str, own: Sequence[Domain]) -> Domain:
        """The samples of every application, in turns."""
        for app, domain in enumerate(own):
            if domain.ordered:
                raise BenchError(
                    f"application {app}: samples of its domain {domain.name!r} arrive in an order, "
                    "and those of several applications are mixed: set its arrival to mixed"
                )
        parts = ([getattr(each, part) for each in own] for part in ("adaptation", "test"))
        return Domain(name, *map(self._in_turns, parts))

    def _in_turns(self, splits: Sequence[Split]) -> Split:
        app, place = turns([len(split) for split in splits])
        for form, split in zip(self._forms, splits, strict=True):
            where = f"application {form.app}"
            form.rules.require_labels(split.y, len(split), form.facts.classes, where)
        y = joined_labels(list(zip(self._forms, [split.y for split in splits], strict=True)))
        starts = torch.tensor([0, *(len(split) for split in splits)]).cumsum(0)
        return Split(
            JoinedApplications([split.x for split in splits], self._forms, app, place),
            y[starts[app] + place],
        )


def turns(sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Whose turn it is, and which of its samples comes, both int64 of shape (n,): of any stretch
    each application has its share.
    """
    at = torch.cat([(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in sizes])
    order = at.argsort(stable=True)
    app = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    place = torch.cat([torch.arange(n) for n in sizes])
    return app[order], place[order]


class JoinedApplications(LazyInputs):
    """Inputs of several applications as the task ``several-tasks`` has them.

    ``parts``: of each application; ``app`` and ``place``: of each sample its application, and its
    position among that one's, int64 of shape (n,). Only a batch is filled up with zeros.
    """

    def __init__(
        self, parts: Sequence[Inputs], forms: Sequence[ApplicationForm], app: Tensor, place: Tensor
    ) -> None:
        super().__init__(torch.arange(len(app)))
        self._parts, self._forms = list(parts), list(forms)
        self._app, self._place = app, place

    def read(self, positions: Tensor) -> Inputs:
        app, n = self._app[positions], len(positions)
        made = {
            name: torch.zeros(n, *shape, dtype=kind)
            for name, (shape, kind) in self.sample_types.items()
        }
        made[APP] = app
        for number, rows in by_owner(app):
            own = take(self._parts[number], self._place[positions[rows]])
            for name, part in named(own, number).items():
                made[name][rows] = part
            mask = self._forms[number].unit_mask(own)
            made[UNITS][rows, : mask.shape[1]] = mask.long()
        return made

    def column(self, name: str) -> Tensor | None:
        return self._app[self.positions] if name == APP else None

    def names(self, positions: Tensor) -> list[str]:
        """Samples of two applications are different ones, even if they are made of the same."""
        every = [sample_names(part) for part in self._parts]
        places = zip(self._app[positions].tolist(), self._place[positions].tolist(), strict=True)
        return [f"{app} {every[app][place]}" for app, place in places]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        units = max(form.units for form in self._forms)
        found: dict[str, SampleType] = {APP: ((), torch.int64), UNITS: ((units,), torch.int64)}
        for number, part in enumerate(self._parts):
            found |= named(_types(part), number)
        return found

    def settings(self) -> Any:
        return [x.settings() if isinstance(x, LazyInputs) else None for x in self._parts]

    @property
    def nbytes(self) -> int:
        """Bytes of what each sample's own application has of it."""
        each = [
            sum(torch.Size(shape).numel() * kind.itemsize for shape, kind in _types(x).values())
            for x in self._parts
        ]
        own = torch.bincount(self._app[self.positions], minlength=len(each)).tolist()
        return sum(n * size for n, size in zip(own, each, strict=True))


def _types(x: Inputs) -> dict[str, SampleType]:
    if isinstance(x, LazyInputs):
        return x.sample_types
    parts = x if isinstance(x, dict) else {"": x}
    return {name: (tuple(part.shape[1:]), part.dtype) for name, part in parts.items()}
