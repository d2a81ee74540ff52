"""One run: a cell, or several that differ only in the device, trained once and recorded."""

from __future__ import annotations

import datetime
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic_core import to_jsonable_python

from bench import registry
from bench.cell import Cell, Component
from bench.device.profile import load_device, profile_digest
from bench.digest import code_digest
from bench.environment import environment
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported
from bench.record import (
    Amount,
    Costs,
    DomainResult,
    MethodFacts,
    Record,
    Results,
    Status,
)
from bench.settings import file_digests
from bench.store import Store

if TYPE_CHECKING:
    from bench.device.bill import Bill, Meter
    from bench.method import Method
    from bench.protocol import Stream
    from bench.scenario import Scenario
    from bench.window import Logger


class Job(pydantic.BaseModel, extra="forbid", frozen=True):
    """What a run needs to know; travels to its process as JSON.

    ``cells`` share their course and differ in the device. ``attempts`` counts earlier
    runs of each cell. ``run`` names this run and its log.
    """

    run: str
    suite: str
    store: str
    cells: tuple[Cell, ...]
    attempts: tuple[int, ...]
    plugins: tuple[str, ...] = ()
    tensorboard: str | None = None

    @property
    def log(self) -> Path:
        """Where the run's output goes."""
        return Store(self.store).log_path(self.run)


def now() -> str:
    """UTC time in ISO 8601, seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def method_facts(cell: Cell) -> MethodFacts:
    """What the registry says of a cell's method, with the settings that differ from the default."""
    from bench.method import search_space

    method = registry.load("method", cell.method.name)
    defaults = {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in method.Config.model_fields.items()
        if not field.is_required()
    }
    config = cell.method.config
    changed = {k: v for k, v in config.items() if k not in defaults or defaults[k] != v}
    return MethodFacts(
        family=method.family,
        provenance=method.provenance,
        paper=method.paper,
        needs=list(method.needs),
        changed=changed,
        settings=cell.settings if any(search_space(method.Config)) else "none",
    )


def make_record(
    job: Job,
    cell: Cell,
    *,
    status: Status,
    started: str,
    wall_s: float,
    reason: str = "",
    **more: Any,
) -> Record:
    """A record of ``cell`` from this run."""
    return Record(
        identity=cell.identity,
        run=job.run,
        suite=job.suite,
        status=status,
        reason=reason,
        cell=cell,
        method=method_facts(cell),
        started=started,
        wall_s=wall_s,
        attempt=job.attempts[job.cells.index(cell)] + 1,
        log=str(job.log.relative_to(job.store)),
        environment=environment(),
        **more,
    )


def run_job(job: Job) -> None:
    """Run a job to its end and write one record for each device that it settles.

    A device whose window closes elsewhere than the others' gets no record: it is deferred, and
    the caller runs it again. Exceptions become records; only a store that cannot be written
    (BenchError) and interruptions leave this function.
    """
    import torch

    from bench.device.bill import Meter

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    started, clock = now(), time.perf_counter()
    store = Store(job.store)
    logger: Any = None
    meter: Meter | None = None

    cells = {cell.device: cell for cell in job.cells}
    endings: dict[str, dict[str, Any]] = {}
    try:
        for plugin in job.plugins:
            registry.add_plugin(plugin)
        _require_same_code(job)
        reason = unsupported(job.cells[0])
        if reason is not None:
            raise Unsupported(reason)
        method = _build("method", job.cells[0].method)
        meter = Meter([load_device(name) for name in cells], method.stored)
        logger = _tensorboard(job)
        stream, source_digest = _execute(job.cells[0], method, meter, logger)
        for bill in meter.bills:
            results = _results(stream, meter, bill)
            endings[bill.device] = {
                "status": "ok",
                "results": results,
                "source_model": source_digest,
            }
    except Exception as error:
        if meter is None or meter.bills:
            traceback.print_exc()
        running = list(cells) if meter is None else [bill.device for bill in meter.bills]
        endings.update({device: _ended(error) for device in running})
    finally:
        if logger is not None:
            logger.close()
    if meter is not None:
        endings.update({device: _ended(why) for device, why in meter.left.items()})
    wall_s = time.perf_counter() - clock
    for device, ending in endings.items():
        store.write(make_record(job, cells[device], started=started, wall_s=wall_s, **ending))


