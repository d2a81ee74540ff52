"""A suite of toy methods and an executor that makes records up, for tests of searches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.execute.base import Ended
from bench.records.cell import Cell
from bench.records.record import Record, Results
from bench.records.store import Store
from bench.study.job import Job
from bench.study.plan import make_cells
from bench.study.suite import Suite, load_suite
from bench.tuning.tune import Tried, Tuner

PLUGIN = '''
from typing import Literal

from bench import Method, MethodConfig, choice, register
from bench.contracts.method import tunable
from bench.contracts.stream import Stream, StreamConfig
from bench.testing import TinyModel, TinyStream
from pydantic import Field

class ToyConfig(StreamConfig):
    part: str = "test"
    shifts: tuple[str, ...] = ("noise",)

@register("stream", "toy-shift")
class ToyShift(TinyStream):
    """A stream with a validation stream."""
    Config = ToyConfig

    @classmethod
    def data_digest(cls, config):
        return "da7a"

    @classmethod
    def validation(cls, config):
        return config.model_copy(update={"part": "validation", "shifts": ("blur",)})

@register("stream", "toy-without")
class ToyWithout(ToyShift):
    """A stream without one."""
    @classmethod
    def validation(cls, config):
        return Stream.validation.__func__(cls, config)

@register("model", "toy-net")
class ToyNet(TinyModel):
    """Never built."""

class TwoConfig(MethodConfig):
    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 5, ge=1, le=100)
    fixed: int = Field(7, ge=0)

@register("method", "two")
class Two(Method):
    """A logarithmic rate and a whole number."""
    Config = TwoConfig

@register("method", "twin")
class Twin(Method):
    """The same settings under another name."""
    Config = TwoConfig

class OneConfig(MethodConfig):
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "one")
class One(Method):
    """One number."""
    Config = OneConfig

class NamedConfig(MethodConfig):
    optimizer: Literal["sgd", "adam", "adamw"] = choice("sgd", "adamw")
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "named")
class Named(Method):
    """A name, and a number."""
    Config = NamedConfig

class WholeConfig(MethodConfig):
    steps: int = tunable(2, 1, 3)

@register("method", "whole")
class Whole(Method):
    """Three possibilities in all."""
    Config = WholeConfig

class OutsideConfig(MethodConfig):
    weight: float = tunable(9.0, 0.0, 1.0, le=10.0)

@register("method", "outside")
class Outside(Method):
    """Its default lies outside of the search."""
    Config = OutsideConfig

@register("method", "from-full")
class FromFull(Method):
    """Makes its own small model."""
    Config = OneConfig
    makes_own_model = True

class MoreConfig(TwoConfig):
    epochs: int = tunable(2, 1, 5)
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "more")
class More(Method):
    """The other one with a penalty more."""
    Config = MoreConfig
    search_from = "two"

@register("method", "nothing")
class Nothing(Method):
    """Has nothing to search."""

@register("method", "labels")
class Labels(Method):
    """Needs labels."""
    Config = OneConfig
    needs = ("target_labels",)
'''

SUITE = """
name: mine
description: a suite for tests
stream: toy-shift
model: toy-net
methods: [two, one]
seeds: 2
devices: [xavier-nx, agx-orin]
"""

OLD = Path(__file__).parents[1] / "records" / "samples" / "schema-1.json"
RESULTS = Results.model_validate(json.loads(OLD.read_text())["results"])


def quality(config: dict[str, Any]) -> float:
    """A score in [0, 1], best at a rate of 0.01, 4 epochs and a weight of 0.25."""
    score = 1.0
    if "learning_rate" in config:
        score -= (math.log10(config["learning_rate"]) + 2) ** 2 / 100
    if "epochs" in config:
        score -= (config["epochs"] - 4) ** 2 / 100
    if "weight" in config:
        score -= (config["weight"] - 0.25) ** 2 / 100
    return score


Outcome = Callable[[Cell], float | str]
"""The score that a trial gets, or the status with which it fails."""


class Bench:
    """A suite, a store and an executor that makes records up."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.store = Store(folder / "store")
        self.told: list[Tried] = []
        self.ran: list[Cell] = []

    def suite(self, text: str = SUITE) -> tuple[Suite, list[Cell]]:
        path = self.folder / "mine.yaml"
        path.write_text(text)
        loaded, _ = load_suite(str(path))
        one = loaded.model_copy(update={"devices": loaded.devices[:1]})
        return one, make_cells(one, path)

    def tuner(self, text: str = SUITE, trials: int = 6) -> Tuner:
        suite, cells = self.suite(text)
        return Tuner(suite, cells, trials, self.store, self.told.append)

    def record(self, job: Job, outcome: float | str) -> Record:
        (cell,) = job.cells
        failed = isinstance(outcome, str)
        results = None
        if not isinstance(outcome, str):
            scores = {"after": outcome, "final": outcome}
            domains = [d.model_copy(update=scores) for d in RESULTS.domains]
            results = RESULTS.model_copy(update={"domains": domains})
        old = json.loads(OLD.read_text())
        return Record.model_validate(
            {
                **old, "identity": cell.identity, "cell": cell, "run": job.run,
                "suite": job.suite, "status": outcome if failed else "ok",
                "attempt": job.attempts[0] + 1, "results": results,
                "reason": f"made to be {outcome}" if failed else "",
            }
        )  # fmt: skip

    def run(
        self,
        tuner: Tuner,
        outcome: Outcome = lambda cell: quality(cell.method.config),
        most: int = 10_000,
        last: bool = False,
    ) -> int:
        """Run what the tuner asks for, the oldest job first or the last; how many were run."""
        jobs = tuner.begin()
        done = 0
        while jobs and done < most:
            job = jobs.pop(-1 if last else 0)
            record = self.record(job, outcome(job.cells[0]))
            self.store.write(record)
            self.ran += job.cells
            jobs += tuner.ended(Ended(job, [record], []))
            done += 1
        return done

    def tried(self, name: str) -> list[dict[str, Any]]:
        return [tried.settings for tried in self.told if tried.method == name]


def fresh(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("other"))
