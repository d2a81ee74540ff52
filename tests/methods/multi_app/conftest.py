"""Three applications on a transformer so small that its offline stage takes a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.stream import ShiftedSource
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.methods.multi_app.method import MultiApp
from bench.models.digits_vit import DigitsAppsViT, DigitsViTConfig
from bench.run.window import Window

SIZE, CLASSES, BATCH = 8, 3, 8
QUICK = {
    "lora_steps": 2, "kb_steps": 3, "index_steps": 3, "checkpoints": 1, "max_residual": None,
    "levels": 2, "epochs": 3, "learning_rate": 1e-3, "estimate": "confidence",
}  # fmt: skip


def images(y: Tensor, seed: int) -> Tensor:
    """Images that show their class: a bright row each."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.2 * torch.rand(len(y), 1, SIZE, SIZE, generator=generator)
    x[torch.arange(len(y)), 0, y] += 0.7
    return x


def samples(n: int, apps: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """``n`` samples of each application, in turns, and their labels."""
    app = torch.arange(n * apps) % apps
    y = torch.randint(0, CLASSES, (n * apps,), generator=torch.Generator().manual_seed(seed))
    return {"app": app, "image": images(y, seed)}, y


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def prepared(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MultiApp]:
    """A registered method, prepared; ``apps``: how many applications its source has.

    ``shifted``: the domains of its validation stream.
    """
    monkeypatch.setenv("BENCH_CACHE", str(cache))

    def make(
        name: str = "apps-edgeta",
        apps: int = 3,
        shifted: ShiftedSource | None = None,
        **settings: Any,
    ) -> MultiApp:
        torch.manual_seed(0)
        model = DigitsAppsViT.build(
            DigitsViTConfig(width=16, depth=1, patch=4, heads=4), (1, SIZE, SIZE), CLASSES
        )
        x, y = samples(24 // apps, apps, seed=0)
        source = DomainView("source", x, y, BATCH, torch.Generator().manual_seed(0))
        method_class = registry.load("method", name)
        method: MultiApp = method_class(method_class.Config(**{**QUICK, **settings}))
        if shifted is not None:
            method.shifted_source = shifted
        method.prepare(model, source)
        return method

    return make


@pytest.fixture
def domain() -> Callable[..., DomainView]:
    """An unlabelled domain of ``n`` samples of each application."""

    def make(number: int = 0, n: int = 16, apps: int = 3) -> DomainView:
        x, _ = samples(n, apps, seed=10 + number)
        generator = torch.Generator().manual_seed(number)
        return DomainView(f"window-{number + 1}", x, None, BATCH, generator)

    return make


@pytest.fixture
def open_window() -> Callable[..., Window]:
    """A window on one device for each method; the tracker stays from window to window."""
    meters: dict[int, CostTracker] = {}

    def make(method: MultiApp, seconds: float) -> Window:
        tracker = meters.setdefault(
            id(method), make_tracker([load_device("xavier-nx")], method.stored)
        )
        return Window(tracker, seconds, None, lambda: method.model.module)

    return make
