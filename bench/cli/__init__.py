"""The command line: one file a command, every heavy import inside it."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import typer
import typer.core
from typer import Option

from bench.cli import cache, data, device, store
from bench.cluster import commands
from bench.errors import BenchError
from bench.io.quick_exit import run_and_exit

COMMANDS = (
    "list_", "plan", "run", "status", "watch", "serve", "tune", "report", "compare", "leaderboard",
    "fit", "schedule", "check", "new_method", "new_data", "docs", "doctor",
)  # fmt: skip
"""Modules of the commands, in the order of ``bench --help``."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of writing to what is full or broken; those of a store are caught where it is written."""


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


class _Commands(typer.core.TyperGroup):
    """All commands; a value that an option does not take is one line, as all bad input is."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            raise BenchError(error.format_message()) from error


app = typer.Typer(
    name="bench",
    cls=_Commands,
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
app.add_typer(commands.app, name="board")
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(store.app, name="store")


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
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can be said that it cannot be written
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop(sys.stdout)
        with contextlib.suppress(OSError):  # it may be full as well
            print(f"bench: output cannot be written: {error.strerror}", file=sys.stderr)
        _drop(sys.stderr)
        sys.exit(1)


def program() -> None:
    """The command ``bench``: `main` in a process of its own, which ends with it."""
    run_and_exit(main)


def _drop(stream: TextIO) -> None:
    """Let what waits to be written go nowhere if it cannot be written."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
