"""What is at work on a store besides what is recorded: commands, and the queues that they use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from bench import registry
from bench.execute.announced import FOLDER, Command
from bench.execute.claims import folder, read_claim
from bench.records.store import Store
from bench.records.summary import RecordSummary

ANSWER_S = 5.0
"""How long a queue may take to answer."""


@dataclass(frozen=True)
class Queues:
    """What the queues say of the tasks of claims, by ticket; ``silent``: the executors whose queue
    does not answer.
    """

    told: Mapping[str, str]
    silent: tuple[str, ...]


def ask_queues(store: Store, within_s: float = ANSWER_S) -> Queues:
    """Ask each queue that some claim has a ticket of."""
    tickets: dict[str, list[str]] = {}
    for path in sorted(folder(store).glob("*.json")):
        claim = read_claim(path)
        name, _, rest = ("" if claim is None else claim.ticket).partition(":")
        if rest and name in registry.entries("executor"):
            tickets.setdefault(name, []).append(rest)
    told: dict[str, str] = {}
    silent = []
    for name, asked in tickets.items():
        found = registry.load("executor", name).told(asked, within_s)
        if found is None:
            silent.append(name)
        told |= {f"{name}:{ticket}": said for ticket, said in (found or {}).items()}
    return Queues(told, tuple(silent))


def commands(store: Store) -> Iterator[Command]:
    """The commands that have not ended, as far as that can be seen."""
    for path in sorted((store.root / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError):
            command = Command.model_validate_json(path.read_bytes())
            if not command.who.process_is_gone:
                yield command


def cells_left(command: Command, records: Mapping[str, RecordSummary]) -> dict[str, str]:
    """Its cells that have no record since it began, and none that is ok; titles by identity."""
    began = datetime.fromtimestamp(command.who.since, UTC).isoformat()

    def done(identity: str) -> bool:
        record = records.get(identity)
        return record is not None and (record.status == "ok" or record.started >= began)

    return {identity: title for identity, title in command.cells.items() if not done(identity)}


def how_far(command: Command, left: int) -> str:
    """How far a command is, on one line."""
    who = command.who
    return f"process {who.pid} on {who.host}: {left} of {len(command.cells)} cells left"
