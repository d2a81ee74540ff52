"""Fair tuning: every method the same number of trials on a validation stream, by Optuna.

The search is a plan made on the way: each trial is a cell like any other, run by the executor and
kept in a store. The sampler's seed is fixed, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import defaults, registry
from bench.contracts.method import Searched, search_space
from bench.execute.base import Ended
from bench.records.cell import Cell
from bench.records.record import Record
from bench.records.store import Store
from bench.study.applicability import unsupported
from bench.study.build import config_of
from bench.study.job import Job, make_job
from bench.study.plan import make_cells
from bench.study.suite import Reference, Suite
from bench.study.tuned_settings import TunedMethod, model_tuned_path, tuned_path

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 5
"""Trials at random before the sampler learns from results; the same for every number of trials, so
that a search can be lengthened."""
DIGITS = 3
"""Significant figures of a value that is tried."""

Notify = Callable[[str, int, int, float | None, dict[str, Any]], None]
"""Receives (method, trial, trials, score or None, settings) when a trial has ended."""


def validation_suite(suite: Suite) -> Suite:
    """The suite on its stream's validation stream."""
    stream_class = registry.load("stream", suite.stream.name)
    config = config_of("stream", suite.stream)
    settings = stream_class.validation(config).model_dump(mode="json")
    stream = Reference(name=suite.stream.name, config=settings)
    return suite.model_copy(update={"name": f"{suite.name}-validation", "stream": stream})


@dataclass
class _Search:
    """The trials of one method.

    ``cells``: one for each seed, with the method's defaults. ``waiting``: the cells of the trial
    that runs, by identity, and their scores once they have one (not a number: it failed).
    """

    cells: list[Cell]
    space: list[Searched]
    study: optuna.Study
    started: int = 0
    failed: int = 0
    trial: optuna.trial.Trial | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, float | None] = field(default_factory=dict)
    scores: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    default_score: float | None = None

    @property
    def name(self) -> str:
        return self.cells[0].tuning_key


class Yardstick:
    """The score without adaptation on what is searched on, to read the searches' gains against.

    ``jobs``: those that are missing in the store, one for each variant and seed.
    """

    def __init__(self, suite: Suite, path: Path, store: Store) -> None:
        alone = {"methods": [Reference(name=defaults.METHOD)], "supervised_references": []}
        self._cells = make_cells(suite.model_copy(update=alone), path)
        self._store = store
        missing = [cell for cell in self._cells if self._score(cell) is None]
        band = suite.model.expected_source
        self.jobs = [make_job([c], suite.name, store, expected_source=band) for c in missing]

    def scores(self) -> dict[str, float]:
        """Mean score over the seeds by tuning key, of those that all have one."""
        found: dict[str, list[float]] = {}
        for cell in self._cells:
            score = self._score(cell)
            found.setdefault(cell.tuning_key, []).append(math.nan if score is None else score)
        means = {name: sum(scores) / len(scores) for name, scores in found.items()}
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def _score(self, cell: Cell) -> float | None:
        record = self._store.get(cell.identity)
        return None if record is None or record.results is None else record.results.score


