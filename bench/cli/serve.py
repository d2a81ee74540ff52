"""``bench serve``: the report of a store as a page that follows it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from bench.cli.options import StoreRoot
from bench.study.selection import DEFAULT_STORE


def command(
    store: StoreRoot = DEFAULT_STORE,
    port: Annotated[int, Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 8765,
) -> None:
    """Serve the report and what runs to browsers of this machine, renewed as records come.

    Nothing is written, and no other machine is answered. Ctrl-C ends it, with exit code 130.
    """
    from bench.live.pages import Pages
    from bench.live.progress import stoppable
    from bench.live.server import Server
    from bench.live.state import StoreView

    view = StoreView(store)
    try:
        server = Server(Pages(view), port)
        with stoppable(server, lambda: "the page is gone"):
            typer.echo(server.url)
            server.serve()
    finally:
        view.close()
