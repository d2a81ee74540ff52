"""From a suite to cells, and from cells and the store to what is still to run."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pydantic

from bench import registry
from bench.contracts.model import SourceTraining
from bench.contracts.protocol import protocol_class
from bench.contracts.settings import file_digests, leaves
from bench.costs.device_profile import absolute_name, load_device, profile_digest
from bench.errors import BenchError, did_you_mean
from bench.io.digest import digest
from bench.io.duration import duration
from bench.records.cell import Cell, CellDigests, Component, variant_title
from bench.records.protocol_facts import DEFAULT, protocol_facts
from bench.records.record import Record
from bench.records.store import Store
from bench.records.summary import RecordSummary
from bench.registry.component_code import component_digest
from bench.registry.declarations import shortened
from bench.registry.discovery import Entry
from bench.study.build import component_code, config_of, source_training
from bench.study.foretell import TrainingKinds, by_kind, closing_windows
from bench.study.job import Job, make_job
from bench.study.suite import FULL, ModelReference, Reference, Suite, explain, validated
from bench.study.tuned_settings import (
    Tuned,
    changed_since,
    require_fit,
    settle,
    stale_note,
    tuned_on,
)


def make_cells(
    suite: Suite, path: Path, tuned: Tuned | None = None, others: Sequence[Tuned] = ()
) -> list[Cell]:
    """Every cell of a suite: devices in seeds in draws of the source in variants in methods in
    models.

    Methods get the ``tuned`` settings, but for those that the suite gives. Where a suite has
    several models they get those of ``tuned`` and ``others`` that were tuned on the cell's model,
    else their defaults. Supervised references are yardsticks and run on the first variant alone.
    Raises BenchError for unknown names and for settings outside their bounds.
    """
    return list(_cells(suite, path, tuned, others).values())


def _cells(
    suite: Suite, path: Path, tuned: Tuned | None, others: Sequence[Tuned]
) -> dict[str, Cell]:
    """As `make_cells`, by their identities, which take seconds of thousands of cells."""
    where = f"suite {path}"
    protocol = _protocol(suite.protocol, f"{where}: protocol")
    stream = _component("stream", suite.stream, f"{where}: stream")
    key = "models" if suite.models else "model"
    models = [model_component(reference, f"{where}: {key}") for reference in suite.all_models()]
    for model in models:
        _require_drawn(suite, model, where)
    variants = [_variant(reference, f"{where}: variants") for reference in suite.variants]
    if tuned is not None and not suite.models:
        require_fit(suite, tuned, models[0].name)
    data = _data_digest(stream, where)
    devices = [(absolute_name(n), profile_digest(load_device(n))) for n in suite.devices]
    cells: dict[str, Cell] = {}
    digests = CellDigests()
    for model in models:
        fitting = tuned_on(model.name, suite, tuned, others)
        for i, (reference, labelled) in enumerate(suite.all_methods()):
            for variant in variants[:1] if labelled else variants:
                settled, origin = settle(reference, fitting, variant_title(variant))
                source = f"{where}: method {i + 1}"
                if settled is not reference:
                    source += f" with its {origin} settings"
                method = _component("method", settled, source)
                first = Cell(
                    method=method,
                    model=model,
                    stream=stream,
                    data=data,
                    device="",
                    device_digest="",
                    protocol=protocol,
                    seed=0,
                    target_labels=labelled,
                    settings_origin=origin,
                    variant=variant,
                    accelerator=suite.accelerator,
                    threads=suite.threads,
                    precision=suite.precision,
                )
                each = product(range(suite.source_draws), suite.seeds, devices)
                for draw, seed, (device, device_digest) in each:
                    own: dict[str, Any] = {"device": device, "device_digest": device_digest}
                    own |= {"seed": seed, "source_draw": draw}  # numbers that the suite has checked
                    cell = first.model_copy(update=own)
                    cells[digests.identity(cell)] = cell
    return cells


def _protocol(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of a protocol with its defaults, and its code if it is not the core's."""
    try:
        kind = protocol_class(settings)
    except BenchError as error:
        raise BenchError(f"{where}: key 'name': {error}") from error
    config = validated(kind.Config, {"name": DEFAULT, **settings}, where)
    entry = registry.entry("protocol", config.name)
    code = "" if entry.module.startswith("bench.") else component_digest(entry)
    return config.model_copy(update={"code": code}).model_dump(mode="json")


