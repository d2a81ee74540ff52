"""``bench check``: whether methods, models, streams and data sets keep their contracts."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.data import Root, Settings, given_settings
from bench.errors import BenchError, did_you_mean, shown
from bench.io.text_table import aligned


def command(
    methods: Annotated[
        list[str] | None,
        Argument(
            metavar="[NAME|FILE]...",
            help="Registered methods, or Python files, of which all that they register is "
            "checked; their code is run.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        Option(metavar="NAME|FILE", help="A model, or a file's models; repeatable."),
    ] = None,
    stream: Annotated[
        list[str] | None,
        Option(metavar="NAME|FILE", help="A stream, or a file's streams; repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None,
        Option(metavar="NAME|FILE", help="A data set, or a file's; with --root. Repeatable."),
    ] = None,
    root: Root = None,
    settings: Settings = None,
    everything: Annotated[bool, Option("--all", help="Every registered method.")] = False,
    only: Annotated[list[str] | None, Option(help="Only this check; repeatable.")] = None,
    list_: Annotated[bool, Option("--list", help="List the checks by kind and stop.")] = False,
) -> None:
    """Run the conformance suite on methods, models, streams and data sets: one line a check, with
    the cure where one fails.
    """
    asked = {
        "method": methods or [],
        "model": model or [],
        "stream": stream or [],
        "dataset": data or [],
    }
    if not (any(asked.values()) or everything or list_):
        raise BenchError(
            "check: name a method, a --model, --stream, --data or a Python file, or give --all"
        )
    from bench import registry

    for kind, given in asked.items():
        for name in given:
            if not name.endswith(".py"):
                registry.entry(kind, name)
    from bench.conformance import CHECKS, check_component, components_of_file

    if list_:
        rows = [[k, c.name, c.promise] for k, checks in CHECKS.items() for c in checks.values()]
        typer.echo(aligned(rows))
        return
    found: list[tuple[str, str]] = []
    for kind, given in asked.items():
        for name in given:
            if name.endswith(".py"):
                kinds = [k for k in CHECKS if CHECKS[k]] if kind == "method" else [kind]
                found += [(entry.kind, entry.name) for entry in components_of_file(name, kinds)]
            else:
                found.append((kind, name))
    found += [("method", name) for name in registry.entries("method")] if everything else []
    if (root is not None or settings) and all(kind != "dataset" for kind, _ in found):
        said = f"--root {root}" if root is not None else f"--set {shown((settings or [])[0])}"
        raise BenchError(f"check: {said}: is for data sets; name one with --data")
    chosen = _chosen(only or [], {kind: list(CHECKS[kind]) for kind, _ in found})
    failed = False
    for kind, name in dict.fromkeys(found):
        if only and not chosen[kind]:
            continue
        typer.echo(f"{kind} {name}")
        results = []
        of_data = given_settings(root, settings) if kind == "dataset" else None
        for result in check_component(kind, name, chosen[kind], of_data):
            typer.echo(result.line)
            results.append(result)
        bad = sum(not result.passed for result in results)
        seconds = sum(result.seconds for result in results)
        said = f"{bad} of {len(results)} checks failed" if bad else f"{len(results)} checks passed"
        typer.echo(f"{name}: {said} in {seconds:.1f} s")
        failed |= bool(bad)
    if failed:
        raise typer.Exit(1)


def _chosen(only: list[str], known: dict[str, list[str]]) -> dict[str, list[str]]:
    """The checks ``only`` of each kind; BenchError for one that no kind has."""
    every = [check for checks in known.values() for check in checks]
    for each in only:
        if each not in every:
            raise BenchError(f"unknown check {each!r}: {did_you_mean(each, every)}")
    return {kind: [each for each in only if each in checks] for kind, checks in known.items()}
