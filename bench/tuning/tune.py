"""Fair tuning: every method the same number of trials on a validation stream, by Optuna.

A trial runs its settings on several validation runs, each with a seed and a draw of the source
model. Successive halving stops a trial after 1, 2, 4 ... runs where it is not in the better half of
those that got so far; the defaults have all their runs. The search is a plan made on the way: each
run is a cell like any other, run by the executor and kept in a store. The sampler's seed is fixed,
so the same command goes on where it was stopped.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import defaults, registry
from bench.contracts.method import Searched, SearchedChoice, search_space
from bench.errors import BenchError
from bench.execute.base import Ended
from bench.records.cell import Cell
from bench.records.record import Record
from bench.records.store import Store
from bench.study.applicability import unsupported
from bench.study.build import config_of
from bench.study.job import Job, make_job
from bench.study.plan import make_cells
from bench.study.suite import Reference, Suite
from bench.study.tuned_settings import BestTrial, TunedMethod, model_tuned_path, tuned_path
from bench.tuning.choosing import Trial, choose, score_of

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 5
"""Trials at random before the sampler learns from results; the same for every number of trials, so
that a search can be lengthened."""
DIGITS = 3
"""Significant figures of a value that is tried."""

LEAST_RUNS = 2
HALVING = 2
"""Of so many trials that had 1, 2, 4 ... runs one goes on."""


class Tried(NamedTuple):
    """A trial that has ended: mean ``score`` over the validation ``runs`` that it had, if any."""

    method: str
    trial: int
    trials: int
    score: float | None
    settings: dict[str, Any]
    runs: int


Notify = Callable[[Tried], None]


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

    ``cells``: one for each validation run, with the method's defaults. ``start``: the method from
    whose best settings it goes on, by tuning key. Of the trial that runs: ``settings``, ``asked``,
    Optuna's of it, and ``waiting``, its cells by identity, with their scores once they have one
    (not a number: it failed), in the order of the runs.
    """

    cells: list[Cell]
    space: list[Searched | SearchedChoice]
    study: optuna.Study
    start: str = ""
    failed: int = 0
    asked: optuna.trial.Trial | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, float | None] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)
    running: bool = False

    @property
    def name(self) -> str:
        return self.cells[0].tuning_key


class Yardstick:
    """The score without adaptation on what is searched on, to read the searches' gains against.

    ``jobs``: those that are missing in the store, one for each variant and seed.
    """

    def __init__(self, suite: Suite, path: Path, store: Store) -> None:
        alone = {"methods": [Reference(name=defaults.METHOD)], "supervised_references": []}
        self._cells = validation_runs(suite, make_cells(suite.model_copy(update=alone), path))
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
        return None if record is None or record.results is None else score_of(record)


