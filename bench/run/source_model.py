"""Source models: trained once per content, cached on disk, shared by all runs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.accelerator.determinism import device_of
from bench.errors import BenchError
from bench.io.digest import digest
from bench.io.progress import advance
from bench.io.weights_cache import (
    Weights,
    cache_folder,
    cached,
    keep,
    made_on,
    not_finite,
    read_cached,
)
from bench.records.cell import Cell

if TYPE_CHECKING:
    import torch

    from bench.contracts.model import FoundationModel, SourceTraining
    from bench.contracts.stream import Stream

THREADS = 2
SAVING_SHARE = 0.05
"""Most of the training time that saving its state may take."""


def source_path(cell: Cell, stream: Stream) -> Path:
    """Where the weights of a cell's source model are, or will be, named by all that shapes them."""
    recipe = [cell.model.content(), cell.stream.code, cell.data, stream.source_settings()]
    key = digest([*recipe, cell.core, cell.source_draw])
    return made_on(cell.accelerator, cache_folder() / "source-models" / f"{key[:20]}.pt")


def source_model(cell: Cell, stream: Stream) -> FoundationModel:
    """The cell's trained model, cached on first use; its epochs are told by `advance`.

    The cell's ``source_draw`` is the seed of all that its making draws: fresh weights, the order of
    the samples, augmentation, dropout. One draw serves all seeds, methods and devices.
    Training that was stopped goes on from the last epoch that it saved, to the same weights.
    BenchError if it diverges: weights that are not finite are not kept.
    """
    import torch

    from bench import registry
    from bench.study.build import config_of, source_training

    config = config_of("model", cell.model)
    model_class = registry.load("model", cell.model.name)
    recipe = source_training(cell.model.name, cell.model.training)
    path = source_path(cell, stream)
    half_way = path.with_suffix(".checkpoint")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.source_draw)
        model: FoundationModel = model_class.build_for(config, stream)
        place = device_of(cell.accelerator)
        training = _Training(cell, model, stream, recipe, half_way, place)
        weights = cached(path, training.run)
    if half_way.exists():
        half_way.unlink(missing_ok=True)
    try:
        model.module.load_state_dict(weights)
    except RuntimeError as error:
        raise BenchError(
            f"source model {path} does not fit the model; delete it: {error}"
        ) from error
    model.module.to(place)
    model.train(False)
    return model


class _Training:
    """The training of a source model, whose state is saved after epochs.

    ``checkpoint``: the file of the state; ``place``: where it happens.
    """

    def __init__(
        self,
        cell: Cell,
        model: FoundationModel,
        stream: Stream,
        recipe: SourceTraining,
        checkpoint: Path,
        place: torch.device,
    ) -> None:
        self.name, self.draw = cell.model.name, cell.source_draw
        self.model, self.stream = model, stream
        self.recipe, self.checkpoint, self.place = recipe, checkpoint, place
        self._saved_at, self._saving_s = -math.inf, 0.0

    def _begin(self) -> None:
        """The order of the source's samples, the optimizer and its schedule, at their start."""
        import torch

        from bench.contracts.data import DomainView, placed

        model, recipe = self.model, self.recipe
        model.module.to(self.place)
        split = self.stream.source().adaptation
        generator = torch.Generator().manual_seed(self.draw)
        x = placed(split.x, self.place)
        self.view = DomainView("source", x, split.y, recipe.batch_size, generator)
        self.steps_per_epoch = max(len(self.view) // recipe.batch_size, 1)
        rate, total = recipe.learning_rate, recipe.epochs * self.steps_per_epoch
        self.optimizer = torch.optim.AdamW(
            model.module.parameters(), rate, weight_decay=recipe.weight_decay
        )
        # A warm-up of one step has length 0 in torch, which divides by it: begin at the full rate.
        warmup = recipe.warmup * (1 - 1e-9) if recipe.warmup * total == 1 else recipe.warmup
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=total, pct_start=warmup
        )

    def run(self) -> Weights:
        """Train to the end; the weights."""
        import torch

        epochs = self.recipe.epochs
        if epochs == 0:
            return self.model.module.state_dict()
        self._begin()
        threads = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        self.model.train(True)
        try:
            first = self._resume()
            # A pass of the view is an epoch, so that it begins anew where an epoch does.
            batches = self.view.infinite()
            for epoch in range(first, epochs):
                for _ in range(self.steps_per_epoch):
                    self._step(next(batches))
                self._require_finite(epoch + 1)
                if epoch + 1 < epochs:
                    self._save(epoch + 1)
                advance(epoch + 1, epochs)
        finally:
            self.optimizer.zero_grad()  # gradients would count as the deployed model's memory
            torch.set_num_threads(threads)
            self.model.train(False)
        return self.model.module.state_dict()

    def _step(self, batch: Any) -> None:
        import torch

        model, recipe = self.model, self.recipe
        outputs = model(model.augment(batch.x))
        loss = model.loss(outputs, batch.y, label_smoothing=recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.schedule.step()

    def _require_finite(self, epochs: int) -> None:
        if bad := not_finite(self.model.module.state_dict()):
            self.checkpoint.unlink(missing_ok=True)
            raise BenchError(
                f"source model {self.name}: {bad} after {epochs} of {self.recipe.epochs} epochs: "
                f"its training diverged; lower learning_rate ({self.recipe.learning_rate:g}) in "
                "its source_training, or under training in the suite. Nothing is cached"
            )

    def _save(self, epochs: int) -> None:
        """Save the state after ``epochs``, unless saving would take too much of the time."""
        import torch

        began = time.monotonic()
        if (began - self._saved_at) * SAVING_SHARE < self._saving_s:
            return
        state = {
            "epochs": epochs,
            "model": self.model.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.view.rng_state,
            "draws": torch.random.get_rng_state(),
        }
        if self.place.type == "cuda":  # dropout draws there
            state["cuda_draws"] = torch.cuda.get_rng_state()
        keep(self.checkpoint, state)
        self._saved_at = time.monotonic()
        self._saving_s = self._saved_at - began

    def _resume(self) -> int:
        """Put back a saved state, if there is one; the number of epochs that it has done."""
        import torch

        state = read_cached(self.checkpoint)
        if state is None:
            return 0
        try:
            self.model.module.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.view.rng_state = state["order"]
            torch.random.set_rng_state(state["draws"])
            if self.place.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_draws"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise BenchError(
                f"source model {self.name}: its saved state {self.checkpoint} does not fit; "
                f"delete it: {error}"
            ) from error
        print(f"goes on after epoch {state['epochs']}", flush=True)
        return int(state["epochs"])
