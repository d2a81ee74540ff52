"""Options that several commands share, and how they become a plan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import defaults
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.records.store import Store
    from bench.study.plan import Plan
    from bench.study.suite import Suite
    from bench.study.tuned_settings import Tuned

SuiteName = Annotated[str, typer.Option("--suite", help="A suite's name, or the path of a file.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="Device to charge costs on; repeatable. Default: the suite's."),
]
Methods = Annotated[
    str | None, typer.Option("--methods", help="Only these methods, as a,b; others may be added.")
]
Model = Annotated[str | None, typer.Option("--model", help="Instead of the suite's model.")]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        help="'full' or a smaller model as compressed:8; repeatable. Default: the suite's.",
    ),
]
Seeds = Annotated[str | None, typer.Option("--seeds", help="As 0..4 or 0,3,7.")]
Interval = Annotated[
    float | None,
    typer.Option(
        "--interval",
        help="Seconds between batches, for a suite under online-timed. Default: the suite's.",
    ),
]
Untuned = Annotated[
    bool, typer.Option("--untuned", help="The papers' default settings, not the tuned ones.")
]
TunedFile = Annotated[
    Path | None,
    typer.Option("--tuned", help="Tuned settings to use. Default: those beside the suite, if any."),
]
StoreRoot = Annotated[
    Path, typer.Option("--store", envvar="BENCH_STORE", help="Folder of the records.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file that registers components; its code is run."),
]

DEFAULT_SUITE = defaults.SUITE
DEFAULT_STORE = Path("bench-results")


def choose(
    suite: str,
    devices: list[str] | None,
    methods: str | None,
    model: str | None,
    seeds: str | None,
    plugins: list[Path] | None,
    variants: list[str] | None = None,
    interval: float | None = None,
) -> tuple[Suite, Path]:
    """The suite that the options describe, and the file it came from."""
    from bench import registry
    from bench.study.suite import Reference, load_suite, parse_seeds, parse_variants, select

    for plugin in plugins or []:
        registry.add_plugin(plugin)
    chosen, path = load_suite(suite)
    chosen = select(chosen, None if methods is None else method_names(methods))
    changes: dict[str, object] = {}
    if devices:
        named = [Path(d).as_posix() if d.endswith((".yaml", ".yml")) else d for d in devices]
        changes["devices"] = list(dict.fromkeys(named))
    if model is not None:
        changes["model"] = Reference(name=model)
    if variants:
        changes["variants"] = parse_variants(variants)
    if seeds is not None:
        changes["seeds"] = parse_seeds(seeds)
    if interval is not None:
        changes["protocol"] = _at_interval(chosen, interval)
    return chosen.model_copy(update=changes), path


def method_names(given: str) -> list[str]:
    """The registered methods that ``a,b`` names, as they stand there.

    Raises BenchError if it names none, or one that is not known.
    """
    from bench import registry

    names = [n.strip() for n in given.split(",") if n.strip()]
    if not names:
        raise BenchError(f"--methods {given!r}: names no method; write a,b")
    for name in names:
        registry.entry("method", name)
    return names


def _at_interval(suite: Suite, interval: float) -> dict[str, object]:
    """The suite's protocol with another time between batches."""
    from bench.contracts.protocol import DEFAULT, protocol_facts

    if not protocol_facts(suite.protocol).timed:
        raise BenchError(
            f"--interval {interval:g}: suite {suite.name} is "
            f"{suite.protocol.get('name', DEFAULT)}, whose stream waits; leave it out, or take a "
            "suite whose stream does not wait, such as real-time"
        )
    if not 0 < interval < math.inf:
        raise BenchError(f"--interval {interval:g}: give seconds above 0, as 0.5")
    return {**suite.protocol, "interval_s": interval}


def open_store(root: Path) -> Store:
    """The store in a folder, which need not exist yet."""
    from bench.records.store import Store

    if root.exists() and not root.is_dir():
        raise BenchError(f"--store {root}: is a file; name a folder")
    return Store(root)


def resolve(
    suite: str,
    devices: list[str] | None,
    methods: str | None,
    model: str | None,
    seeds: str | None,
    store: Path,
    plugins: list[Path] | None,
    retry: tuple[str, ...] = (),
    untuned: bool = False,
    tuned: Path | None = None,
    variants: list[str] | None = None,
    interval: float | None = None,
) -> tuple[Plan, Store]:
    """The plan that the options describe, and the store it was compared with."""
    from bench.study.plan import make_plan

    chosen, path = choose(suite, devices, methods, model, seeds, plugins, variants, interval)
    opened = open_store(store)
    return make_plan(chosen, path, opened, retry, _tuned(path, untuned, tuned)), opened


def _tuned(suite: Path, untuned: bool, given: Path | None) -> Tuned | None:
    """The tuned settings to use: those given, else those beside the suite's file."""
    from bench.study.tuned_settings import read_tuned, tuned_path

    if untuned and given is not None:
        raise BenchError(f"--untuned and --tuned {given}: give one of them")
    beside = tuned_path(suite)
    if untuned or (given is None and not beside.exists()):
        return None
    tuned = read_tuned(given or beside)
    if tuned.oracle:
        typer.echo(
            f"bench: warning: ORACLE: {given or beside} was selected with the labels of the test "
            "stream; its results are upper bounds of tuning and no fair comparison",
            err=True,
        )
    return tuned


def duration(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def warn_unreadable(store: Store) -> None:
    """Say which record files could not be read."""
    for path, why in store.unreadable.items():
        typer.echo(f"bench: warning: record {path} cannot be read and is ignored: {why}", err=True)