def _variant(reference: Reference, where: str) -> Component | None:
    """None for the full model."""
    if reference.name == FULL:
        return None
    known = [FULL, *registry.entries("variant")]
    if reference.name not in known:
        raise BenchError(
            f"{where}: unknown variant {reference.name!r}: {did_you_mean(reference.name, known)}"
        )
    variant = _component("variant", reference, where)
    if "ratio" not in variant.config:  # titles and the names of tuned settings hold it
        raise BenchError(
            f"{where}: variant {variant.name!r} has no setting 'ratio'; add it to its Config"
        )
    return variant


def model_component(reference: ModelReference, where: str) -> Component:
    """A suite's model as cells have it; BenchError with ``where`` it is."""
    model = _component("model", reference, where)
    where += f" {reference.name!r}: training"
    try:
        default = source_training(model.name, {}).model_dump()
        given = source_training(model.name, reference.training).model_dump()
    except pydantic.ValidationError as error:
        raise BenchError(f"{where}: {explain(error, SourceTraining)}") from error
    changed = {key: value for key, value in given.items() if value != default[key]}
    return model.model_copy(update={"training": changed})


def _require_drawn(suite: Suite, model: Component, where: str) -> None:
    """Raise BenchError if several draws of a source model are asked for that is not drawn."""
    if suite.source_draws > 1 and source_training(model.name, model.training).epochs == 0:
        raise BenchError(
            f"{where}: source_draws {suite.source_draws}: model {model.name!r} is not trained on "
            "the source (epochs 0), so that there is one of it; take 1, or give it epochs under "
            "training"
        )


def _component(kind: str, reference: Reference, where: str) -> Component:
    try:
        entry = registry.entry(kind, reference.name)
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error
    where += f" {reference.name!r}"
    _require_once(entry, reference, where)
    config_class = registry.load(kind, reference.name).Config
    config = validated(config_class, reference.config, where)
    settings = _as_json(config, where)
    try:
        files = file_digests(config)
        code = component_code(kind, Reference(name=reference.name, config=settings))
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error
    except pydantic.ValidationError as error:  # pydantic does not look at defaults by itself
        told = explain(error, config_class)
        raise BenchError(f"{where}: {told}: correct the default in its Config") from error
    name = _name(entry, settings, files, where)
    return Component(name=name, config=settings, code=code, files=files)


def _name(entry: Entry, settings: dict[str, Any], files: dict[str, str], where: str) -> str:
    """The component's name, with the setting that may stand behind it unless that is a path or
    empty: one name for both ways of writing it, which titles and tables show.
    """
    setting = entry.facts.get("named_setting")
    base = entry.name.partition(":")[0]
    if setting and setting not in settings:
        told = did_you_mean(str(setting), settings)
        raise BenchError(f"{where}: its named_setting {setting!r} is no setting; {told}")
    if not setting or not settings[setting] or setting in files:
        return base
    return f"{base}:{settings[setting]}"


def _require_once(entry: Entry, reference: Reference, where: str) -> None:
    setting = entry.facts.get("named_setting")
    if ":" in entry.name and setting in reference.config:
        raise BenchError(
            f"{where}: key {setting!r}: the name gives it already; write it in one place"
        )


def _data_digest(stream: Component, where: str) -> str:
    where += f": stream {stream.name!r}: data_digest"
    try:
        found = registry.load("stream", stream.name).data_digest(config_of("stream", stream))
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error
    except Exception as error:
        raise BenchError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(found, str):
        raise BenchError(f"{where} gave {shortened(found)}: return a text")
    return found


