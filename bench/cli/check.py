"""``bench check``: whether methods keep the contract."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from bench.errors import BenchError
from bench.io.text_table import aligned


def command(
    methods: Annotated[
        list[str] | None,
        Argument(
            metavar="[NAME|FILE]...",
            help="Registered methods, or Python files that register some; their code is run.",
        ),
    ] = None,
    everything: Annotated[bool, Option("--all", help="Every registered method.")] = False,
    only: Annotated[list[str] | None, Option(help="Only this check; repeatable.")] = None,
    list_: Annotated[bool, Option("--list", help="List the checks and stop.")] = False,
) -> None:
    """Run the conformance suite on methods: one line a check, with the cure where one fails."""
    if not (methods or everything or list_):
        raise BenchError("check: name a method or a Python file, or give --all")
    from bench import registry

    given = methods or []
    for name in given:
        if not name.endswith(".py"):
            registry.entry("method", name)
    from bench.conformance import CHECKS, check_method, methods_of_file

    if list_:
        typer.echo(aligned([[check.name, check.promise] for check in CHECKS.values()]))
        return
    names = [n for g in given for n in (methods_of_file(g) if g.endswith(".py") else [g])]
    failed = False
    for name in dict.fromkeys([*names, *(registry.entries("method") if everything else ())]):
        typer.echo(f"method {name}")
        results = []
        for result in check_method(name, only or []):
            typer.echo(result.line)
            results.append(result)
        bad = sum(not result.passed for result in results)
        seconds = sum(result.seconds for result in results)
        said = f"{bad} of {len(results)} checks failed" if bad else f"{len(results)} checks passed"
        typer.echo(f"{name}: {said} in {seconds:.1f} s")
        failed |= bool(bad)
    if failed:
        raise typer.Exit(1)
