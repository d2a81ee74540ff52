"""``bench list``: what is registered, read without importing it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer
from typer import Argument

from bench.cli.options import Plugins, warn
from bench.io.text_table import aligned

Kind = StrEnum("Kind", "methods models variants datasets streams tasks devices suites")
"""What can be listed."""


def command(
    kind: Annotated[Kind | None, Argument(help="Default: everything.")] = None,
    plugins: Plugins = None,
) -> None:
    """List methods, models and their variants, data sets, streams, tasks, devices and suites."""
    from bench import registry
    from bench.costs.device_profile import device_names, load_device
    from bench.study.suite import load_suite, suite_files

    for plugin in plugins or []:
        registry.add_plugin(plugin)
    for i, each in enumerate([kind] if kind else list(Kind)):
        if i:
            typer.echo()
        if each is Kind.methods:
            rows = [["name", "family", "tasks", "needs", "provenance", "summary"], *_methods()]
        elif each is Kind.devices:
            profiles = [load_device(name) for name in device_names()]
            rows = [["name", "costs", "title"], *([p.name, p.cost, p.title] for p in profiles)]
        elif each is Kind.suites:
            suites = [load_suite(name)[0] for name in suite_files()]
            rows = [["name", "description"], *([s.name, s.description] for s in suites)]
        else:
            entries = registry.entries(each.value.removesuffix("s")).items()
            rows = [["name", "summary"], *([name, entry.summary] for name, entry in entries)]
        typer.echo(each.value)
        typer.echo(aligned(rows, indent="  "))
    for why in registry.broken_entry_points():
        warn(why)


def _methods() -> Iterator[list[str]]:
    from bench import registry

    every = set(registry.entries("task"))
    for name, entry in registry.entries("method").items():
        facts = entry.facts
        does = facts.get("tasks", ("classification",))
        tasks = "all" if set(does) == every else ", ".join(does)
        needs = ", ".join(facts.get("needs", ())) or "-"
        provenance = str(facts.get("provenance", "chosen-here"))
        yield [name, str(facts.get("family", "UDA")), tasks, needs, provenance, entry.summary]
