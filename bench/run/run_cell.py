"""One run: a cell, or several that differ only in the device, trained once and recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from bench import registry
from bench.accelerator.determinism import (
    device_of,
    repeats_exactly,
    reseed_cuda,
    run_settings,
    seed_everything,
)
from bench.accelerator.precision import computing_in
from bench.costs.device_profile import DeviceProfile
from bench.errors import BenchError, Unsupported
from bench.io.process_state import ProcessState
from bench.io.traceback_text import print_traceback
from bench.records.cell import Cell
from bench.records.store import Store
from bench.run.deployed import deployed
from bench.run.results import ending, make_record, now, results_on
from bench.study.applicability import planned_device, require_planned_code, unsupported
from bench.study.build import build
from bench.study.job import Job

if TYPE_CHECKING:
    from torch import Tensor

    from bench.contracts.data import DomainView
    from bench.contracts.method import Method
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import Stream
    from bench.costs.tracker import CostTracker, DeviceCosts
    from bench.run.evaluator import Scorer
    from bench.run.protocols.base import StreamResult
    from bench.run.validity import BuiltStream


def run_job(job: Job) -> None:
    """Run a job to its end and write one record for each device that it settles.

    A device whose window closes elsewhere than the others' gets no record: it is deferred. Raises
    BenchError if the store cannot be written; other exceptions become records.
    """
    from bench.costs.factory import make_tracker

    run_settings(threads=job.cells[0].threads)
    started, clock, state = now(), time.perf_counter(), ProcessState()
    store = Store(job.store)
    logger: _ScalarLog | None = None
    tracker: CostTracker | None = None

    cells = {cell.device: cell for cell in job.cells}
    endings: dict[str, dict[str, Any]] = {}
    try:
        for plugin in job.plugins:
            registry.add_plugin(plugin)
        require_planned_code(job)
        reason = unsupported(job.cells[0])
        if reason is not None:
            raise Unsupported(reason)
        method = build("method", job.cells[0].method)
        devices = _devices(job.cells, endings)
        tracker = make_tracker(
            devices, method.stored, meter=job.meter, accelerator=job.cells[0].accelerator
        )
        logger = _scalar_log(job)
        stream, source_digest = _run_method(job, method, tracker, logger)
        for device in tracker.devices:
            endings[device.name] = _ending_on(device, stream, tracker, method, source_digest)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if tracker is None or tracker.devices:
            print_traceback(error)
        running = list(cells) if tracker is None else [device.name for device in tracker.devices]
        endings = {device: ending(error) for device in running} | endings
    finally:
        state.restore()
        if logger is not None:
            logger.close()
    if tracker is not None:
        endings.update({name: ending(why) for name, why in tracker.dropped.items()})
    wall_s = time.perf_counter() - clock
    repeats = None if tracker is None else tracker.repeats_exactly
    known: dict[str, Any] = {"started": started, "wall_s": wall_s, "deterministic": repeats}
    for name, fields in endings.items():
        store.write(make_record(job, cells[name], **known, **fields))


def _devices(cells: Iterable[Cell], endings: dict[str, dict[str, Any]]) -> list[DeviceProfile]:
    """The profiles of the cells' devices; one that is not usable gets its ending, others run."""
    found = []
    for cell in cells:
        try:
            found.append(planned_device(cell))
        except BenchError as error:
            endings[cell.device] = ending(error)
            failed = error
    if not found:
        raise failed
    return found


def _ending_on(
    device: DeviceCosts,
    stream: StreamResult,
    tracker: CostTracker,
    method: Method,
    source_digest: str,
) -> dict[str, Any]:
    """How a run that reached its end ends on one device: what fails there fails there alone."""
    try:
        results = results_on(device, stream, tracker, method.further_costs(device))
        details = to_jsonable_python(method.details())
    except Exception as error:
        print_traceback(error)
        return ending(error)
    known = {"source_model": source_digest, "results": results, "details": details}
    return {"status": "ok", **known}