class Tuner:
    """Asks for trials and takes their results, for all methods of a validation suite.

    Parameters
    ----------
    suite : the suite that is searched on; what it gives a method itself is not searched
    cells : its cells on one device; a method that is listed twice is tuned as its first listing
    trials : for each method, the defaults included
    store : where trials are kept, and taken from if they are there
    notify : called with every trial that has ended

    ``untunable``: methods that are not tuned, each with the reason. On each variant of the model a
    method is tuned for itself, with the same number of trials.
    """

    def __init__(
        self, suite: Suite, cells: Iterable[Cell], trials: int, store: Store, notify: Notify
    ) -> None:
        self._suite, self._trials, self._store, self._notify = suite, trials, store, notify
        self._searches: dict[str, _Search] = {}
        self.untunable: dict[str, str] = {}
        given: dict[tuple[str, bool], dict[str, Any]] = {}
        for reference, labelled in suite.all_methods():
            given.setdefault((reference.name, labelled), reference.config)
        for cell in cells:
            name = cell.tuning_key
            if name in self._searches:
                mine = self._searches[name].cells  # those of its first listing, one for each seed
                if (cell.method, cell.target_labels) == (mine[0].method, mine[0].target_labels):
                    mine.append(cell)
                continue
            method = registry.load("method", cell.method.name)
            if cell.variant is not None and method.makes_own_model:
                continue  # the same run as on the full model
            fields = list(search_space(method.Config))
            by_suite = given[cell.method.name, cell.target_labels]
            space = [s for s in fields if s.name not in by_suite]
            if not fields:
                self.untunable[name] = "it has no setting to search"
            elif not space:
                self.untunable[name] = "the suite gives every setting that would be searched"
            elif (reason := unsupported(cell)) is not None:
                self.untunable[name] = reason
            else:
                self.untunable.pop(name, None)
                self._searches[name] = _Search([cell], space, _study(name))

    @property
    def names(self) -> list[str]:
        """The methods that are tuned."""
        return list(self._searches)

    def begin(self) -> list[Job]:
        """The first jobs: one trial of each method."""
        return [job for search in self._searches.values() for job in self._next(search)]

    def ended(self, ended: Ended) -> list[Job]:
        """Take a finished job; the jobs that follow from it."""
        for record in ended.records:
            search = self._searches.get(record.cell.tuning_key)
            if search is None or record.status == "interrupted":
                continue
            if record.identity not in search.waiting:
                continue
            search.waiting[record.identity] = _score(record)
            if all(value is not None for value in search.waiting.values()):
                self._settle(search)
                return self._next(search)
        return []

    def results(self) -> dict[str, TunedMethod]:
        """The best settings of each method with a result, by mean score over the seeds."""
        found = {}
        for name, search in ((n, s) for n, s in self._searches.items() if s.scores):
            # Of equal scores the first stands: the defaults come before all others.
            score, settings = max(search.scores, key=lambda pair: pair[0])
            found[name] = TunedMethod(
                settings=settings,
                score=round(score, 6),
                default_score=search.default_score and round(search.default_score, 6),
                trials=search.started,
                failed=search.failed,
                code=search.cells[0].method.code,
            )
        return found

    def _next(self, search: _Search) -> list[Job]:
        """Jobs of the next trial that is not in the store yet."""
        while search.started < self._trials:
            self._ask(search)
            cells = [_with(cell, search.settings) for cell in search.cells]
            records = {cell.identity: self._store.get(cell.identity) for cell in cells}
            search.waiting = {
                key: None if record is None or record.status == "interrupted" else _score(record)
                for key, record in records.items()
            }
            missing = [cell for cell in cells if search.waiting[cell.identity] is None]
            if missing:
                name, band = self._suite.name, self._suite.model.expected_source
                return [make_job([c], name, self._store, expected_source=band) for c in missing]
            self._settle(search)
        return []

    def _ask(self, search: _Search) -> None:
        """Choose the settings of the next trial: the defaults first, then what Optuna asks for."""
        search.started += 1
        if search.started == 1:
            search.trial, search.settings = None, {}
            return
        search.trial = search.study.ask({s.name: distribution(s) for s in search.space})
        search.settings = {s.name: rounded(search.trial.params[s.name], s) for s in search.space}

    def _settle(self, search: _Search) -> None:
        import optuna

        values = [v for v in search.waiting.values() if v is not None]
        score = sum(values) / len(values)
        failed = math.isnan(score)
        search.waiting = {}
        if failed:
            search.failed += 1
            if search.trial is not None:
                search.study.tell(search.trial, state=optuna.trial.TrialState.FAIL)
        else:
            search.scores.append((score, search.settings))
            if search.trial is not None:
                search.study.tell(search.trial, score)
            else:
                search.default_score = score
                self._teach_default(search, score)
        shown = None if failed else score
        self._notify(search.name, search.started, self._trials, shown, search.settings)

    def _teach_default(self, search: _Search, score: float) -> None:
        """Let the sampler know the defaults' score, where they lie within the search."""
        import optuna

        config = search.cells[0].method.config
        if all(s.low <= config[s.name] <= s.high for s in search.space):
            params = {s.name: config[s.name] for s in search.space}
            axes = {s.name: distribution(s) for s in search.space}
            trial = optuna.trial.create_trial(params=params, distributions=axes, value=score)
            search.study.add_trial(trial)


def _study(name: str) -> optuna.Study:
    """A search whose draws depend on the method's name and the results it is given alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(name.encode())
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
    return optuna.create_study(sampler=sampler, direction="maximize")


def _with(cell: Cell, settings: dict[str, Any]) -> Cell:
    config = {**cell.method.config, **settings}
    return cell.model_copy(update={"method": cell.method.model_copy(update={"config": config})})


def _score(record: Record) -> float:
    """The score of a trial, not a number if it has none."""
    return record.results.score if record.results is not None else math.nan


def distribution(searched: Searched) -> optuna.distributions.BaseDistribution:
    """What Optuna draws a setting from: its bounds, both included, and its scale."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if searched.integer:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def rounded(value: float, searched: Searched) -> float:
    """A drawn value as it is tried: of `DIGITS` significant figures, and inside its bounds."""
    if searched.integer:
        return int(value)
    return min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)


def default_out(suite_file: Path, shipped: Path, model: str = "") -> Path:
    """Where tuned settings are written by default: beside a user's suite, else in this folder.

    ``model``: on which they are tuned, where the suite has several.
    """
    path = model_tuned_path(suite_file, model) if model else tuned_path(suite_file)
    return Path(path.name) if suite_file.parent == shipped else path
