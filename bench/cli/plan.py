"""``bench plan``: what a run would do, what is done, and how long the rest takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench.cli.options import warn, warn_unreadable, with_selection
from bench.errors import BenchError
from bench.io.text_table import aligned
from bench.study.selection import Selection

if TYPE_CHECKING:
    from bench.records.cell import Cell
    from bench.study.suite import Suite


@with_selection
def command(
    selection: Selection,
    jobs: Annotated[int | None, Option(min=1, help="For the estimate. Default: the cores.")] = None,
) -> None:
    """Show what 'bench run' with the same options would do; nothing is run."""
    from bench.records.index import collector_paused

    with collector_paused():
        _show(selection, jobs)


def _show(selection: Selection, jobs: int | None) -> None:
    from bench.execute.base import available_cores

    suite, _ = selection.choose(lambda _: None)  # the plan warns
    if absent := selection.missing(suite):
        _tell_missing(suite, absent)
    plan, opened = selection.plan(warn=warn)
    workers = jobs or available_cores()
    several = len(plan.suite.all_models()) > 1

    def row(cell: Cell) -> str:
        return f"{cell.method.name} · {cell.model.name}" if several else cell.method.name

    done = Counter(row(r.cell) for r in plan.done.values())
    missing = Counter(row(c) for c in plan.missing)
    seeds_text = ", ".join(str(s) for s in plan.suite.seeds)
    typer.echo(f"suite {plan.suite.name}: {plan.suite.description}")
    draws = _draws(plan.suite.source_draws)
    shown = f"seeds {seeds_text}{draws}; store {opened.root}"
    typer.echo(f"devices {', '.join(plan.suite.devices)}; {shown}")
    settings = {row(c): c.settings_origin for c in plan.cells}
    rows = [[n, f"{done[n]} done, {missing[n]} to run, {o} settings"] for n, o in settings.items()]
    typer.echo(aligned(rows, indent="  "))
    trainings = len(plan.shared_runs())
    if further := plan.suite.further_references:
        names = ", ".join(each.name for each in further)
        typer.echo(f"not among them: {names}; they see labels too: name them, or --methods all")
    typer.echo(f"{len(plan.done)} of {len(plan.cells)} cells done, {len(plan.missing)} to run")
    if trainings < len(plan.missing):
        typer.echo(
            f"{trainings} training{'s' * (trainings > 1)} instead of {len(plan.missing)}: devices "
            "share one as long as their windows hold the same steps"
        )
    if note := plan.stale_note():
        typer.echo(note)
    history = list(opened.summaries()) if plan.missing else []
    if note := plan.window_note(history):
        typer.echo(note)
    if plan.missing:
        from bench.study.time_estimates import scaled_times

        found = plan.estimate(history, lambda: scaled_times(plan.path))
        typer.echo(found.text(workers))
    warn_unreadable(opened)


def _tell_missing(suite: Suite, absent: list[str]) -> None:
    """What is not there, and how much would be run; raises BenchError."""
    typer.echo("not there:\n" + "\n".join(f"  {line}" for line in absent))
    methods = len(list(suite.all_methods()))
    factors = {
        "methods": methods, "models": len(suite.all_models()), "variants": len(suite.variants),
        "seeds": len(suite.seeds), "devices": len(suite.devices),
    }  # fmt: skip
    told = ", ".join(f"{name} {count}" for name, count in factors.items())
    typer.echo(f"to run: {told}; 'bench fit --model NAME' prices a step of each method")
    raise BenchError(
        f"suite {suite.name}: {len(absent)} paths are not there; name the folder that they lie in "
        "with --data-root"
    )


def _draws(number: int) -> str:
    """What to tell of several draws of the source model."""
    if number == 1:
        return ""
    return f" on each of {number} source models, which are trained first (not in the time)"
