"""The command line: one file a command, every heavy import inside it."""

from __future__ import annotations

import functools
import importlib
import io
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer import Option

from bench.cli import device
from bench.errors import BenchError

COMMANDS = (
    "list_", "plan", "run", "status", "tune", "report", "fit", "schedule", "check", "new_method",
    "docs", "doctor",
)  # fmt: skip
"""Modules of the commands, in the order of ``bench --help``."""


def _never_silent(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which ``sys.exit`` of a plugin is an error: commands raise `typer.Exit`."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except SystemExit as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise BenchError(
                f"a component ends Python with exit {error.code!r} in {last.filename}, line "
                f"{last.lineno}: raise an exception there instead"
            ) from error

    return guarded


app = typer.Typer(
    name="bench",
    help="Reference benchmark for adapting foundation models on edge devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for _name in COMMANDS:
    _module = importlib.import_module(f"bench.cli.{_name}")
    app.command(_name.rstrip("_").replace("_", "-"))(_never_silent(_module.command))
app.add_typer(device.app, name="device")


def _version(value: bool) -> None:
    if value:
        from bench import __version__

        typer.echo(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 all well; 1 something failed; 2 bad input; 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 loses a sign, no run
            stream.reconfigure(errors="replace")
    try:
        app()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
