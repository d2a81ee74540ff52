"""The accuracies and costs that a report can show, and which accuracies a protocol calls for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.records.protocol_facts import protocol_facts
from bench.records.record import Amount, Costs, Results


@dataclass(frozen=True)
class Measure:
    """One accuracy of a run, as a fraction.

    ``name`` : in rows and in CSV
    ``head`` : of its column
    ``meaning`` : what it is, with its source, to stand after "head = "
    ``value`` : from results, None where the protocol does not give it
    ``signed`` : whether it is a difference, shown with its sign
    """

    name: str
    head: str
    meaning: str
    value: Callable[[Results], float | None]
    signed: bool = False


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("before", "before", "on arrival", lambda r: r.mean("before")),
        Measure("after", "after", "once adapted", lambda r: r.mean("after")),
        Measure(
            "gain", "gain", "after - before", lambda r: r.mean("after") - r.mean("before"),
            signed=True,
        ),
        Measure("final", "final", "at the end of the stream", lambda r: r.mean("final")),
        Measure(
            "forgetting", "forgetting",
            "after - final without the last domain (positive: forgotten)",
            lambda r: r.forgetting,
        ),
        Measure(
            "backward_transfer", "backward transfer",
            "accuracy at the end less accuracy right after learning, mean over the source and all "
            "domains but the last (Lopez-Paz & Ranzato, NeurIPS 2017; negative: forgotten)",
            lambda r: r.backward_transfer, signed=True,
        ),
        Measure(
            "forward_transfer", "forward transfer",
            "accuracy on a domain just before it is learned less accuracy before the stream, mean "
            "over the domains from the second (Lopez-Paz & Ranzato, NeurIPS 2017, with the source "
            "model in place of their random initialisation)",
            lambda r: r.forward_transfer, signed=True,
        ),
        Measure(
            "online", "online",
            "on the stream itself, each batch predicted before it is adapted to (prequential "
            "accuracy, Gama et al., Machine Learning 2013)",
            lambda r: r.online,
        ),
        Measure(
            "adapted", "adapted on (%)",
            "share of the stream's batches that the method adapted on, the others having arrived "
            "while it was busy; 0 if it takes no steps at all",
            lambda r: r.adapted,
        ),
        Measure(
            "seen_at_end", "all seen",
            "accuracy over all test samples of the source and of every domain at the end of the "
            "stream",
            lambda r: r.seen_at_end,
        ),
        Measure(
            "seen_on_average", "average seen",
            "mean over the domains of the accuracy over everything seen so far, the source alone "
            "not counted (average incremental accuracy, Rebuffi et al., CVPR 2017)",
            lambda r: r.seen_on_average,
        ),
        Measure("score", "score", "what methods are compared by", lambda r: r.score),
    )
}  # fmt: skip
"""All of them by name; a table shows some, CSV every one."""


@dataclass(frozen=True)
class CostColumn:
    """One cost of a run.

    ``head`` : of its column
    ``unit`` : in tables
    ``factor`` : units of tables in one unit of the records
    ``amount`` : from the costs of a run, None where a record does not have it
    """

    head: str
    unit: str
    factor: float
    amount: Callable[[Costs], Amount | None]


COSTS = {
    "time": CostColumn("adaptation time", "s", 1.0, lambda c: c.adaptation_time),
    "energy": CostColumn("adaptation energy", "J", 1.0, lambda c: c.adaptation_energy),
    "memory": CostColumn("peak memory", "MB", 1e-6, lambda c: c.needed_memory),
    "inference": CostColumn("inference", "ms/sample", 1e3, lambda c: c.inference_time),
}
"""All of them by name, in the order of tables; a cost without a field of its own in `Costs` is
``lambda c: c.get("its_name")``.
"""

_MATRIX = {
    "online": f"{MEASURES['online'].meaning}, mean over the domains",
    "after": "on a new domain right after it was learned, mean over the domains",
    "forgetting": "best accuracy before the last domain was learned less accuracy at the end, mean "
    "over the source and all domains but the last (Chaudhry et al., ECCV 2018; positive: "
    "forgotten)",
}
"""What reads otherwise where the accuracies on all domains are known after each."""
_ONLINE = {"after": "on the test split, once the domain's stream is over"}
"""What reads otherwise where a stream is predicted as it comes."""
_TIMED = {
    "online": "on the stream itself, which does not wait: each batch predicted on arrival by the "
    "last model that was ready (Alfarra et al., ICML 2024)",
    "after": "on the test split at the end of the domain's stream, by the model that is ready then",
}
"""What reads otherwise where the stream does not wait."""


def has_matrix(protocol: Mapping[str, Any]) -> bool:
    """Whether runs under the protocol know the accuracy on all domains after each of them."""
    return bool(protocol.get("evaluate_all"))


def is_online(protocol: Mapping[str, Any]) -> bool:
    """Whether runs under the protocol know the accuracy on the stream itself."""
    return protocol_facts(protocol).method_protocol == "online"


def is_timed(protocol: Mapping[str, Any]) -> bool:
    """Whether the stream does not wait, so that runs know the share of it that they adapted on."""
    return protocol_facts(protocol).timed


def primary(protocol: Mapping[str, Any]) -> Measure:
    """What `Results.score` is under a protocol."""
    if has_matrix(protocol):
        return MEASURES["seen_at_end"]
    return MEASURES["online" if is_online(protocol) else "after"]


def columns(protocol: Mapping[str, Any]) -> tuple[list[Measure], list[Measure]]:
    """What tables show under a protocol: accuracies, and what a table of its own shows of
    forgetting and transfer where the accuracies on all domains are known.
    """
    online = ["online"] if is_online(protocol) else []
    online += ["adapted"] if is_timed(protocol) else []
    if has_matrix(protocol):
        known = _MATRIX | ({"online": _TIMED["online"]} if is_timed(protocol) else {})
        levels = [*online, "seen_at_end", "seen_on_average", "after"]
        changes = ["forgetting", "backward_transfer", "forward_transfer"]
        return [_read(name, known) for name in levels], [_read(name, known) for name in changes]
    if online:
        names = [*online, "after", "final", "forgetting"]
        known = _TIMED if is_timed(protocol) else _ONLINE
        return [_read(name, known) for name in names], []
    return [_read(name, {}) for name in ("before", "after", "gain", "final", "forgetting")], []


def _read(name: str, otherwise: Mapping[str, str]) -> Measure:
    measure = MEASURES[name]
    return replace(measure, meaning=otherwise.get(name, measure.meaning))
