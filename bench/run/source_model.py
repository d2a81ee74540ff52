"""Source models: trained once per content, cached on disk, shared by all runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.io.digest import digest
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.records.cell import Cell

if TYPE_CHECKING:
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import Stream

THREADS = 2
SEED = 0


def source_path(cell: Cell, stream: Stream) -> Path:
    """Where the weights of a cell's source model are, or will be, named by all that shapes them."""
    recipe = [cell.model.content(), cell.stream.code, cell.data, stream.source_settings()]
    key = digest([*recipe, cell.core, SEED])
    return cache_folder() / "source-models" / f"{key[:20]}.pt"


def source_model(
    cell: Cell, stream: Stream, progress: Callable[[int, int], None] | None = None
) -> FoundationModel:
    """The cell's trained model, cached on first use; ``progress``: (epochs done, epochs in all)."""
    import torch

    from bench import registry
    from bench.contracts.build import config_of

    config = config_of("model", cell.model)
    model_class = registry.load("model", cell.model.name)
    path = source_path(cell, stream)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model: FoundationModel = model_class.build(config, stream.input_shape, stream.classes)
        weights = cached(path, lambda: _train(model, stream, progress))
    try:
        model.module.load_state_dict(weights)
    except RuntimeError as error:
        raise BenchError(
            f"source model {path} does not fit the model; delete it: {error}"
        ) from error
    model.train(False)
    return model


def _train(
    model: FoundationModel, stream: Stream, progress: Callable[[int, int], None] | None
) -> Weights:
    import torch

    from bench.contracts.data import DomainView

    recipe = model.source_training
    split = stream.source().adaptation
    generator = torch.Generator().manual_seed(SEED)
    view = DomainView("source", split.x, split.y, recipe.batch_size, generator)
    steps_per_epoch = max(len(view) // recipe.batch_size, 1)
    rate, steps = recipe.learning_rate, recipe.epochs * steps_per_epoch
    parameters = model.module.parameters()
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=recipe.warmup
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    model.train(True)
    batches = view.infinite()
    try:
        for epoch in range(recipe.epochs):
            for _ in range(steps_per_epoch):
                batch = next(batches)
                outputs = model(model.augment(batch.x))
                loss = model.loss(outputs, batch.y, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.module.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
            if progress is not None:
                progress(epoch + 1, recipe.epochs)
    finally:
        optimizer.zero_grad()  # gradients would count as the deployed model's memory
        torch.set_num_threads(threads)
        model.train(False)
    return model.module.state_dict()
