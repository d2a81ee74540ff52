"""``bench list``: what is registered, read without importing it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from bench.cli.options import Plugins
from bench.io.text_table import aligned


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    models = "models"
    variants = "variants"
    streams = "streams"
    devices = "devices"
    suites = "suites"


def command(
    kind: Annotated[Kind | None, typer.Argument(help="Default: everything.")] = None,
    plugins: Plugins = None,
) -> None:
    """List methods, models and their variants, streams, devices and suites."""
    from bench import registry

    for plugin in plugins or []:
        registry.add_plugin(plugin)
    makers = {
        Kind.methods: _methods,
        Kind.models: lambda: _plain("model"),
        Kind.variants: lambda: _plain("variant"),
        Kind.streams: lambda: _plain("stream"),
        Kind.devices: _devices,
        Kind.suites: _suites,
    }
    for i, each in enumerate([kind] if kind else list(Kind)):
        if i:
            typer.echo()
        header, rows = makers[each]()
        typer.echo(each.value)
        typer.echo(aligned([header, *rows], indent="  "))


Table = tuple[list[str], list[list[str]]]


def _methods() -> Table:
    from bench import registry

    rows = []
    for name, entry in registry.entries("method").items():
        facts = entry.facts
        rows.append(
            [
                name,
                str(facts.get("family", "UDA")),
                ", ".join(facts.get("tasks", ("classification",))),
                ", ".join(facts.get("needs", ())) or "-",
                str(facts.get("provenance", "chosen-here")),
                entry.summary,
            ]
        )
    return ["name", "family", "tasks", "needs", "provenance", "summary"], rows


def _plain(kind: str) -> Table:
    from bench import registry

    rows = [[name, entry.summary] for name, entry in registry.entries(kind).items()]
    return ["name", "summary"], rows


def _devices() -> Table:
    from bench.costs.device_profile import device_names, load_device

    profiles = [load_device(name) for name in device_names()]
    return ["name", "costs", "title"], [[p.name, p.cost, p.title] for p in profiles]


def _suites() -> Table:
    from bench.study.suite import load_suite, suite_files

    suites = [load_suite(name)[0] for name in suite_files()]
    return ["name", "description"], [[s.name, s.description] for s in suites]
