"""The static small model: its size, what distillation brings, and that it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
import torch
from torch import Tensor

from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel, source_digest, weights_digest
from bench.errors import BenchError
from bench.models.compressed import Compressed, CompressedConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.models.surgery.gates import insert_gates
from bench.models.surgery.linear import linear_at
from bench.models.surgery.neurons import pairs
from bench.models.surgery.proxy import make_proxy, most_important
from bench.models.surgery.pruning import cut, strongest

CLASSES, SAMPLES = 5, 40


def parameters(model: FoundationModel) -> int:
    return sum(p.numel() for p in model.module.parameters())


def digits_vit() -> FoundationModel:
    torch.manual_seed(0)
    return DigitsViT.build(DigitsViTConfig(), (1, 32, 32), 10)


def data() -> tuple[Tensor, Tensor]:
    """Coarse random images with random labels: a model must use its inner layers to know them."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(SAMPLES, 1, 4, 4, generator=generator)
    x = coarse.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    return x, torch.randint(CLASSES, (SAMPLES,), generator=generator)


def view(batch_size: int = 20, seed: int = 7, labelled: bool = True, draw: int = 0) -> DomainView:
    x, y = data()
    generator = torch.Generator().manual_seed(seed)
    return DomainView("source", x, y if labelled else None, batch_size, generator, draw=draw)


@torch.no_grad()
def accuracy(model: FoundationModel) -> float:
    x, y = data()
    return float((model(x).argmax(dim=1) == y).float().mean())


@pytest.fixture(scope="module")
def trained() -> FoundationModel:
    torch.manual_seed(0)
    config = DigitsViTConfig(patch=8, width=32, depth=2, heads=4)
    model: FoundationModel = DigitsViT.build(config, (1, 16, 16), CLASSES)
    x, y = data()
    optimizer = torch.optim.Adam(model.module.parameters(), lr=5e-3)
    # The rate falls to zero, so that rounding, which differs by processor, decides nothing.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=200)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    model.train(False)
    assert accuracy(model) > 0.95
    return model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compressed(model: FoundationModel, source: DomainView, **settings: object) -> FoundationModel:
    config = CompressedConfig.model_validate({"ratio": 4, "steps": 10, **settings})
    return Compressed(config).make(model, source)


def inner(width: int, ratio: int) -> int:
    """Weights and biases of one block of a vision transformer whose inner widths were divided."""
    norms, attention, forward = 4 * width, width // ratio, 4 * width // ratio
    qkv = (width + 1) * 3 * attention
    return norms + qkv + (attention + 1) * width + (width + 1) * forward + (forward + 1) * width


def test_its_size_is_that_of_a_proxy_and_what_the_formula_says() -> None:
    full = digits_vit()
    around = 64 * (64 + 1) + (1 + 17) * 64 + 2 * 64 + 65 * 10  # patches, tokens, norm, head
    assert parameters(full) == around + 4 * inner(64, 1) == 206_026

    small = full.clone()
    cut(small, strongest(small, 8))
    assert parameters(small) == around + 4 * inner(64, 8) == 32_426

    kb = full.clone()
    cut(kb, strongest(kb, 4))
    insert_gates(kb)
    found = {
        pair.inner: torch.rand(linear_at(kb, pair.inner).out_features) + 0.1 for pair in pairs(kb)
    }
    proxy, _ = make_proxy(kb, found, most_important(found, 0.8))
    assert parameters(proxy) == 30_910
    assert abs(parameters(small) / parameters(proxy) - 1) < 0.05


def test_the_default_ratio_has_that_size() -> None:
    torch.manual_seed(1)
    source = DomainView("s", torch.rand(4, 1, 32, 32), torch.arange(4), 4, torch.Generator())
    small = Compressed(CompressedConfig(steps=1)).make(digits_vit(), source)
    assert parameters(small) == 32_426
    assert small.module(source.x).shape == (4, 10)


def test_distillation_lifts_the_accuracy_of_the_cut_model(trained: FoundationModel) -> None:
    before = trained.clone()
    cut(before, strongest(before, 4))
    small = compressed(trained, view(), steps=150)
    assert parameters(small) == parameters(before) < parameters(trained)
    assert accuracy(before) < 0.75
    assert accuracy(small) > 0.9
    assert not small.module.training


