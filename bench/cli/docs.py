"""``bench docs``: the page of all methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.estimate.step_costs import StepCost


def command(
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("docs/methods.md"),
) -> None:
    """Write the page of all methods: papers, equations, settings, and what their steps cost."""
    _require_folder(out)
    from bench import registry
    from bench.docgen.methods_page import page
    from bench.errors import Unsupported
    from bench.estimate.step_costs import embedded_costs
    from bench.io.atomic_write import write_atomically

    names = list(registry.entries("method"))
    costs: dict[str, Sequence[StepCost] | str] = {}
    for i, name in enumerate(names, start=1):
        typer.echo(f"[{i}/{len(names)}] {name}", err=True)
        try:
            costs[name] = embedded_costs(name)
        except Unsupported as why:
            costs[name] = str(why)
    write_atomically(out, page(costs).encode())
    typer.echo(out)


def _require_folder(out: Path) -> None:
    """Better now than after a minute of counting."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"--out {out}: {error.strerror}; name a file in another folder") from error
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise BenchError(f"--out {out}: cannot be written; name a file, as docs/methods.md")
