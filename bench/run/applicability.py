"""Whether a cell can run, from the declarations of its components."""

from __future__ import annotations

from bench import registry
from bench.records.cell import Cell
from bench.records.protocol_facts import DEFAULT, protocol_facts


def unsupported(cell: Cell) -> str | None:
    """Why a cell cannot run, from the declarations of its components alone; else None."""
    method = registry.load("method", cell.method.name)
    stream = registry.load("stream", cell.stream.name)
    if stream.task not in method.tasks:
        return f"{cell.method.name} does {', '.join(method.tasks)}; the stream is {stream.task}"
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