def test_the_full_model_stays_as_it_is(trained: FoundationModel) -> None:
    model = trained.clone()
    model.freeze_except(model.head_parameters())
    digest = weights_digest(model.module)
    small = compressed(model, view())
    assert weights_digest(model.module) == digest
    assert not model.module.training
    assert [p.requires_grad for p in model.head_parameters()] == [True, True]
    assert sum(p.requires_grad for p in model.module.parameters()) == 2
    assert all(p.grad is None for p in model.module.parameters())
    with torch.no_grad():
        for p in small.module.parameters():
            p.add_(1.0)
    assert weights_digest(model.module) == digest


def test_whether_it_was_cached_changes_nothing(trained: FoundationModel, cache: Path) -> None:
    """The weights, what may be trained, torch's generator, the order of the batches."""
    model = trained.clone()
    model.freeze_except(model.head_parameters())
    seen = []
    for _ in range(2):
        source = view()
        torch.manual_seed(5)
        small = compressed(model, source)
        seen.append(
            (
                weights_digest(small.module),
                [p.requires_grad for p in small.module.parameters()],
                [p.grad for p in small.module.parameters()],
                torch.rand(3).tolist(),
                [batch.sample_ids.tolist() for batch in source.batches()],
            )
        )
    assert seen[0] == seen[1]
    torch.manual_seed(5)
    assert seen[0][3] == torch.rand(3).tolist()
    assert seen[0][4] == [batch.sample_ids.tolist() for batch in view().batches()]
    assert len(list((cache / "compressed").glob("*.pt"))) == 1


def test_the_order_of_the_run_has_no_part_in_it(trained: FoundationModel, cache: Path) -> None:
    one = weights_digest(compressed(trained, view(seed=1)).module)
    for file in (cache / "compressed").glob("*.pt"):
        file.unlink()
    torch.manual_seed(99)
    assert weights_digest(compressed(trained, view(seed=2)).module) == one


def test_other_settings_models_and_sources_are_kept_apart(
    trained: FoundationModel, cache: Path
) -> None:
    moved = trained.clone()
    with torch.no_grad():
        moved.head_parameters()[0].add_(0.1)
    made = [
        compressed(trained, view()),
        compressed(trained, view(), steps=11),
        compressed(trained, view(), ratio=2),
        compressed(trained, view(), learning_rate=1e-3),
        compressed(trained, view(), distillation=0.0),
        compressed(trained, view(), weight_decay=0.5),
        compressed(moved, view()),
        compressed(trained, view(batch_size=10)),
        compressed(trained, view(draw=1)),
    ]
    assert len({weights_digest(m.module) for m in made}) == len(made)
    assert len(list((cache / "compressed").glob("*.pt"))) == len(made)


def test_the_digest_of_a_source_is_that_of_its_samples_and_batches() -> None:
    plain = source_digest(view())
    assert source_digest(view(seed=8)) == plain
    assert source_digest(view(batch_size=10)) != plain
    assert source_digest(view(draw=1)) != plain
    x, y = data()
    for changed in ((x + 1, y), (x, y.flip(0)), ({"x": x, "mask": y}, y)):
        assert source_digest(DomainView("s", *changed, 20, torch.Generator())) != plain


def test_a_ratio_that_does_not_divide_the_widths_is_one_line(
    trained: FoundationModel, cache: Path
) -> None:
    with pytest.raises(BenchError, match="head width 8, not divisible by ratio 3; use a divisor"):
        compressed(trained, view(), ratio=3)
    assert not cache.exists()


def test_a_source_without_labels_is_refused_and_nothing_kept(
    trained: FoundationModel, cache: Path
) -> None:
    with pytest.raises(BenchError, match="no labels"):
        compressed(trained, view(labelled=False))
    assert not list(cache.rglob("*.pt"))


@pytest.mark.parametrize(
    "bad", [{"ratio": 0}, {"ratio": 2.5}, {"steps": 0}, {"learning_rate": 0.0}, {"step": 5}]
)
def test_settings_out_of_bounds(bad: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        CompressedConfig.model_validate(bad)
