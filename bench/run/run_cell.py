"""One run: a cell, or several that differ only in the device, trained once and recorded."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from bench import registry as registry
from bench.contracts.settings import file_digests
from bench.costs.device_profile import load_device, profile_digest
from bench.errors import BenchError, DeviceOutOfMemory, Unsupported
from bench.records.cell import Cell, Component
from bench.records.store import Store
from bench.registry.component_code import component_digest
from bench.run.applicability import unsupported
from bench.run.determinism import seed_everything
from bench.run.recording import make_record, now
from bench.run.results import _results
from bench.run.tensorboard import _tensorboard
from bench.study.job import Job

if TYPE_CHECKING:
    from bench.contracts.method import Method
    from bench.contracts.stream import Stream
    from bench.costs.tracker import CostTracker
    from bench.run.protocol import StreamResult


def run_job(job: Job) -> None:
    """Run a job to its end and write one record for each device that it settles.

    A device whose window closes elsewhere than the others' gets no record: it is deferred, and
    the caller runs it again. Exceptions become records; only a store that cannot be written
    (BenchError) and interruptions leave this function.
    """
    import torch

    from bench.costs.factory import make_tracker

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    started, clock = now(), time.perf_counter()
    store = Store(job.store)
    logger: Any = None
    tracker: CostTracker | None = None

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
        tracker = make_tracker([load_device(name) for name in cells], method.stored)
        logger = _tensorboard(job)
        stream, source_digest = _execute(job.cells[0], method, tracker, logger)
        for device in tracker.devices:
            results = _results(stream, tracker, device)
            endings[device.name] = {
                "status": "ok",
                "results": results,
                "source_model": source_digest,
            }
    except Exception as error:
        if tracker is None or tracker.devices:
            traceback.print_exc()
        running = list(cells) if tracker is None else [device.name for device in tracker.devices]
        endings.update({device: _ended(error) for device in running})
    finally:
        if logger is not None:
            logger.close()
    if tracker is not None:
        endings.update({name: _ended(why) for name, why in tracker.dropped.items()})
    wall_s = time.perf_counter() - clock
    for name, ending in endings.items():
        store.write(make_record(job, cells[name], started=started, wall_s=wall_s, **ending))


# ---------------------------------------------------------------------------


def _build(kind: str, component: Component, *arguments: Any) -> Any:
    made = registry.load(kind, component.name)
    return made(made.Config.model_validate(component.config), *arguments)


def _execute(
    cell: Cell, method: Method, tracker: CostTracker, logger: Any
) -> tuple[StreamResult, str]:
    import torch

    from bench.contracts.data import DomainView
    from bench.contracts.model import weights_digest
    from bench.contracts.protocol import ProtocolConfig
    from bench.run.evaluator import make_scorer
    from bench.run.protocol import run_stream
    from bench.run.source_model import source_model

    stream: Stream = _build("stream", cell.stream, cell.seed)
    protocol = ProtocolConfig.model_validate(cell.protocol)
    model = source_model(cell, stream)
    source_digest = weights_digest(model.module)
    split = stream.source().adaptation
    generator = torch.Generator().manual_seed(cell.seed)
    source = DomainView("source", split.x, split.y, protocol.batch_size, generator)
    if cell.variant is not None and not method.makes_own_model:
        model = _build("variant", cell.variant).make(model, source)
    correct = make_scorer(model)
    seed_everything(cell.seed)
    method.prepare(model, source)
    if "source_data" in method.needs:
        tracker.source_bytes = source.nbytes
    else:
        source.close(
            f"{cell.method.name} reads source data after prepare without declaring "
            "needs = ('source_data',)"
        )
    labelled = "target_labels" in method.needs and (cell.target_labels or stream.supervised)
    tracker.start()
    try:
        outcome = run_stream(
            method, stream, protocol, tracker, labelled, cell.seed, correct, logger
        )
    finally:
        tracker.close()
    return outcome, source_digest


def _require_same_code(job: Job) -> None:
    """What was planned must be what runs: a file may have been edited in between."""
    cell = job.cells[0]
    for kind in ("method", "model", "variant", "stream"):
        component: Component | None = getattr(cell, kind)
        if component is None:
            continue
        config = registry.load(kind, component.name).Config.model_validate(component.config)
        for what, planned, found in (
            ("code", component.code, component_digest(registry.entry(kind, component.name))),
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
