"""Options that several commands share, and the selection that they describe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from bench.errors import BenchError
from bench.io.warn import warn as warn
from bench.study.selection import DEFAULT_STORE, DEFAULT_SUITE, Selection

if TYPE_CHECKING:
    from bench.accelerator.choice import Choice
    from bench.execute.base import Executor, Limits
    from bench.records.store import Store
    from bench.study.suite import Suite

SuiteName = Annotated[str, Option(help="A suite's name, or the path of a file.")]
Devices = Annotated[
    list[str] | None, Option(help="Device to charge costs on; repeatable. Default: the suite's.")
]
Methods = Annotated[
    str | None,
    Option(
        help="Only these methods, as a,b; others may be added. 'all': the suite's, its further "
        "references included."
    ),
]
Model = Annotated[str | None, Option(help="Instead of the suite's model.")]
Variants = Annotated[
    list[str] | None,
    Option(help="'full' or a smaller model as compressed:8; repeatable. Default: the suite's."),
]
Seeds = Annotated[str | None, Option(help="As 0..4 or 0-4 or 0,3,7.")]
SourceDraws = Annotated[
    int | None,
    Option(help="Source models to train; every seed runs on each. Default: the suite's, or 1."),
]
Interval = Annotated[
    float | None,
    Option(help="Seconds between batches, for a suite under online-timed. Default: the suite's."),
]
Data = Annotated[
    str | None, Option(help="Instead of the suite's stream a data set of 'bench data list'.")
]
Root = Annotated[Path | None, Option(help="The folder that --data lies in.")]
Source = Annotated[str | None, Option(help="Source domain of --data, or several as a,b.")]
Targets = Annotated[str | None, Option(help="Target domains of --data in order, as a,b.")]
DataRoot = Annotated[
    Path | None,
    Option(
        envvar="BENCH_DATA_ROOT",
        help="The folder that relative paths of the suite's data and models lie in. Default: here.",
    ),
]
Untuned = Annotated[bool, Option("--untuned", help="The papers' default settings, not tuned ones.")]
TunedFile = Annotated[
    Path | None, Option(help="Tuned settings to use. Default: those beside the suite, if any.")
]
StoreRoot = Annotated[Path, Option(envvar="BENCH_STORE", help="Folder of the records.")]
Plugins = Annotated[
    list[Path] | None,
    Option("--plugin", help="Python file that registers components; its code is run."),
]
Accelerator = Annotated[
    str | None,
    Option(help="Where runs compute: cpu, cuda, cuda:UUID or auto. Default: the suite's, or cpu."),
]
Gpus = Annotated[
    str | None, Option(help="GPUs to use, indices or UUIDs as 0,1. Default: all that are visible.")
]
PerGpu = Annotated[int, Option("--per-gpu", min=1, help="Runs at a time on a GPU.")]
Threads = Annotated[
    int | None, Option(min=1, help="Threads of each run on the CPU. Default: the suite's, or 1.")
]
Jobs = Annotated[int | None, Option(min=1, help="Runs at a time. Default: the cores.")]
Timeout = Annotated[float | None, Option(min=0.1, help="Seconds until a run is killed.")]
ExecutorName = Annotated[str, Option(help="Where runs happen; 'inline' for a debugger.")]
DEFAULT_EXECUTOR = "processes"


def selection(
    suite: SuiteName = DEFAULT_SUITE,
    device: Devices = None,
    methods: Methods = None,
    model: Model = None,
    variant: Variants = None,
    seeds: Seeds = None,
    source_draws: SourceDraws = None,
    interval: Interval = None,
    data: Data = None,
    root: Root = None,
    source: Source = None,
    targets: Targets = None,
    data_root: DataRoot = None,
    untuned: Untuned = False,
    tuned: TunedFile = None,
    store: StoreRoot = DEFAULT_STORE,
    plugins: Plugins = None,
    accelerator: Accelerator = None,
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
    threads: Threads = None,
) -> Selection:
    """What the shared options choose."""
    from bench.study.suite import parse_seeds

    return Selection(
        suite=suite,
        devices=tuple(device or ()),
        methods=None if methods is None else method_names(methods),
        model=model,
        variants=tuple(variant or ()),
        seeds=None if seeds is None else tuple(parse_seeds(seeds)),
        source_draws=source_draws,
        interval=interval,
        data=data,
        root=root,
        source=_names(source),
        targets=_names(targets),
        data_root=data_root,
        untuned=untuned,
        tuned=tuned,
        store=store,
        plugins=tuple(plugins or ()),
        accelerator=accelerator,
        gpus=gpus,
        per_gpu=per_gpu,
        threads=threads,
    )


def with_selection(command: Callable[..., None], suite: str = DEFAULT_SUITE) -> Callable[..., None]:
    """A command that takes a `Selection` first, as one that takes the shared options instead.

    ``suite``: that of a command which names none.
    """
    shared = dict(inspect.signature(selection, eval_str=True).parameters)
    shared["suite"] = shared["suite"].replace(default=suite)
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in shared}
        command(selection(**chosen), **given)

    parameters = [*shared.values(), *own]
    # typer reads the options from here.
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def method_names(methods: str) -> tuple[str, ...]:
    """The methods that ``a,b`` names; BenchError if it names none."""
    names = _names(methods)
    if not names:
        raise BenchError(f"--methods {methods!r}: names no method; write a,b")
    return names


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(n.strip() for n in (given or "").split(",") if n.strip())


def tell_computing(selection: Selection, suite: Suite) -> Choice:
    """Where runs of the suite compute, said on the terminal unless that is the CPU by default."""
    choice = selection.computing(suite)
    if choice.kind != "cpu" or selection.accelerator is not None:
        typer.echo(f"bench: runs compute on {choice.title}", err=True)
    return choice


def executor_of(
    name: str,
    selection: Selection,
    suite: Suite,
    jobs: int | None,
    limits: Limits,
    asked: Mapping[str, Any] | None = None,
) -> Executor:
    """The executor of this name, with what the suite or the user, by option, asks of a queue."""
    from bench import registry
    from bench.execute.campaign import make_executor
    from bench.study.resources import resources_of

    elsewhere = registry.load("executor", name).elsewhere
    computing = None if elsewhere else tell_computing(selection, suite)
    gpus = selection.gpus if elsewhere else None
    resources, named = resources_of(suite.resources, asked or {}, gpus)
    return make_executor(name, jobs, limits, computing, suite.threads, resources, named)


def warn_unreadable(store: Store) -> None:
    """Say which record files could not be read, once each, and how many they are."""
    for line in store.warnings():
        warn(line)
    store.unreadable.clear()
