"""What a method is prepared with: the model of its cell, and the source data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.accelerator.determinism import as_in_a_run, seed_everything
from bench.io.digest import digest
from bench.records.cell import Cell
from bench.run.source_model import source_model
from bench.study.build import build, config_of

if TYPE_CHECKING:
    from bench.contracts.data import DomainView
    from bench.contracts.method import Method
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import Domain, ShiftedSource, Stream


def deployed(
    cell: Cell,
    method: Method,
    stream: Stream,
    accept: Callable[[FoundationModel], None] | None = None,
) -> tuple[FoundationModel, DomainView, str]:
    """The model that a method gets, the labelled source, and the source model's digest.

    The model is the cell's variant, unless the method makes a small one itself. ``accept`` is
    called with the source model, and raises BenchError if the run cannot go on with it.
    """
    import torch

    from bench.accelerator.determinism import device_of
    from bench.contracts.data import DomainView, placed
    from bench.contracts.model import weights_digest
    from bench.contracts.protocol import protocol_config

    model = source_model(cell, stream)
    if accept is not None:
        accept(model)
    digest = weights_digest(model.module)
    split, place = stream.source().adaptation, device_of(cell.accelerator)
    generator = torch.Generator().manual_seed(cell.seed)
    batch_size = protocol_config(cell.protocol).batch_size
    source = DomainView(
        "source",
        placed(split.x, place),
        split.y,
        batch_size,
        generator,
        least_batch=model.least_batch,
        draw=cell.source_draw,
    )
    if method.uses_shifted_source():
        method.shifted_source = shifted_source(
            registry.load("stream", cell.stream.name),
            config_of("stream", cell.stream),
            [cell.stream.content(), cell.data],
        )
    if cell.variant is not None and not method.makes_own_model:
        model = build("variant", cell.variant).make(model, source)
    return model, source, digest


def shifted_source(stream: type[Stream], config: Any, made_from: Sequence[object]) -> ShiftedSource:
    """The domains of a stream's validation stream, the same for all seeds.

    ``made_from``: JSON values that say which code and data they are of. Raises BenchError if the
    stream has no validation stream.
    """
    from bench.contracts.stream import ShiftedSource

    validation = stream.validation(config)

    def make() -> list[Domain]:
        made = stream(validation, 0)
        return [made.domain(name) for name in made.domain_names()]

    return ShiftedSource(digest([*made_from, validation.model_dump(mode="json")]), make)


def make_ahead(cell: Cell) -> None:
    """Make and cache what the cell's runs share: its variant, and the method's offline stage."""
    with as_in_a_run(cell.accelerator):
        method = build("method", cell.method)
        stream = build("stream", cell.stream, cell.seed)
        model, source, _ = deployed(cell, method, stream)
        if method.offline_settings(method.config) is not None:
            seed_everything(cell.seed)
            method.prepare(model, source)
