"""A small source model and its source, on which offloading methods are prepared in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench.accelerator.determinism import seed_everything
from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel
from bench.registry import load

SHORT: dict[str, dict[str, Any]] = {
    "agile-nn": {"epochs": 1, "reference_epochs": 1, "channels": 10},
    "deepcod": {"epochs": 1, "channels": 10},
    "early-exit": {"epochs": 1, "channels": 10, "confidence": 0.2},
    "all-local": {"epochs": 1, "channels": 10, "further": 1},
    "all-remote": {},
}


@pytest.fixture(scope="session")
def model() -> FoundationModel:
    """A fresh ``digits-resnet`` for images of 16 pixels."""
    torch.manual_seed(0)
    kind = load("model", "digits-resnet")
    made: FoundationModel = kind.build(kind.Config(width=4), (1, 16, 16), 10)
    made.train(False)
    return made


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Images of 16 pixels, each a bright spot at a place of its own."""
    torch.manual_seed(1)
    made = torch.rand(60, 1, 16, 16) * 0.3
    for i in range(60):
        made[i, 0, i % 10 : i % 10 + 6, (3 * i) % 10 : (3 * i) % 10 + 6] += 0.7
    return made


def _view(images: torch.Tensor, labelled: bool = True, name: str = "source") -> DomainView:
    """The images in batches of 16; the place of the spot is the class."""
    y = torch.arange(len(images)) % 10 if labelled else None
    return DomainView(name, images, y, 16, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def view() -> Callable[..., DomainView]:
    """See `_view`."""
    return _view


@pytest.fixture
def prepare(
    model: FoundationModel,
    images: torch.Tensor,
    tmp_path_factory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """A method by its name, prepared with short offline work and these settings."""
    cache = tmp_path_factory.getbasetemp() / "offloading-cache"
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    made: list[Any] = []

    def prepared(name: str, seed: int = 0, **settings: Any) -> Any:
        kind = load("method", name)
        method = kind(kind.Config(**{**SHORT[name], **settings}))
        seed_everything(seed)
        with torch.enable_grad():  # as outside of a test without gradients
            method.prepare(model.clone(), _view(images))
        made.append(method)
        return method

    yield prepared
    for method in made:
        if method.link is not None:
            method.link.stop()
