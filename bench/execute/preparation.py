"""What runs share is made before those that need it, and cached: it is no run's own time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import registry
from bench.contracts.protocol import protocol_config
from bench.errors import BenchError
from bench.io.digest import digest
from bench.io.run_output import new_lines
from bench.io.weights_cache import read_cached
from bench.records.cell import Cell, variant_title
from bench.run.source_model import source_path
from bench.study.applicability import unsupported
from bench.study.build import build, config_of


@dataclass(frozen=True)
class Preparation:
    """One thing that runs share, and that is made once.

    Attributes
    ----------
    kind : a ``source`` model, or what is made of it ``ahead``: a variant, a method's offline stage
    name : 20 hexadecimal characters, by the content
    title : for people
    cell : one of those that need it
    source : name of the source model that it is made of, for what is made ``ahead``
    """

    kind: Literal["source", "ahead"]
    name: str
    title: str
    cell: Cell
    source: str = ""

    @property
    def path(self) -> Path:
        """Where the source model is, or will be."""
        return source_path(self.cell, build("stream", self.cell.stream, self.cell.seed))


class PreparationListener:
    """Receives the events of preparations, in its process; override those of interest."""

    def preparation_begins(self, preparation: Preparation) -> None:
        """It is worked on."""

    def preparation_advances(self, preparation: Preparation, done: int, total: int) -> None:
        """``done`` of ``total`` epochs or steps; (0, 0): it was not cached and is made now."""

    def preparation_ends(self, preparation: Preparation, error: str) -> None:
        """It is made and cached, or was so before, or failed for the reason ``error``."""

    def preparation_does_not_apply(self, preparation: Preparation, reason: str) -> None:
        """It ends so where the model, method or data are not such that it can be made."""


def source_models(cells: Sequence[Cell]) -> list[Preparation]:
    """The source models of cells that are not cached, or damaged."""
    wanted: dict[Path, Cell] = {}
    for cell in cells:
        path = source_path(cell, build("stream", cell.stream, cell.seed))
        wanted.setdefault(path, cell)
    return [
        Preparation("source", path.stem, _source_title(cell), cell)
        for path, cell in wanted.items()
        if read_cached(path) is None
    ]


def made_ahead(cells: Sequence[Cell]) -> list[Preparation]:
    """The variants and offline stages that cells need, whether or not they are cached.

    What is only used by cells that cannot run is left out.
    """
    found: dict[str, Preparation] = {}
    for cell in cells:
        for title, content in _parts(cell):
            source = source_path(cell, build("stream", cell.stream, cell.seed)).stem
            batch_size = protocol_config(cell.protocol).batch_size
            name = digest([source, batch_size, *content])[:20]
            if name not in found and unsupported(cell) is None:
                found[name] = Preparation("ahead", name, title, cell, source)
    return list(found.values())


def needed(cell: Cell) -> set[str]:
    """Names of what is made before a cell can run, whether or not it is cached."""
    source = source_path(cell, build("stream", cell.stream, cell.seed)).stem
    return {source, *(each.name for each in made_ahead([cell]))}


def in_stages(preparations: Sequence[Preparation]) -> list[list[Preparation]]:
    """The source models, and what is made of them, each where there is some."""
    stages = [[each for each in preparations if each.kind == kind] for kind in ("source", "ahead")]
    return [stage for stage in stages if stage]


def _parts(cell: Cell) -> Iterator[tuple[str, list[object]]]:
    """Title and content of what a cell needs ahead; the offline stage brings its variant along."""
    method = registry.load("method", cell.method.name)
    variant = None if cell.variant is None or method.makes_own_model else cell.variant
    model = cell.model.name
    if variant is not None:
        yield f"making {variant_title(variant)} of {model}{cell.draw_title}", [variant.content()]
    try:
        settings = method.offline_settings(config_of("method", cell.method))
    except Exception as error:
        raise BenchError(
            f"method {cell.method.name}: offline_settings failed: {type(error).__name__}: {error}"
        ) from error
    if settings is not None:
        stage = method.offline_settings
        made = [f"{stage.__module__}.{stage.__qualname__}", dict(settings)]
        on = None if variant is None else variant.content()
        yield f"offline stage of {cell.method.name} for {model}{cell.draw_title}", [*made, on]


def _source_title(cell: Cell) -> str:
    return f"training {cell.model.name} on the source of {cell.stream.name}{cell.draw_title}"


def tell_advance(
    preparation: Preparation, log: Path, position: int, listener: PreparationListener
) -> tuple[int, str]:
    """Tell how far work has come by what its log says from ``position`` on.

    The new position, and why it does not apply where the log says so.
    """
    lines, position = new_lines(log, position)
    unsupported = ""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            said = json.loads(line)
            if "unsupported" in said:
                unsupported = str(said["unsupported"])
                continue
            listener.preparation_advances(preparation, int(said["done"]), int(said["total"]))
    return position, unsupported
