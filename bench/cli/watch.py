"""``bench watch``: the runs on a store, until nothing is left."""

from __future__ import annotations

import functools
from dataclasses import replace

import typer

from bench.cli import options
from bench.errors import BenchError
from bench.study.selection import Selection


@functools.partial(options.with_selection, suite="")
def command(selection: Selection) -> None:
    """Show what runs on a store, and every cell that ends, until nothing runs.

    With --suite and the options of the 'bench run' that is watched, also how much is left, until
    all of it is done. Nothing is written. Exit code: 0 every run ended in a result, 1 some failed,
    2 bad input, 130 stopped.
    """
    from bench.live.progress import stoppable
    from bench.live.state import StoreView
    from bench.live.watch import Watch

    given = replace(selection, data_root=None)  # which an environment variable may set for all
    if not selection.suite and given != Selection(suite="", store=selection.store):
        raise BenchError("options that choose cells: name the suite too, with --suite")
    view = StoreView(selection.store)
    try:
        plan = selection.plan(warn=options.warn)[0] if selection.suite else None
        watch = Watch(view, plan)
        with stoppable(watch, lambda: watch.said):
            all_well = watch.run()
        options.warn_unreadable(view.store)
    finally:
        view.close()
    raise typer.Exit(not all_well)
