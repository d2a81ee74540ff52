"""A small vision transformer and a small BERT, data for them, and offline settings of few steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.contracts.data import DomainView, Inputs
from bench.contracts.model import FoundationModel
from bench.models.bert import Bert, BertConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig

CLASSES = 4
SETTINGS: dict[str, Any] = {
    "ratio": 2, "lora_rank": 2, "lora_steps": 3, "lora_learning_rate": 0.01, "kb_steps": 4,
    "index_steps": 4, "index_neurons": 4, "gate_reduction": 4, "checkpoints": 2,
    "max_residual": None, "learning_rate": 0.01, "epochs": 1, "iterations": None,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: Any) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder))
        yield
    shutil.rmtree(folder)  # models of full size are large, and pytest would keep it


@pytest.fixture
def settings() -> dict[str, Any]:
    return dict(SETTINGS)


def _vit() -> FoundationModel:
    config = DigitsViTConfig(patch=8, width=16, depth=2, heads=2)
    return DigitsViT.build(config, (1, 16, 16), CLASSES)


def _bert() -> FoundationModel:
    config = BertConfig(
        hidden_size=16, layers=2, heads=2, intermediate_size=32, vocabulary=40, positions=12
    )
    return Bert.build(config, (9,), CLASSES)


def _model(kind: str) -> FoundationModel:
    torch.manual_seed(0)
    model = {"vit": _vit, "bert": _bert}[kind]()
    with torch.no_grad():
        for layer in model.module.modules():
            if isinstance(layer, nn.Linear):  # fresh biases are zero and would hide mistakes
                layer.weight.normal_(std=layer.in_features**-0.5)
                layer.bias.normal_(std=0.3)
    model.train(False)
    return model


def _inputs(kind: str, n: int, generator: torch.Generator) -> Inputs:
    if kind == "vit":
        return torch.rand(n, 1, 16, 16, generator=generator)
    ids = torch.randint(40, (n, 9), generator=generator)
    lengths = torch.randint(3, 10, (n, 1), generator=generator)
    return {"input_ids": ids, "attention_mask": (torch.arange(9) < lengths).long()}


def _domain(
    kind: str, n: int, seed: int, labelled: bool = False, batch_size: int = 8,
    dtype: torch.dtype = torch.float32, draw: int = 0,
) -> DomainView:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    x = _inputs(kind, n, generator)
    y = torch.randint(CLASSES, (n,), generator=generator)
    x = x.to(dtype) if isinstance(x, Tensor) else x
    return DomainView("d", x, y if labelled else None, batch_size, generator, draw=draw)


@pytest.fixture(params=["vit", "bert"])
def kind(request: Any) -> str:
    """Fused query, key and value, or separate ones."""
    return request.param


@pytest.fixture
def build() -> Callable[[str], FoundationModel]:
    """A model by kind, in evaluation mode, all its weights and biases of notable size."""
    return _model


@pytest.fixture
def domain() -> Callable[..., DomainView]:
    """Random samples for a kind of model."""
    return _domain


@pytest.fixture
def source() -> Callable[..., DomainView]:
    """The labelled source for a kind of model: 60 samples."""

    def make(kind: str, n: int = 60, **more: Any) -> DomainView:
        return _domain(kind, n, seed=9, labelled=True, **more)

    return make
