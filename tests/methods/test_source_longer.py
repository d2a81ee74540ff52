"""The source model trained on for longer: against a plain loop, cached, one for each draw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel, weights_digest
from bench.methods.source_longer import SourceLonger, SourceLongerConfig
from bench.testing import TinyModel

STEPS = 10


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path / "source-longer"


def model() -> FoundationModel:
    torch.manual_seed(0)
    return TinyModel.build(TinyModel.Config(), (6,), 3)


def source(draw: int = 0, seed: int = 5) -> DomainView:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator)
    y = torch.randint(3, (40,), generator=generator)
    return DomainView("source", x, y, 8, torch.Generator().manual_seed(seed), draw=draw)


def prepared(view: DomainView, **settings: float) -> SourceLonger:
    method = SourceLonger(SourceLongerConfig(**{"steps": STEPS, **settings}))
    method.prepare(model(), view)
    return method


@pytest.mark.parametrize("draw", [0, 3])
def test_it_is_trained_by_adamw_with_a_rate_that_rises_for_a_tenth_and_falls(draw: int) -> None:
    plain = model()
    parameters = list(plain.module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.01)
    x, y = source().x, source().y
    order = torch.Generator().manual_seed(draw)
    batches: list[torch.Tensor] = []
    while len(batches) < STEPS:
        batches += torch.randperm(40, generator=order).split(8)
    for step, chosen in enumerate(batches[:STEPS]):
        share = 1.0 if step == 0 else (STEPS - step) / (STEPS - 1)
        optimizer.param_groups[0]["lr"] = 1e-3 * share
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain.module(x[chosen]), y[chosen]).backward()
        optimizer.step()
    made = prepared(source(draw)).model.module.state_dict()
    for name, tensor in plain.module.state_dict().items():
        torch.testing.assert_close(made[name], tensor, rtol=0, atol=1e-6)


def test_it_is_made_once_for_a_draw_and_settings_and_leaves_generators_as_they_were(cache) -> None:
    digests = []
    for view in (source(), source(seed=6), source(draw=1)):
        torch.manual_seed(3)
        before = view.rng_state
        digests.append(weights_digest(prepared(view).model.module))
        assert torch.equal(view.rng_state, before)
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(3).get_state())
    assert digests[0] == digests[1] != digests[2]
    assert len(list(cache.glob("*.pt"))) == 2
    prepared(source(), steps=STEPS + 1)
    assert len(list(cache.glob("*.pt"))) == 3


def test_it_is_in_evaluation_mode_and_holds_no_gradients() -> None:
    made = prepared(source()).model.module
    assert not made.training
    assert all(p.grad is None for p in made.parameters())