class Tuner:
    """Asks for trials and takes their results, for all methods of a validation suite.

    Parameters
    ----------
    suite : the suite that is searched on; what it gives a method itself is not searched
    cells : its `validation_runs`; a method that is listed twice is tuned as its first listing
    trials : for each method, the defaults included
    store : where trials are kept, and taken from if they are there
    notify : called with every trial that has ended
    known : settings tuned before under the same budget, by tuning key

    ``untunable``: methods that are not tuned, each with the reason; one whose defaults do not apply
    becomes one of them after these. On each variant of the model a method is tuned for itself, with
    the same number of trials.

    The second trial of a method that has `Method.search_from` are the best settings of that method,
    as far as it has them, and its own defaults: they come from this search, which that method's
    then goes before, else from ``known``. ``startless``: the methods that find them in neither.
    """

    def __init__(
        self,
        suite: Suite,
        cells: Iterable[Cell],
        trials: int,
        store: Store,
        notify: Notify,
        known: Mapping[str, TunedMethod] | None = None,
    ) -> None:
        self._suite, self._trials, self._store, self._notify = suite, trials, store, notify
        self._known = known or {}
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
                start = method.search_from and name.replace(cell.method.name, method.search_from, 1)
                self._searches[name] = _Search([cell], space, _study(name), start)
        if any(len(search.cells) < LEAST_RUNS for search in self._searches.values()):
            raise BenchError(
                "a search of one validation run does not know its noise, by which it chooses "
                "between defaults and trials: give two or more seeds, as --seeds 0..2"
            )
        self.startless = [
            name
            for name, search in self._searches.items()
            if search.start and search.start not in {*self._searches, *self._known}
        ]

    @property
    def names(self) -> list[str]:
        """The methods that are tuned."""
        return [name for name in self._searches if name not in self.untunable]

    def begin(self) -> list[Job]:
        """The first jobs: one trial of each method, of those that others wait for first."""
        starts = {search.start for search in self._searches.values()}
        first = sorted(self._searches.values(), key=lambda search: search.name not in starts)
        return [job for search in first for job in self._next(search)]

    def ended(self, ended: Ended) -> list[Job]:
        """Take a finished job; the jobs that follow from it."""
        for record in ended.records:
            search = self._searches.get(record.cell.tuning_key)
            if search is None or record.status == "interrupted":
                continue
            if record.identity not in search.waiting:
                continue
            search.waiting[record.identity] = score_of(record)
            if all(value is not None for value in search.waiting.values()):
                return self._next(search)
        return []

    def results(self) -> dict[str, TunedMethod]:
        """What each search with a result ends with, see `bench.tuning.choosing`."""
        found = {}
        for name, search in self._searches.items():
            chosen = choose(search.trials, len(search.cells))
            if chosen is None:
                continue
            kept = chosen.best is not chosen.taken
            found[name] = TunedMethod(
                settings=chosen.taken.settings,
                score=_short(chosen.taken.mean),
                default_score=chosen.default and _short(chosen.default.mean),
                gain=_short(chosen.gain),
                standard_error=_short(chosen.standard_error),
                not_taken=BestTrial(settings=chosen.best.settings, score=_short(chosen.best.mean))
                if kept
                else None,
                trials=len(search.trials),
                failed=search.failed,
                runs=sum(len(trial.scores) for trial in search.trials),
                steps=dict(sorted(search.steps.items())),
                first_scores=[_short(t.scores[0]) if t.scores else None for t in search.trials],
                code=search.cells[0].method.code,
            )
        return found

    def _next(self, search: _Search) -> list[Job]:
        """Jobs of the next runs that are not in the store yet.

        None while it waits for another search, or for runs that were asked for already.
        """
        if None in search.waiting.values():
            return []
        while search.running or not (self._has_ended(search) or self._waits(search)):
            if not search.running:
                self._ask(search)
            elif self._is_over(search):
                self._settle(search)
                continue
            else:
                self._widen(search)
            cells = [_with(cell, search.settings) for cell in search.cells]
            missing = [c for c in cells if search.waiting.get(c.identity, math.nan) is None]
            if missing:
                name, band = self._suite.name, self._suite.model.expected_source
                return [make_job([c], name, self._store, expected_source=band) for c in missing]
        if not self._has_ended(search):
            return []
        after = [other for other in self._searches.values() if other.start == search.name]
        return [job for other in after for job in self._next(other)]

    def _has_ended(self, search: _Search) -> bool:
        done = len(search.trials) == self._trials or search.name in self.untunable
        return done and not search.running

    def _waits(self, search: _Search) -> bool:
        """Whether the next trial begins with what another search has not found yet."""
        other = self._searches.get(search.start)
        return len(search.trials) == 1 and other is not None and not self._has_ended(other)

    def _from_start(self, search: _Search) -> dict[str, Any]:
        """The best settings of the method that this one starts from, as far as it has them.

        Nothing if there are none, or if that would be the defaults again.
        """
        best = self.results().get(search.start) or self._known.get(search.start)
        if best is None:
            return {}
        mine, other = search.cells[0].method.config, self._searches.get(search.start)
        if other is not None:
            its = other.cells[0].method.config
        else:
            name = search.start.partition("@")[0]
            its = registry.load("method", name).Config().model_dump(mode="json")
        its = {**its, **best.settings}
        shared = [s for s in search.space if s.name in its and s.holds(its[s.name])]
        if all(its[s.name] == mine[s.name] for s in shared):
            return {}
        return {s.name: its[s.name] if s in shared else mine[s.name] for s in search.space}

    def _ask(self, search: _Search) -> None:
        """Choose the settings of the next trial: the defaults, then those of the method that this
        one starts from, then what Optuna asks for.
        """
        search.running, search.waiting = True, {}
        search.asked, search.settings = None, {}
        if len(search.trials) == 1:
            search.settings = self._from_start(search)
        if search.trials and not search.settings:
            search.asked = search.study.ask({s.name: distribution(s) for s in search.space})
            params = search.asked.params
            search.settings = {s.name: rounded(params[s.name], s) for s in search.space}
        self._widen(search)

    def _widen(self, search: _Search) -> None:
        """Let the trial have its next runs: the defaults all, others up to the next halving."""
        had = len(search.waiting)
        wanted = len(search.cells) if search.asked is None else max(1, HALVING * had)
        for cell in search.cells[had:wanted]:
            identity = _with(cell, search.settings).identity
            record = self._store.get(identity)
            known = record is not None and record.status != "interrupted"
            search.waiting[identity] = score_of(record) if record is not None and known else None

    def _is_over(self, search: _Search) -> bool:
        """Whether the trial, whose runs so far have ended, gets no more of them."""
        scores = [score for score in search.waiting.values() if score is not None]
        if any(map(math.isnan, scores)) or len(scores) == len(search.cells):
            return True
        assert search.asked is not None
        search.asked.report(sum(scores) / len(scores), step=len(scores))
        return search.asked.should_prune()

    def _settle(self, search: _Search) -> None:
        """Take the trial that is over into the search."""
        from optuna.trial import TrialState

        scores = [score for score in search.waiting.values() if score is not None]
        records = [self._store.get(identity) for identity in search.waiting]
        for record in records:
            if record is not None and record.results is not None:
                search.steps.update(record.results.costs.steps)
        if not search.trials and (reason := _does_not_apply(records)):
            self.untunable[search.name] = reason
        search.running = False
        failed = any(map(math.isnan, scores))
        trial = Trial(search.settings, () if failed else tuple(scores))
        search.trials.append(trial)
        search.failed += failed
        if search.asked is None:
            if not failed:
                self._teach(search, trial)
        elif failed:
            search.study.tell(search.asked, state=TrialState.FAIL)
        elif len(scores) < len(search.cells):
            search.study.tell(search.asked, state=TrialState.PRUNED)
        else:
            search.study.tell(search.asked, trial.mean)
        mean = None if failed else trial.mean
        number, had = len(search.trials), len(scores)
        self._notify(Tried(search.name, number, self._trials, mean, search.settings, had))

    def _teach(self, search: _Search, trial: Trial) -> None:
        """Let the sampler know a trial that it did not ask for, where it lies within the search."""
        import optuna

        config = {**search.cells[0].method.config, **search.settings}
        if all(s.holds(config[s.name]) for s in search.space):
            params = {s.name: config[s.name] for s in search.space}
            axes = {s.name: distribution(s) for s in search.space}
            known = optuna.trial.create_trial(params=params, distributions=axes, value=trial.mean)
            search.study.add_trial(known)