def unsupported(cell: Cell) -> str | None:
    """Why a cell cannot run, from the declarations of its components alone; else None."""
    method = registry.load("method", cell.method.name)
    scenario = registry.load("scenario", cell.scenario.name)
    if scenario.task not in method.tasks:
        return f"{cell.method.name} does {', '.join(method.tasks)}; the scenario is {scenario.task}"
    strange = [shift for shift in scenario.shifts if shift not in method.shifts]
    if strange:
        return (
            f"{cell.method.name} adapts to a stream in which the {' and the '.join(method.shifts)} "
            f"may shift; in {cell.scenario.name} so does the {' and the '.join(strange)}"
        )
    protocol = cell.protocol.get("name", "periodic")
    # Whether the stream waits is nothing that a method has to know.
    if ("online" if cell.timed else protocol) not in method.protocols:
        return (
            f"{cell.method.name} runs under the {' or the '.join(method.protocols)} protocol; "
            f"this one is {protocol}"
        )
    needs_labels = "target_labels" in method.needs
    if needs_labels and not (scenario.supervised or cell.target_labels):
        return (
            f"{cell.method.name} needs target labels and {cell.scenario.name} is unsupervised; "
            "list it under supervised_references in the suite to run it as a marked reference"
        )
    reason: str | None = method.skip(cell)
    return reason


# ---------------------------------------------------------------------------


def _build(kind: str, component: Component, *arguments: Any) -> Any:
    made = registry.load(kind, component.name)
    return made(made.Config.model_validate(component.config), *arguments)


def _execute(cell: Cell, method: Method, meter: Meter, logger: Any) -> tuple[Stream, str]:
    import torch

    from bench.batch import DomainView
    from bench.model import weights_digest
    from bench.protocol import ProtocolConfig, make_scorer, run_stream
    from bench.source import source_model

    scenario: Scenario = _build("scenario", cell.scenario, cell.seed)
    protocol = ProtocolConfig.model_validate(cell.protocol)
    model = source_model(cell, scenario)
    source_digest = weights_digest(model.module)
    split = scenario.source().adaptation
    generator = torch.Generator().manual_seed(cell.seed)
    source = DomainView("source", split.x, split.y, protocol.batch_size, generator)
    if cell.variant is not None and not method.starts_from_fm:
        model = _build("variant", cell.variant).make(model, source)
    correct = make_scorer(model)
    seed_everything(cell.seed)
    method.prepare(model, source)
    if "source_data" in method.needs:
        meter.source_bytes = source.nbytes
    else:
        source.close(
            f"{cell.method.name} reads source data after prepare without declaring "
            "needs = ('source_data',)"
        )
    labelled = "target_labels" in method.needs and (cell.target_labels or scenario.supervised)
    meter.start()
    try:
        stream = run_stream(method, scenario, protocol, meter, labelled, cell.seed, correct, logger)
    finally:
        meter.close()
    return stream, source_digest


