"""The command line: one file a command, every heavy import inside it."""

from __future__ import annotations

import io
import sys

import typer

from bench.cli import (
    check,
    device,
    docs,
    doctor,
    fit,
    list_,
    new_method,
    plan,
    report,
    run,
    schedule,
    status,
    tune,
)
from bench.errors import BenchError

app = typer.Typer(
    name="bench",
    help="Reference benchmark for adapting foundation models on edge devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("list")(list_.command)
app.command("plan")(plan.command)
app.command("run")(run.command)
app.command("status")(status.command)
app.command("tune")(tune.command)
app.command("report")(report.command)
app.command("fit")(fit.command)
app.command("schedule")(schedule.command)
app.command("check")(check.command)
app.command("new-method")(new_method.command)
app.command("docs")(docs.command)
app.add_typer(device.app, name="device")
app.command("doctor")(doctor.command)


def _version(value: bool) -> None:
    if value:
        from bench import __version__

        typer.echo(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
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
