"""Whether a cell can run: by what its components declare, and as it was planned."""

from __future__ import annotations

from typing import Any

from bench import registry
from bench.contracts.protocol import protocol_config
from bench.contracts.settings import file_digests
from bench.costs.device_profile import DeviceProfile, load_device, profile_digest
from bench.errors import BenchError
from bench.records.cell import Cell, Component
from bench.records.protocol_facts import DEFAULT, protocol_facts
from bench.registry.component_code import component_digest
from bench.study.build import component_code, config_of
from bench.study.job import Job


def unsupported(cell: Cell) -> str | None:
    """Why a cell cannot run, from the declarations of its components alone; else None."""
    method = registry.load("method", cell.method.name)
    stream = registry.load("stream", cell.stream.name)
    if (differs := _other_task(cell)) is not None:
        return differs
    strange = [shift for shift in stream.shifts if shift not in method.shifts]
    if strange:
        return (
            f"{cell.method.name} adapts to a stream in which the {' and the '.join(method.shifts)} "
            f"may shift; in {cell.stream.name} so does the {' and the '.join(strange)}"
        )
    if protocol_facts(cell.protocol).method_protocol not in method.protocols:
        return (
            f"{cell.method.name} runs under the {' or the '.join(method.protocols)} protocol; "
            f"this one is {cell.protocol.get('name', DEFAULT)}"
        )
    needs_labels = "target_labels" in method.needs
    if needs_labels and not (stream.supervised or cell.target_labels):
        return (
            f"{cell.method.name} needs target labels and {cell.stream.name} is unsupervised; "
            "list it under supervised_references in the suite to run it as a marked reference"
        )
    reason: str | None = method.skip(cell)
    return reason


def _other_task(cell: Cell) -> str | None:
    """Why the tasks of a cell's stream, method, model and variant do not agree; None if they do."""
    task = registry.load("stream", cell.stream.name).task_of(config_of("stream", cell.stream))
    model = registry.load("model", cell.model.name)
    method = registry.load("method", cell.method.name)
    does = {
        cell.method.name: method.tasks,
        f"model {cell.model.name}": (model.task,),
    }
    if cell.variant is not None:
        variant = registry.load("variant", cell.variant.name)
        does[f"variant {cell.variant.name}"] = variant.tasks
    for name, tasks in does.items():
        if task not in tasks:
            if tasks is method.tasks and _shows_answers(task, method):
                return (
                    f"{name} adapts without labels, and inputs of {task} hold the answers, which "
                    f"are its labels; in {cell.stream.name} take methods with target labels"
                )
            return (
                f"{name} does {', '.join(tasks)}; stream {cell.stream.name} is {task}: take a "
                "method, a model and a stream of one task"
            )
    return None


def _shows_answers(task: str, method: Any) -> bool:
    """Whether the inputs of a task hold what a method may not see."""
    unlabelled = "target_labels" not in method.needs
    return unlabelled and task in registry.entries("task") and registry.load("task", task).causal


def require_planned_code(job: Job) -> None:
    """Raise BenchError if code or a file is no longer what was planned."""
    cell = job.cells[0]
    for kind in ("method", "model", "variant", "stream"):
        component: Component | None = getattr(cell, kind)
        if component is None:
            continue
        for what, planned, found in (
            ("code", component.code, component_code(kind, component)),
            ("files", component.files, file_digests(config_of(kind, component))),
        ):
            if found != planned:
                raise _changed(f"the {what} of {kind} {component.name!r}")
    protocol = protocol_config(cell.protocol)
    if protocol.code and protocol.code != component_digest(
        registry.entry("protocol", protocol.name)
    ):
        raise _changed(f"the code of protocol {protocol.name!r}")


def planned_device(cell: Cell) -> DeviceProfile:
    """The profile of a cell's device; BenchError if it is no longer what was planned."""
    device = load_device(cell.device)
    if profile_digest(device) != cell.device_digest:
        raise _changed(f"the profile of {cell.device!r}")
    return device


def _changed(what: str) -> BenchError:
    return BenchError(f"{what} changed after this run was planned; give the command again")