class _ScalarLog:
    """Writes (name, value, step) to a folder of TensorBoard events, while the run goes on."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=2)

    def __call__(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _scalar_log(job: Job) -> _ScalarLog | None:
    """The log that a job asks for, named after its first cell, or None."""
    if job.tensorboard is None:
        return None
    cell = job.cells[0]
    draw = f"-draw{cell.source_draw}" if cell.source_draw else ""
    name = f"{job.suite}-{cell.method.name}-seed{cell.seed}{draw}-{cell.training_key[:8]}"
    return _ScalarLog(Path(job.tensorboard) / name)


def _run_method(
    job: Job, method: Method, tracker: CostTracker, logger: _ScalarLog | None
) -> tuple[StreamResult, str]:
    """Prepare a method and take it along the stream; the result, and the source model's digest."""
    from bench.run.label_process import LabelProcess
    from bench.run.validity import build_stream, received_stream

    cell = job.cells[0]
    if not job.isolate_labels:
        stream: Stream = build("stream", cell.stream, cell.seed)
        labelled = _labelled(cell, method, stream)
        return _run_on(job, method, stream, build_stream(stream), None, labelled, tracker, logger)
    stream_class = registry.load("stream", cell.stream.name)
    labelled = _labelled(cell, method, stream_class)
    with LabelProcess(cell, labelled, job.plugins) as process:
        stream = process.stream()
        built = received_stream(stream)
        return _run_on(job, method, stream, built, process.score, labelled, tracker, logger)


def _gradients(model: FoundationModel, source: DomainView) -> list[Tensor]:
    """Of a training step on the first samples of the source; the model stays as it is."""
    with source.preserve_rng():
        batch = next(source.batches())
    copied = model.clone()
    copied.train()
    copied.loss(copied(batch.x), batch.y).backward()
    return [p.grad for p in copied.module.parameters() if p.grad is not None]


def _labelled(cell: Cell, method: Method, stream: Stream | type[Stream]) -> bool:
    """Whether the method sees labels of target domains."""
    return "target_labels" in method.needs and (cell.target_labels or stream.supervised)


def _run_on(
    job: Job,
    method: Method,
    stream: Stream,
    built: BuiltStream,
    scorer: Scorer | None,
    labelled: bool,
    tracker: CostTracker,
    logger: _ScalarLog | None,
) -> tuple[StreamResult, str]:
    """As `_run_method`, on a built stream; ``scorer``: the metric, by default the task's."""
    from bench.contracts.protocol import protocol_config
    from bench.run.expected_source import require_expected
    from bench.run.protocols.base import Deployment, run_stream

    cell = job.cells[0]
    protocol = protocol_config(cell.protocol)

    def accept(full: FoundationModel) -> None:
        if job.expected_source is not None:
            score = (scorer or built.task.score)()
            require_expected(full, built.source.test, score, job.expected_source, cell.model.name)

    built = built.on(device_of(cell.accelerator))  # after the label process was forked
    model, source, source_digest = deployed(cell, method, stream, accept)
    if cell.accelerator == "cuda":
        tracker.repeats_exactly = repeats_exactly(partial(_gradients, model, source))
    seed_everything(cell.seed)
    method.prepare(model, source)
    if logger is not None:
        for name, points in method.curves().items():
            for step, value in points:
                logger(name, value, step)
    if cell.accelerator == "cuda":
        reseed_cuda(cell.seed)
    if "source_data" in method.needs:
        tracker.source_bytes = source.nbytes
    else:
        source.close(
            f"{cell.method.name} reads source data after prepare without declaring "
            "needs = ('source_data',)"
        )
    tracker.start()
    try:
        deployment = Deployment(method, built, tracker, labelled, cell.seed, scorer, logger)
        with computing_in(cell.precision, cell.accelerator):
            return run_stream(protocol, deployment), source_digest
    finally:
        tracker.close()