def _as_json(config: pydantic.BaseModel, where: str) -> dict[str, Any]:
    """All settings as a record keeps them; BenchError for what JSON cannot say."""
    key = "settings"
    try:
        for name in type(config).model_fields:
            key = f"key {name!r}: {shortened(getattr(config, name))}"
            digest([v for v in leaves(getattr(config, name)) if isinstance(v, float)])  # finite?
            digest(config.model_dump(mode="json", include={name}))
        key, settings = "settings", config.model_dump(mode="json")
        digest(settings)
        return dict(settings)
    except Exception as error:  # also of a component's own serializers
        raise BenchError(
            f"{where}: {key} cannot be part of a record ({type(error).__name__}: {error}): use "
            "finite numbers, texts, lists and mappings, nested less than 200 deep"
        ) from error


@dataclass(frozen=True)
class Estimate:
    """How long runs take, in seconds of one process.

    ``total_s``, ``longest_s``: of all trainings with an estimate, and of the longest. ``saved_s``:
    what they would take longer if no devices shared one. ``trainings``, ``scaled``, ``unknown``:
    how many there are, were estimated from a reference, and have no estimate.
    """

    total_s: float
    longest_s: float
    saved_s: float
    trainings: int
    scaled: int
    unknown: int

    def wall_s(self, jobs: int) -> float:
        """Seconds with so many processes: a training is in one of them."""
        return max(self.total_s / jobs, self.longest_s)

    def text(self, jobs: int) -> str:
        """The time with so many processes, where it is known from and what it leaves out."""
        if self.unknown == self.trainings:
            return "time: unknown, no earlier run of these methods in the store"
        sources = ["earlier runs"] if self.scaled + self.unknown < self.trainings else []
        sources += ["reference times scaled to this machine"] if self.scaled else []
        text = f"time: about {duration(self.wall_s(jobs))} with --jobs {jobs}, from "
        text += " and ".join(sources)
        if self.saved_s:
            text += f"; sharing saves {duration(self.saved_s)} of one process"
        if self.unknown:
            text += f"; {self.unknown} of {self.trainings} trainings have none and are not counted"
        return text


