"""Drive strategies of the Avalanche library from a window: data, charging, stopping."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from bench.batch import DomainView, take
from bench.window import Window


class _Samples(TensorDataset):
    """Tensors with the ``targets`` attribute that Avalanche asks for."""

    def __init__(self, view: DomainView) -> None:
        super().__init__(view.x, view.y)
        self.targets = view.y.tolist()


def experience(view: DomainView) -> DatasetExperience:
    """A labelled domain as one Avalanche experience with task label 0.

    ``benchmark_from_datasets`` keeps the targets; ``ni_benchmark`` would relabel them.
    """
    data = _make_taskaware_classification_dataset(_Samples(view), task_labels=0)
    benchmark = benchmark_from_datasets(train=[data], test=[data])
    return with_task_labels(with_classes_timeline(benchmark)).train_stream[0]


class SlicedDomain(Dataset):
    """A labelled domain whose loader slices whole batches out of the view's tensors.

    Avalanche's own loaders fetch sample by sample, thousands of tiny operators that the other
    methods do not have and that a device would be charged for inside a section.
    """

    def __init__(self, view: DomainView) -> None:
        self._x, self._y = view.x, view.y

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, index: int) -> int:
        return index

    def collate_fn(self, indices: list[int]) -> tuple[Any, Tensor, Tensor]:
        """Inputs, labels and task labels (all 0) of one batch."""
        chosen = torch.tensor(indices)
        return take(self._x, chosen), self._y[chosen], torch.zeros(len(chosen), dtype=torch.int64)


def silent() -> EvaluationPlugin:
    """An evaluator that measures and prints nothing: the protocol evaluates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it will log nothing
        return EvaluationPlugin(loggers=[])


class WindowPlugin(SupervisedPlugin):
    """Charges each training iteration of a strategy to a window and stops it when that closes.

    It must stand first among the plugins: what the others do after the experience
    (importances, buffers) is then charged as a section named "consolidation".
    """

    def __init__(self) -> None:
        super().__init__()
        self.window: Window | None = None
        self.domain: DomainView | None = None
        self.sections = ExitStack()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the domain's own batches in the place of the loader."""
        assert self.window is not None
        assert self.domain is not None
        strategy.dataloader = _ChargedLoader(strategy, self.domain, self.window)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Log the loss."""
        assert self.window is not None
        self.window.log(loss=strategy.loss.detach())

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Open the section that ``train_within`` closes."""
        assert self.window is not None
        self.sections.enter_context(self.window.section("consolidation"))


class _ChargedLoader:
    """One pass over the domain, in the view's order, so that seeds are paired across methods."""

    def __init__(self, strategy: Any, domain: DomainView, window: Window) -> None:
        self._strategy, self._domain, self._window = strategy, domain, window

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._domain.batches():
            if not self._window.begin_step(batch.x):
                self._strategy.stop_training()
                return
            yield [batch.x, batch.y, torch.zeros(len(batch), dtype=torch.int64)]
            self._window.end_step()


def train_within(strategy: Any, plugin: WindowPlugin, domain: DomainView, window: Window) -> None:
    """Train ``strategy`` on a domain until it is done or the window closes."""
    plugin.window, plugin.domain = window, domain
    strategy._stop_training = False
    with plugin.sections, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Avalanche warns of torch's own deprecations
        strategy.train(experience(domain), eval_streams=[])
    plugin.window = plugin.domain = None
