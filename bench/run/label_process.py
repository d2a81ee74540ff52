"""Labels of test splits in a process of their own, for ``bench run --isolate-labels``.

The process of the method never holds them: another process builds the stream and computes the
metric. It sends inputs, and labels of adaptation splits only where the method may see them, and it
is sent outputs. This is a wall against mistakes and curiosity, not against code that attacks other
processes of the same user.

It costs a second process with a copy of the data, the transfer of every input once (of lazy inputs
whenever they are read) and of every output, and no device time: all is outside what is charged.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import astuple
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.contracts.data import Inputs, LazyInputs, SampleType, take, take_labels
from bench.contracts.stream import ApplicationFacts, Domain, Split, Stream
from bench.contracts.task import Score, make_task
from bench.errors import BenchError
from bench.run.validity import BuiltStream, build_stream

if TYPE_CHECKING:
    from bench.records.cell import Cell


class HiddenLabels:
    """Stands in the place of a split's labels, (n,): it can be indexed, and scored elsewhere."""

    def __init__(self, split: Sequence[Any], positions: Tensor) -> None:
        self.split = tuple(split)
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Tensor) -> HiddenLabels:
        return HiddenLabels(self.split, self.positions[chosen])


class _RemoteInputs(LazyInputs):
    """Lazy inputs of a split, which the other process reads."""

    def __init__(self, process: LabelProcess, split: Sequence[Any], facts: dict[str, Any]) -> None:
        super().__init__(torch.arange(len(facts["names"])))
        self._process = process
        self._split = tuple(split)
        self._facts = facts

    def read(self, positions: Tensor) -> Inputs:
        return self._process.request({"do": "read", "split": self._split, "positions": positions})

    def names(self, positions: Tensor) -> list[str]:
        return [self._facts["names"][i] for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        types: dict[str, SampleType] = self._facts["types"]
        return types

    def settings(self) -> Any:
        return self._facts["settings"]

    def column(self, name: str) -> Tensor | None:
        known: Tensor | None = self._facts["columns"].get(name)
        return None if known is None else known[self.positions]


class LabelProcess:
    """The process that holds the labels. As a context manager it ends with the block.

    Start it before a method is prepared. Raises BenchError, from every request, with what went
    wrong there.

    Parameters
    ----------
    cell : whose stream is built
    labelled : whether the method may see labels of the adaptation splits of target domains
    plugins : files that register components
    """

    def __init__(self, cell: Cell, labelled: bool, plugins: Sequence[str] = ()) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(
            target=_serve, args=(theirs, ours, cell, labelled, tuple(plugins)), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection = ours

    def __enter__(self) -> LabelProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def stream(self) -> IsolatedStream:
        """The stream, without labels that must not be here."""
        return IsolatedStream(self)

    def score(self) -> Score:
        """An empty score, see `bench.run.evaluator.Scorer`."""
        return _RemoteScore(self, self.request({"do": "score"}))

    def request(self, asked: dict[str, Any]) -> Any:
        """Ask the process for something; BenchError if it cannot give it."""
        try:
            _send(self._connection, asked)
            answer = _receive(self._connection)
        except (EOFError, OSError) as error:
            raise BenchError("the process that holds the labels has ended; run again") from error
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer["value"]


class _RemoteScore(Score):
    """The score of a number in the process that holds the labels."""

    def __init__(self, process: LabelProcess, number: int) -> None:
        self._process, self._number = process, number

    def update(self, outputs: Tensor, y: Tensor | HiddenLabels) -> None:
        """Send outputs, and where their labels are, or labels that are known here."""
        if isinstance(y, Tensor):
            labels: dict[str, Any] = {"labels": y}
        else:
            labels = {"split": y.split, "positions": y.positions}
        asked = {"do": "update", "number": self._number, "outputs": outputs, **labels}
        self._process.request(asked)

    def compute(self) -> float:
        return float(self._process.request({"do": "compute", "number": self._number}))

    def further(self) -> dict[str, float]:
        return dict(self._process.request({"do": "further", "number": self._number}))


class IsolatedStream(Stream):
    """A stream that was built in a `LabelProcess`."""

    def __init__(self, process: LabelProcess) -> None:
        facts = process.request({"do": "facts"})
        for name, value in facts.items():
            setattr(self, name, value)
        self.applications = [ApplicationFacts(*each) for each in facts["applications"]]
        self._process = process
        self._settings = facts["settings"]

    @classmethod
    def data_digest(cls, config: Any) -> str:
        raise BenchError("an isolated stream has no data digest of its own")

    def source_settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def source(self) -> Domain:
        return self.domain("")

    def domain_names(self) -> Sequence[str]:
        names: Sequence[str] = self._process.request({"do": "names"})
        return names

    def domain(self, name: str) -> Domain:
        """A target domain, or the source for an empty name; test labels are `HiddenLabels`."""
        parts = self._process.request({"do": "domain", "name": name})
        splits = {}
        for part in ("adaptation", "test"):
            x, y = parts[part]["x"], parts[part]["y"]
            if x is None:
                x = _RemoteInputs(self._process, (name, part), parts[part]["lazy"])
            if y is None:
                y = HiddenLabels((name, part), torch.arange(parts[part]["n"]))
            splits[part] = Split(x, y)
        return Domain(parts["name"], ordered=parts["ordered"], **splits)


# --- in the process that holds the labels ------------------------------------------------------


def _serve(
    connection: Connection, other_end: Connection, cell: Cell, labelled: bool, plugins: Any
) -> None:
    other_end.close()
    try:
        answers = _Answers(cell, labelled, plugins)
        problem = ""
    except BenchError as error:
        problem = str(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    while True:
        try:
            asked = _receive(connection)
        except (EOFError, OSError):
            return
        if problem:
            _send(connection, {"error": problem})
            continue
        try:
            _send(connection, {"value": answers.answer(asked)})
        except BenchError as error:
            _send(connection, {"error": str(error)})
        except Exception as error:
            _send(connection, {"error": f"{type(error).__name__}: {error}"})


class _Answers:
    def __init__(self, cell: Cell, labelled: bool, plugins: Sequence[str]) -> None:
        from bench import registry
        from bench.study.build import build

        for plugin in plugins:
            registry.add_plugin(plugin)
        self._stream: Stream = build("stream", cell.stream, cell.seed)
        if make_task(self._stream.task).causal:
            raise BenchError(
                f"--isolate-labels: inputs of {self._stream.task} hold the labels, which are their "
                "later tokens; run without it"
            )
        self._built: BuiltStream = build_stream(self._stream)
        self._labelled = labelled
        self._scores: list[Score] = []
        self._domains = {"": self._built.source, **{d.name: d for d in self._built.domains}}

    def answer(self, asked: dict[str, Any]) -> Any:
        ways: dict[str, Callable[[dict[str, Any]], Any]] = {
            "facts": self._facts, "names": lambda _: [d.name for d in self._built.domains],
            "domain": self._domain, "read": self._read, "score": self._score,
            "update": self._update,
            "compute": lambda asked: self._scores[asked["number"]].compute(),
            "further": lambda asked: self._scores[asked["number"]].further(),
        }  # fmt: skip
        return ways[asked["do"]](asked)

    def _facts(self, _: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream
        names = ("task", "classes", "input_shape", "supervised", "shifts", "repeats_samples")
        facts = {name: getattr(stream, name) for name in names}
        facts["applications"] = [astuple(each) for each in stream.applications]
        return {**facts, "seed": stream.seed, "settings": stream.source_settings()}

    def _domain(self, asked: dict[str, Any]) -> dict[str, Any]:
        domain = self._domains[asked["name"]]
        shown = self._labelled or not asked["name"]  # the source's adaptation split trains models
        parts = {"adaptation": _shown(domain.adaptation, shown), "test": _shown(domain.test, False)}
        return {"name": domain.name, "ordered": domain.ordered, **parts}

    def _read(self, asked: dict[str, Any]) -> Inputs:
        name, part = asked["split"]
        split: Split = getattr(self._domains[name], part)
        return take(split.x, asked["positions"])

    def _score(self, _: dict[str, Any]) -> int:
        self._scores.append(self._built.task.score())
        return len(self._scores) - 1

    def _update(self, asked: dict[str, Any]) -> None:
        if "labels" in asked:
            labels = asked["labels"]
        else:
            name, part = asked["split"]
            split: Split = getattr(self._domains[name], part)
            labels = take_labels(split.y, asked["positions"])
        self._scores[asked["number"]].update(asked["outputs"], labels)


def _shown(split: Split, labelled: bool) -> dict[str, Any]:
    """A split as it is sent: lazy inputs as what is known of them without reading them."""
    x, lazy = split.x, None
    if isinstance(x, LazyInputs):
        lazy = {"names": x.sample_names(), "types": x.sample_types, "settings": x.settings()}
        lazy["columns"] = {name: x.column(name) for name in x.sample_types}
        x = None
    return {"x": x, "lazy": lazy, "y": split.y if labelled else None, "n": len(split)}


def _send(connection: Connection, message: dict[str, Any]) -> None:
    stream = io.BytesIO()
    torch.save(message, stream)
    connection.send_bytes(stream.getvalue())


def _receive(connection: Connection) -> Any:
    """A message: tensors and plain values alone, so that no message can run code."""
    return torch.load(io.BytesIO(connection.recv_bytes()), weights_only=True)
