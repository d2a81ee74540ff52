"""Options that several commands share, and how they become a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.store import Store

SuiteName = Annotated[str, typer.Option("--suite", help="A suite's name, or the path of a file.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="Device to charge costs on; repeatable. Default: the suite's."),
]
Methods = Annotated[
    str | None, typer.Option("--methods", help="Only these methods, as a,b; others may be added.")
]
Model = Annotated[str | None, typer.Option("--model", help="Instead of the suite's model.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="As 0..4 or 0,3,7.")]
StoreRoot = Annotated[
    Path, typer.Option("--store", envvar="BENCH_STORE", help="Folder of the records.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file that registers components; its code is run."),
]

DEFAULT_SUITE = "domain-shift"
DEFAULT_STORE = Path("bench-results")


def resolve(
    suite: str,
    devices: list[str] | None,
    methods: str | None,
    model: str | None,
    seeds: str | None,
    store: Path,
    plugins: list[Path] | None,
    retry: tuple[str, ...] = (),
) -> tuple[Plan, Store]:
    """The plan that the options describe, and the store it was compared with."""
    from bench import registry
    from bench.plan import make_plan
    from bench.store import Store
    from bench.suite import Reference, load_suite, parse_seeds, select

    for plugin in plugins or []:
        registry.add_plugin(plugin)
    chosen, path = load_suite(suite)
    names = [n.strip() for n in methods.split(",") if n.strip()] if methods is not None else None
    if names is not None and not names:
        raise BenchError(f"--methods {methods!r}: names no method; write a,b")
    for name in names or []:
        registry.entry("method", name)
    chosen = select(chosen, names)
    changes: dict[str, object] = {}
    if devices:
        named = [Path(d).as_posix() if d.endswith((".yaml", ".yml")) else d for d in devices]
        changes["devices"] = list(dict.fromkeys(named))
    if model is not None:
        changes["model"] = Reference(name=model)
    if seeds is not None:
        changes["seeds"] = parse_seeds(seeds)
    chosen = chosen.model_copy(update=changes)
    if store.exists() and not store.is_dir():
        raise BenchError(f"--store {store}: is a file; name a folder")
    opened = Store(store)
    return make_plan(chosen, path, opened, retry), opened


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
