"""``bench leaderboard``: check submissions, and make a static site of those that are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


def command(
    folder: Annotated[Path, Argument(help="Folder of stores, NAME or NAME.zip, and NAME.yaml.")],
    out: Annotated[Path, Option(help="Folder of the site.")] = Path("leaderboard"),
    check: Annotated[bool, Option("--check", help="Only check; write nothing.")] = False,
) -> None:
    """Make a static site from a folder of submitted stores, each checked first.

    Checked are schema, digests, plausible numbers and honest labels. Exit code: 0 all are accepted,
    1 some are rejected (the site has the others), 2 bad input.
    """
    from bench.leaderboard.submissions import read_submissions

    found = read_submissions(folder)
    for each in found:
        told = f"{len(each.results)} of {len(each.records)} runs with results"
        typer.echo(f"{each.name}: {'accepted' if each.accepted else 'rejected'}; {told}")
        for line in [*each.problems, *each.remarks]:
            typer.echo(f"  {line}")
    if not check:
        from bench.leaderboard.site import write_site

        typer.echo(write_site(found, out)[0])
    raise typer.Exit(not all(each.accepted for each in found))