@dataclass(frozen=True)
class Plan:
    """What a command would do: ``done`` cells with their records, and ``missing`` cells.

    ``path``: the suite's file; ``tuned``: the tuned settings that were used, if any; ``others``:
    those of further models.
    """

    suite: Suite
    path: Path
    cells: list[Cell]
    done: dict[str, Record]
    missing: list[Cell]
    tuned: Tuned | None = None
    others: tuple[Tuned, ...] = ()

    def stale(self) -> list[str]:
        """Methods whose code has changed since their settings were tuned."""
        changed: dict[str, None] = {}
        for model in dict.fromkeys(cell.model.name for cell in self.cells):
            tuned = tuned_on(model, self.suite, self.tuned, self.others)
            if tuned is not None:
                mine = [cell for cell in self.cells if cell.model.name == model]
                changed |= dict.fromkeys(changed_since(tuned, mine))
        return list(changed)

    def stale_note(self) -> str:
        """What to tell a user of `stale` settings, in one line; empty if there are none."""
        return stale_note(self.stale())

    def window_note(self, history: Iterable[RecordSummary]) -> str:
        """What to tell a user of windows that will close, a line each; empty if none is known."""
        lines = closing_windows(self.missing, history)
        title = "by earlier runs these windows close before the method is done:"
        return "\n  ".join([title, *lines]) if lines else ""

    def shared_runs(self) -> list[list[Cell]]:
        """Missing cells in groups that train once, draw by draw of the source and seed by seed.

        Measured devices stand alone, and so does each device for a method that reads its clock and
        where the stream does not wait.
        """
        return self._shared_runs

    @cached_property
    def _shared_runs(self) -> list[list[Cell]]:
        devices = {cell.device for cell in self.missing}
        measured = {d for d in devices if load_device(d).cost == "measured"}
        names = {cell.method.name for cell in self.missing}
        clock = {n: registry.load("method", n).uses_device_clock for n in names}
        groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        digests = CellDigests()
        for cell in self.missing:
            own = clock[cell.method.name]
            own = own or protocol_facts(cell.protocol).timed or cell.device in measured
            groups[(digests.training_key(cell), cell.device if own else "")].append(cell)
        return sorted(groups.values(), key=lambda group: (group[0].source_draw, group[0].seed))

    def jobs(
        self,
        store: Store,
        tensorboard: Path | None = None,
        meter: str = "auto",
        isolate_labels: bool = False,
    ) -> list[Job]:
        """One job for each group of missing cells."""
        name, groups = self.suite.name, self.shared_runs()
        bands = {
            model_component(model, f"suite {self.path}").name: model.expected_source
            for model in self.suite.all_models()
            if model.expected_source is not None
        }
        more = (tensorboard, meter, isolate_labels)
        return [
            make_job(group, name, store, *more, bands.get(group[0].model.name)) for group in groups
        ]

    def seconds(
        self, history: Iterable[RecordSummary], reference: Callable[[], Mapping[str, float]]
    ) -> Callable[[Cell], float | None]:
        """How long the run of a cell takes, by what `estimate` knows; None where it does not."""
        kinds = TrainingKinds()
        wanted = {kinds.of(cell) for cell in self.missing}
        times = _medians(history, wanted)
        unknown = not wanted <= times.keys()
        expected = reference() if unknown else {}
        return lambda cell: times.get(kinds.of(cell), expected.get(cell.method.name))

    def estimate(
        self, history: Iterable[RecordSummary], reference: Callable[[], Mapping[str, float]]
    ) -> Estimate:
        """How long the missing runs take.

        By the median of earlier runs of the same method, model, stream and protocol, else by
        ``reference`` (seconds of a run by method), which is called only if needed.
        """
        groups = self.shared_runs()
        kinds = TrainingKinds()
        wanted = {kinds.of(cell) for cell, *_ in groups}
        times = _medians(history, wanted)
        expected = {} if wanted <= times.keys() else reference()
        total = longest = saved = 0.0
        scaled = unknown = 0
        for cell, *others in groups:
            if kinds.of(cell) in times:
                seconds = times[kinds.of(cell)]
            elif cell.method.name in expected:
                seconds = expected[cell.method.name]
                scaled += 1
            else:
                unknown += 1
                continue
            total += seconds
            longest = max(longest, seconds)
            saved += seconds * len(others)
        return Estimate(total, longest, saved, len(groups), scaled, unknown)


def _medians(history: Iterable[RecordSummary], wanted: Set[str]) -> dict[str, float]:
    """The median wall time of ended runs by `training_kind`, of those that are wanted."""
    times: dict[str, list[float]] = defaultdict(list)
    for kind, record in by_kind(history):
        if kind in wanted and record.status == "ok":
            times[kind].append(record.wall_s)
    return {kind: statistics.median(seconds) for kind, seconds in times.items()}


def make_plan(
    suite: Suite,
    path: Path,
    store: Store,
    retry: Sequence[str] = (),
    tuned: Tuned | None = None,
    others: tuple[Tuned, ...] = (),
) -> Plan:
    """A suite's cells: done where a record is neither ``interrupted`` nor to ``retry``.

    ``tuned`` and ``others`` as in `make_cells`.
    """
    made = _cells(suite, path, tuned, others)
    identities, cells = list(made), list(made.values())
    open_ = ("interrupted", *retry)
    done = {r.identity: r for r in store.read(identities) if r.status not in open_}
    missing = [cell for key, cell in zip(identities, cells, strict=True) if key not in done]
    return Plan(suite, path, cells, done, missing, tuned, others)
