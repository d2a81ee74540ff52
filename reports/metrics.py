"""The accuracies and costs that a report can show, and which accuracies a protocol calls for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.io.safe_yaml import read_yaml
from bench.records.protocol_facts import protocol_facts
from bench.records.record import Amount, Costs, Results

from .statistics import DIFFERENCE, SHARE, Range

WORDS: dict[str, Any] = read_yaml(Path(__file__).with_name("words.yaml"), "words of reports")
"""What reports say of measures, settings and origins, and what figures are called."""

VALUES: dict[str, Callable[[Results], float | None]] = {
    "before": lambda r: r.mean("before"),
    "after": lambda r: r.mean("after"),
    "gain": lambda r: r.mean("after") - r.mean("before"),
    "final": lambda r: r.mean("final"),
}
"""The measures that are no properties of `Results`, computed from them."""


@dataclass(frozen=True)
class Measure:
    """One accuracy of a run, as a fraction: its name in rows and CSV, the head of its column, what
    it means with its source, whether it is a difference, and whether it is shown with its sign.
    """

    name: str
    head: str
    meaning: str
    signed: bool = False
    difference: bool = False

    @property
    def within(self) -> Range:
        """What it can be."""
        return DIFFERENCE if self.difference or self.signed else SHARE

    def value(self, results: Results) -> float | None:
        """Of one run; None where the protocol does not give it."""
        return VALUES.get(self.name, attrgetter(self.name))(results)


MEASURES = {name: Measure(name, **words) for name, words in WORDS["measures"].items()}
"""All of them by name; a table shows some, CSV every one."""


@dataclass(frozen=True)
class CostColumn:
    """One cost of a run: the head of its column, its unit in tables and how many make one of the
    records, and its amount from the costs of a run, None where a record does not have it.
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
    words: dict[str, str] = {}
    levels, changes = ["before", "after", "gain", "final", "forgetting"], list[str]()
    if has_matrix(protocol):
        timed = {"online": WORDS["timed"]["online"]} if is_timed(protocol) else {}
        words = WORDS["with_all_domains"] | timed
        levels = [*online, "seen_at_end", "seen_on_average", "after"]
        changes = ["forgetting", "backward_transfer", "forward_transfer"]
    elif online:
        words = WORDS["timed" if is_timed(protocol) else "online"]
        levels = [*online, "after", "final", "forgetting"]
    known = {n: replace(m, meaning=words.get(n, m.meaning)) for n, m in MEASURES.items()}
    return [known[name] for name in levels], [known[name] for name in changes]