def _does_not_apply(records: Sequence[Record | None]) -> str:
    """Why a method does not apply, from the records of its runs; empty if one says otherwise."""
    found = [r.reason for r in records if r is not None and r.status == "unsupported"]
    return found[0] if found and len(found) == len(records) else ""


def validation_runs(suite: Suite, cells: Iterable[Cell]) -> list[Cell]:
    """Of the cells of a suite those that a trial runs: each seed with one draw of the source.

    Seeds take the draws in turn, so that as few runs as there are seeds vary both.
    """
    order = {seed: i for i, seed in enumerate(suite.seeds)}
    chosen = [cell for cell in cells if cell.source_draw == order[cell.seed] % suite.source_draws]
    return sorted(chosen, key=lambda cell: order[cell.seed])


def _short(value: float | None) -> Any:
    """A score as files hold it."""
    return value if value is None else round(value, 6)


def _study(name: str) -> optuna.Study:
    """A search whose draws depend on the method's name and the results it is given alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(name.encode())
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING)
    return optuna.create_study(sampler=sampler, pruner=halving, direction="maximize")


def _with(cell: Cell, settings: dict[str, Any]) -> Cell:
    config = {**cell.method.config, **settings}
    return cell.model_copy(update={"method": cell.method.model_copy(update={"config": config})})


def distribution(searched: Searched | SearchedChoice) -> optuna.distributions.BaseDistribution:
    """What Optuna draws a setting from: its names, or its bounds, both included, and its scale."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(searched, SearchedChoice):
        return CategoricalDistribution(searched.values)
    if searched.integer:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def rounded(value: Any, searched: Searched | SearchedChoice) -> float | str:
    """A drawn value as it is tried: of `DIGITS` significant figures, and inside its bounds."""
    if isinstance(searched, SearchedChoice):
        return str(value)
    if searched.integer:
        return int(value)
    return min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)


def default_out(suite_file: Path, shipped: Path, model: str = "") -> Path:
    """Where tuned settings are written by default: beside a user's suite, else in this folder.

    ``model``: on which they are tuned, where the suite has several.
    """
    path = model_tuned_path(suite_file, model) if model else tuned_path(suite_file)
    return Path(path.name) if suite_file.parent == shipped else path