def seed_everything(seed: int) -> None:
    """Every generator that a method may draw from; a forked process inherits numpy's state."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _require_same_code(job: Job) -> None:
    """What was planned must be what runs: a file may have been edited in between."""
    cell = job.cells[0]
    for kind in ("method", "model", "variant", "scenario"):
        component: Component | None = getattr(cell, kind)
        if component is None:
            continue
        config = registry.load(kind, component.name).Config.model_validate(component.config)
        for what, planned, found in (
            ("code", component.code, code_digest(registry.entry(kind, component.name).file)),
            ("files", component.files, file_digests(config)),
        ):
            if found != planned:
                raise BenchError(
                    f"the {what} of {kind} {component.name!r} changed after this run was planned; "
                    "give the command again"
                )
    for each in job.cells:
        if profile_digest(load_device(each.device)) != each.device_digest:
            raise BenchError(
                f"the profile of {each.device!r} changed after this run was planned; "
                "give the command again"
            )


def _results(stream: Stream, meter: Meter, bill: Bill) -> Results:
    domains = []
    for stage in stream.stages:
        charge = stage.charges[bill.device]
        domains.append(
            DomainResult(
                name=stage.name,
                before=stage.before,
                after=stage.after,
                final=stage.final,
                online=stage.online,
                adapted=stage.adapted,
                adaptation_samples=stage.adaptation_samples,
                test_samples=stage.test_samples,
                steps=charge.steps,
                time_s=charge.time_s,
                energy_j=None if bill.energy_unavailable else charge.energy_j,
                window_closed=stage.window_closed,
            )
        )
    return Results(
        source_before=stream.source_before,
        source_after=stream.source_after,
        source_samples=stream.source_samples,
        matrix=stream.matrix,
        domains=domains,
        costs=_costs(meter, bill, domains),
    )


def _costs(meter: Meter, bill: Bill, domains: Sequence[DomainResult]) -> Costs:
    known: Any = bill.kind

    def amount(value: float, unit: str, further: str = "") -> Amount:
        return Amount(value=value, unit=unit, kind=known, how=bill.how + further)

    def energy(values: Sequence[float | None], why_not: str) -> Amount:
        joules = [v for v in values if v is not None]
        if len(joules) < len(values) or why_not:
            return unavailable("J", why_not)
        return amount(sum(joules), "J")

    def unavailable(unit: str, how: str) -> Amount:
        return Amount(value=None, unit=unit, kind="unavailable", how=how)

    assert bill.inference is not None
    modelled = bill.kind == "modelled"
    return Costs(
        adaptation_time=amount(sum(d.time_s for d in domains), "s"),
        adaptation_energy=energy([d.energy_j for d in domains], bill.energy_unavailable),
        peak_memory=unavailable("B", bill.memory_unavailable)
        if bill.memory_unavailable
        else amount(bill.peak_bytes, "B"),
        runtime_memory=amount(bill.runtime_bytes, "B")
        if modelled
        else unavailable("B", "inside the process's baseline"),
        resident_memory=unavailable(
            "B", bill.memory_unavailable or "the device's profile is not calibrated for it"
        )
        if bill.resident_bytes is None or bill.memory_unavailable
        else amount(bill.resident_bytes, "B", "; memory that the process takes" * modelled),
        source_storage=Amount(
            value=meter.source_bytes, unit="B", kind="measured", how="size of the source data kept"
        ),
        inference_time=amount(bill.inference.time_s / bill.inference_samples, "s/sample"),
        inference_energy=energy(
            [bill.inference.energy_j / bill.inference_samples], bill.inference_energy_unavailable
        ),
        steps=dict(meter.counts),
        flops=meter.flops if modelled else None,
        bytes=meter.bytes if modelled else None,
        launches=meter.launches if modelled else None,
        tracing_s=meter.tracing_s,
    )


def _ended(error: BaseException) -> dict[str, Any]:
    text = " ".join(str(error).split())
    if isinstance(error, DeviceOutOfMemory):
        return {"status": "oom", "reason": text, "oom_on": "device"}
    if isinstance(error, Unsupported):
        return {"status": "unsupported", "reason": text}
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return {
            "status": "oom",
            "reason": f"host memory: {text or 'MemoryError'}",
            "oom_on": "host",
        }
    reason = text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
    return {"status": "failed", "reason": reason}


def _tensorboard(job: Job) -> Logger | None:
    if job.tensorboard is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    cell = job.cells[0]
    folder = (
        Path(job.tensorboard) / f"{job.suite}-{cell.method.name}-seed{cell.seed}-{cell.course[:8]}"
    )
    writer = SummaryWriter(str(folder), flush_secs=2)

    class Scalars:
        def __call__(self, name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)

        def close(self) -> None:
            writer.close()

    return Scalars()  # type: ignore[return-value]
