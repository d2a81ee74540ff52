"""``bench board``: boards that runs can happen on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.io.text_table import aligned

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, Argument(help="Of the board.")]


@app.callback()
def _default() -> None:
    """Boards for 'bench run --on NAME', by OpenSSH."""


@app.command("add")
def add(
    name: Name,
    target: Annotated[str, Argument(help="As user@host, or a host of ssh's configuration file.")],
    python: Annotated[str, Option(help="Python there, with the project's libraries.")] = "python3",
    folder: Annotated[
        str, Option(help="For code, weights and jobs there; relative to the home folder.")
    ] = ".bench-board",
    ssh_config: Annotated[
        Path | None, Option(help="Configuration file for ssh instead of your own.")
    ] = None,
) -> None:
    """Remember a board; nothing is done there yet."""
    from bench.cluster.boards import Board, add_board

    config = None if ssh_config is None else str(ssh_config.resolve())
    add_board(Board(name=name, target=target, python=python, folder=folder, ssh_config=config))
    typer.echo(f"added {name}; next: bench board check {name}")


@app.command("list")
def list_() -> None:
    """List the boards."""
    from bench.cluster.boards import boards, boards_file

    known = boards()
    if not known:
        typer.echo("no board is known; add one by 'bench board add NAME USER@HOST'")
        return
    rows = [[board.name, board.target, board.python, board.folder] for board in known]
    typer.echo(aligned([["name", "host", "python", "folder"], *rows]))
    typer.echo(f"in {boards_file()}")


@app.command("check")
def check(name: Name) -> None:
    """Log in, bring the code along, and import it there."""
    from bench.cluster.boards import find_board
    from bench.cluster.connection import Connection
    from bench.cluster.prepare_board import ready

    facts = ready(Connection(find_board(name))).facts
    version = ".".join(map(str, facts["python"]))
    typer.echo(
        f"{name}: Python {version} ({facts['executable']}), torch {facts['torch']}, CUDA "
        f"{'yes' if facts['cuda'] else 'no'}, {facts['cores']} cores {facts['machine']}, "
        f"{facts['memory'] / 1e9:.1f} GB memory, {facts['free'] / 1e9:.1f} GB free in "
        f"{facts['folder']}\nnext: bench run --on {name}"
    )


@app.command("remove")
def remove(name: Name) -> None:
    """Forget a board; its folder there stays."""
    from bench.cluster.boards import remove_board

    gone = remove_board(name)
    typer.echo(f"removed {name}; what lies there: ssh {gone.target} rm -r {gone.folder}")
