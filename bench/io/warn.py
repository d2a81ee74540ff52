"""Warnings on the terminal."""

from __future__ import annotations

import typer


def warn(text: str) -> None:
    """One line on standard error."""
    typer.echo(f"bench: warning: {text}", err=True)
