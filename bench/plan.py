"""From a suite to cells, and from cells and the store to what is still to run."""

from __future__ import annotations

import statistics
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from bench import registry
from bench.cell import Cell, Component
from bench.device.profile import load_device, profile_digest
from bench.digest import code_digest
from bench.errors import BenchError
from bench.record import Record
from bench.run import Job
from bench.store import Store
from bench.suite import Reference, Suite, explain


def make_cells(suite: Suite, path: Path) -> list[Cell]:
    """Every cell of a suite: devices within seeds within methods.

    Raises BenchError for unknown names and for settings outside their bounds.
    """
    from bench.protocol import ProtocolConfig

    where = f"suite {path}"
    protocol = _validated(ProtocolConfig, suite.protocol, f"{where}: protocol").model_dump(
        mode="json"
    )
    scenario = _component("scenario", suite.scenario, f"{where}: scenario")
    model = _component("model", suite.model, f"{where}: model")
    scenario_class = registry.load("scenario", scenario.name)
    data = scenario_class.data_digest(scenario_class.Config.model_validate(scenario.config))
    devices = []
    for name in suite.devices:
        profile = load_device(name)
        devices.append((name, profile_digest(profile)))
    cells: dict[str, Cell] = {}
    for i, (reference, labelled) in enumerate(suite.all_methods()):
        method = _component("method", reference, f"{where}: method {i + 1}")
        for seed in suite.seeds:
            for device, device_digest in devices:
                cell = Cell(
                    method=method,
                    model=model,
                    scenario=scenario,
                    data=data,
                    device=device,
                    device_digest=device_digest,
                    protocol=protocol,
                    seed=seed,
                    target_labels=labelled,
                )
                cells[cell.identity] = cell
    return list(cells.values())


def _component(kind: str, reference: Reference, where: str) -> Component:
    try:
        entry = registry.entry(kind, reference.name)
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error
    config = _validated(
        registry.load(kind, reference.name).Config,
        reference.config,
        f"{where} {reference.name!r}",
    )
    return Component(
        name=reference.name, config=config.model_dump(mode="json"), code=code_digest(entry.file)
    )


def _validated(
    model: type[pydantic.BaseModel], value: dict[str, Any], where: str
) -> pydantic.BaseModel:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        raise BenchError(f"{where}: {explain(error, model)}") from error


@dataclass(frozen=True)
class Plan:
    """What a command would do: ``done`` cells with their records, and ``missing`` cells."""

    suite: Suite
    cells: list[Cell]
    done: dict[str, Record]
    missing: list[Cell]

    def courses(self) -> list[list[Cell]]:
        """Missing cells in groups that train once, seed by seed; measured devices stand alone."""
        measured = {d for d in self.suite.devices if load_device(d).cost == "measured"}
        groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for cell in self.missing:
            alone = cell.device if cell.device in measured else ""
            groups[(cell.course, alone)].append(cell)
        return sorted(groups.values(), key=lambda group: group[0].seed)

    def jobs(
        self, store: Store, plugins: Iterable[Path], tensorboard: str | None = None
    ) -> list[Job]:
        """One job for each group of missing cells."""
        return [
            Job(
                run=uuid.uuid4().hex[:16],
                suite=self.suite.name,
                store=str(store.root),
                cells=tuple(group),
                attempts=tuple(self._attempts(store, cell) for cell in group),
                plugins=tuple(str(p) for p in plugins),
                tensorboard=tensorboard,
            )
            for group in self.courses()
        ]

    @staticmethod
    def _attempts(store: Store, cell: Cell) -> int:
        earlier = store.get(cell.identity)
        return 0 if earlier is None else earlier.attempt

    def estimate_s(self, history: Iterable[Record]) -> tuple[float, int]:
        """Seconds of one process for the missing runs, and how many runs have no estimate.

        The median of earlier runs of the same method, model and scenario with their protocol.
        """
        times: dict[str, list[float]] = defaultdict(list)
        for record in history:
            if record.status == "ok":
                times[_kind(record.cell)].append(record.wall_s)
        total, unknown = 0.0, 0
        for group in self.courses():
            known = times.get(_kind(group[0]))
            if known:
                total += statistics.median(known)
            else:
                unknown += 1
        return total, unknown


def _kind(cell: Cell) -> str:
    return repr((cell.method, cell.model, cell.scenario, cell.protocol))


def make_plan(suite: Suite, path: Path, store: Store, retry: Sequence[str] = ()) -> Plan:
    """Compare a suite's cells with the store.

    A cell is done if it has a record that is not ``interrupted`` and whose status is
    not in ``retry``.
    """
    cells = make_cells(suite, path)
    done: dict[str, Record] = {}
    for cell in cells:
        record = store.get(cell.identity)
        if record is not None and record.status not in ("interrupted", *retry):
            done[cell.identity] = record
    missing = [cell for cell in cells if cell.identity not in done]
    return Plan(suite, cells, done, missing)
