"""``bench tune``: search every method's settings on a validation stream, with equal budgets."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench import registry
from bench.cli import options
from bench.errors import BenchError
from bench.io.duration import duration
from bench.study.selection import DEFAULT_SUITE, open_store

if TYPE_CHECKING:
    from bench.records.cell import Cell
    from bench.study.suite import Suite
    from bench.study.tuned_settings import Tuned, TunedMethod
    from bench.tuning.tune import Tried, Tuner

LOUD = (
    "bench: ORACLE: settings are selected with the labels of the test stream. Results with them "
    "are upper bounds of tuning, no fair comparison; every table will say so."
)


def command(
    suite: options.SuiteName = DEFAULT_SUITE,
    methods: options.Methods = None,
    trials: Annotated[int, Option(min=1, help="For each method, its defaults included.")] = 16,
    seeds: Annotated[str, Option(help="Validation runs of a trial, as 0..2 or 0,1.")] = "0..2",
    source_draws: options.SourceDraws = None,
    model: options.Model = None,
    variant: options.Variants = None,
    data_root: options.DataRoot = None,
    out: Annotated[Path | None, Option(help="File to write. Default: <suite>.tuned.yaml.")] = None,
    figure: Annotated[
        Path | None, Option(help="PNG to write: expected best score by number of trials.")
    ] = None,
    oracle: Annotated[
        bool, Option("--oracle", help="Search on the test stream itself. Not a fair setting.")
    ] = False,
    store: Annotated[  # not BENCH_STORE: trials are no results, and reports read all of a store
        Path, Option(help="Folder of the trials' records.")
    ] = Path("bench-tuning"),
    plugins: options.Plugins = None,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
    executor: options.ExecutorName = options.DEFAULT_EXECUTOR,
    accelerator: options.Accelerator = None,
    gpus: options.Gpus = None,
    per_gpu: options.PerGpu = 1,
    threads: options.Threads = None,
) -> None:
    """Tune methods on the suite's validation stream and write the settings to use with it.

    Every method gets the same number of trials over the bounds of its own settings. A trial has a
    validation run for each seed, and is stopped early where the first ones are not among the
    better half. A method keeps its defaults unless a trial beats them beyond the standard error of
    their difference. Stop it and give the same command again: runs in the store are not run twice.
    'bench run' uses the file if it stands beside the suite's, else with --tuned. With --methods and
    the --out of an earlier search under the same budget, the settings of the other methods stay.
    """
    from bench.execute.base import Limits
    from bench.execute.campaign import Campaign
    from bench.io.atomic_write import require_folder
    from bench.live.progress import PreparationProgress, stoppable
    from bench.study.plan import make_cells
    from bench.study.suite import SUITES, load_suite
    from bench.study.tuned_settings import tuned_path, write_tuned
    from bench.tuning.tune import (
        Tuner,
        Yardstick,
        default_out,
        validation_runs,
        validation_suite,
    )

    selection = options.selection(
        suite=suite,
        methods=methods,
        model=model,
        variant=variant,
        seeds=seeds,
        source_draws=source_draws,
        data_root=data_root,
        plugins=plugins,
        accelerator=accelerator,
        gpus=gpus,
        per_gpu=per_gpu,
        threads=threads,
    )
    chosen, path = selection.choose(options.warn)
    if chosen.models:
        names = " or ".join(each.name for each in chosen.models)
        raise BenchError(f"suite {path}: settings are tuned on one model: add --model {names}")
    listed = load_suite(suite)[0].models  # each has a file of its own
    target = out or default_out(path, SUITES, chosen.model.name if listed else "")
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "no regular file"
        raise BenchError(f"--out {target}: is {what}; name a file")
    if figure is not None and (figure.suffix != ".png" or figure.is_dir()):
        raise BenchError(f"--figure {figure}: is written as PNG; name a file that ends in .png")
    searched = chosen.model_copy(update={"devices": chosen.devices[:1]})
    make_cells(searched, path)  # what is wrong with the suite itself is said first
    if oracle:
        typer.echo(LOUD, err=True)
    else:
        searched = validation_suite(searched)
    cells = validation_runs(searched, make_cells(searched, path))
    opened = open_store(store)
    shown = _Shown()
    tuner = Tuner(searched, cells, trials, opened, shown, _known(target))
    yardstick = Yardstick(searched, path, opened)
    untunable = dict(tuner.untunable)
    for name, why in untunable.items():
        typer.echo(f"{name}: not tuned: {why}", err=True)
    for name in tuner.startless:
        start = registry.load("method", name.partition("@")[0]).search_from
        typer.echo(
            f"{name}: its search does not start from {start}, which is neither tuned here nor in "
            f"{target}",
            err=True,
        )
    if not tuner.names:
        raise BenchError(f"suite {path}: nothing to tune; name other methods with --methods")
    found = tuned_file(chosen, searched, cells, tuner, trials, oracle)
    _beside_others(target, found, tuner.names)  # refused now, not when the search has ended
    progress = PreparationProgress()
    limits = Limits(timeout_s=timeout)
    runner = options.executor_of(executor, selection, chosen, jobs, limits)
    stopped = stoppable(progress, lambda: "the same command goes on from here")
    with stopped, Campaign(opened, runner, progress) as campaign:
        require_folder(target.parent, f"--out {target}")
        campaign.prepare(cells)
        shown.begin(len(tuner.names) * trials)
        campaign.run([*yardstick.jobs, *tuner.begin()], tuner.ended)
    tuned = tuned_file(chosen, searched, cells, tuner, trials, oracle)
    write_tuned(target, _beside_others(target, tuned, tuner.names))
    if figure is not None:
        write_search_figure(figure, tuned)
    for name, score in yardstick.scores().items():
        typer.echo(f"{name}: {score:.1%} without adaptation")
    for name, best in tuned.methods.items():
        typer.echo(f"{name}: {_ending(best)}")
    for name in tuner.untunable.keys() - untunable.keys():
        typer.echo(f"{name}: not tuned: {tuner.untunable[name]}")
    for written in filter(None, (target, figure)):
        typer.echo(f"written: {written}")
    again = ["bench", "run", "--suite", suite]
    for option, values in (
        ("--plugin", plugins), ("--methods", methods), ("--model", model), ("--variant", variant),
        ("--data-root", None if data_root is None else str(data_root)),
    ):  # fmt: skip
        for value in [values] if isinstance(values, str) else values or []:
            again += [option, str(value)]
    if target.resolve() != tuned_path(path, chosen.model.name).resolve():
        again += ["--tuned", str(target)]
    typer.echo(f"next: {shlex.join(again)}")
    without = [n for n in tuner.names if n not in tuned.methods]
    if without:
        typer.echo(f"bench: no trial gave a result: {', '.join(without)} (logs: {opened.logs})")
        raise typer.Exit(1)


def _known(target: Path) -> dict[str, TunedMethod]:
    """The settings that the file has which is added to; none if there is no such file."""
    from bench.study.tuned_settings import read_tuned

    return read_tuned(target).methods if target.exists() else {}


def _beside_others(target: Path, tuned: Tuned, names: list[str]) -> Tuned:
    """``tuned`` together with what ``target`` has of methods that are not among ``names``.

    Raises BenchError if it has some and they were tuned with another budget.
    """
    from bench.study.tuned_settings import merged, read_tuned

    if not target.exists() or not set((old := read_tuned(target)).methods) - set(names):
        return tuned
    try:
        return merged(old, tuned)
    except BenchError as error:
        raise BenchError(f"--out {target}: {error}") from None


class _Shown:
    """Prints every trial that has ended, and about how long the others will take."""

    def begin(self, trials: int) -> None:
        """The search begins: of so many trials in all."""
        self._began, self._trials, self._ended = time.monotonic(), trials, 0

    def __call__(self, tried: Tried) -> None:
        from bench.live.progress import say

        self._ended += 1
        seconds = (time.monotonic() - self._began) / self._ended * (self._trials - self._ended)
        found = "no result" if tried.score is None else f"{tried.score:.1%}"
        over = "1 run" if tried.runs == 1 else f"{tried.runs} runs"
        left = f"; about {duration(seconds)} left" if self._ended < self._trials else ""
        settings = tried.settings or "its defaults"
        say(f"{tried.method} {tried.trial}/{tried.trials}: {found} in {over} with {settings}{left}")


def _ending(found: TunedMethod) -> str:
    """What a search ended with, in words."""
    default = "failed" if found.default_score is None else f"{found.default_score:.1%}"
    said = f"{default} with its defaults"
    if found.gain is None:
        return f"{said}, {found.score:.1%} with {found.settings or 'them'}, the best trial"
    gain = (
        f"{100 * found.gain:+.1f} points (standard error {100 * (found.standard_error or 0):.1f})"
    )
    if found.not_taken is not None:
        return f"{said}, which stay: the best trial, {found.not_taken.settings}, gains {gain}"
    return f"{said}, {found.score:.1%} tuned {found.settings}: {gain}"


def write_search_figure(path: Path, tuned: Tuned) -> None:
    """Draw how good the best of fewer trials would have been, for each method."""
    from bench import registry
    from bench.io.atomic_write import write_atomically

    scores = {name: found.first_scores for name, found in tuned.methods.items()}
    try:
        write_atomically(path, registry.load("report", "expected-best")(scores, tuned.suite))
    except OSError as error:
        raise BenchError(
            f"--figure {path}: cannot be written: {error.strerror}; choose another file"
        ) from error


def tuned_file(
    suite: Suite, searched: Suite, cells: list[Cell], tuner: Tuner, trials: int, oracle: bool
) -> Tuned:
    """The content of the file of tuned settings: what ``tuner`` has found so far, and how."""
    from importlib.metadata import version

    from bench import __version__
    from bench.study.tuned_settings import Tuned
    from bench.tuning.choosing import RULE

    return Tuned(
        command=shlex.join(["bench", *sys.argv[1:]]),
        version=__version__,
        optuna=version("optuna"),
        suite=suite.name,
        stream=suite.stream.name,
        validation=cells[0].stream.config,
        model=cells[0].model.name,
        protocol=cells[0].protocol,
        device=cells[0].device,
        data=cells[0].data,
        trials=trials,
        seeds=searched.seeds,
        source_draws=searched.source_draws,
        rule=RULE,
        oracle=oracle,
        methods=tuner.results(),
    )
