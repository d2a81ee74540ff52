"""Whether a record calls itself what it is: where its method comes from, what that has seen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from bench import registry
from bench.errors import BenchError
from bench.records.record import Record
from bench.registry.component_code import component_digest

OURS = "bench"
"""The origin of components of this project."""


def wrong_labels(record: Record) -> Iterator[str]:
    """A line for each label of a record that claims what is not so."""
    cell, facts = record.cell, record.method
    name = cell.method.name
    shipped = _shipped("method", name)
    expected = "plugin" if shipped is None else str(shipped.facts.get("provenance"))
    if facts.provenance != expected:
        known = "is none of this project's" if shipped is None else f"is {expected!r} here"
        yield f"method {name} calls itself {facts.provenance!r}, and {known}"
    needs = set(facts.needs)
    if shipped is not None:
        needs |= set(shipped.facts.get("needs") or ())
    stream = _shipped("stream", cell.stream.name)
    supervised = stream is not None and bool(stream.facts.get("supervised"))
    if "target_labels" in needs and not (cell.target_labels or supervised):
        yield f"method {name} needs target labels and is not marked as a supervised reference"
    told = {cell.settings_origin, facts.settings_origin} - {"default", "none"}
    if len(told) > 1:
        yield f"method {name}: its settings are {' and '.join(sorted(told))}"
    for key, value in facts.changed.items():
        if cell.method.config.get(key, _UNSET) != value:
            yield f"method {name} tells a setting {key}={value!r:.40} that it did not run with"
    for part, kind in record.results.costs if record.results else ():
        measured = getattr(kind, "kind", "") == "measured"
        if measured and part != "source_storage" and not record.environment.get("processor"):
            yield f"{part} is measured, and the record names no processor"
            return


def is_current(record: Record) -> bool:
    """Whether a method of this project ran with the code that this version has."""
    return record.cell.method.code == _code(record.cell.method.name)


def is_plugin(record: Record) -> bool:
    """Whether this project has no method of this name."""
    return _shipped("method", record.cell.method.name) is None


def _shipped(kind: str, name: str) -> registry.Entry | None:
    found = registry.entries(kind).get(name)
    return found if found is not None and found.origin == OURS else None


@cache
def _code(method: str) -> str:
    found = _shipped("method", method)
    try:
        return "" if found is None else component_digest(found)
    except BenchError:
        return ""


_UNSET = object()
