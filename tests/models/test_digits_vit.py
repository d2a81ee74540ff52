"""The embedded vision transformer and what every foundation model answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.contracts.model import Block, weights_digest
from bench.errors import BenchError
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.testing import TinyModel

WIDTH, DEPTH, HEADS, CLASSES = 24, 3, 2, 7
CONFIG = DigitsViTConfig(width=WIDTH, depth=DEPTH, heads=HEADS)


@pytest.fixture
def model() -> DigitsViT:
    torch.manual_seed(0)
    made = DigitsViT.build(CONFIG, (1, 32, 32), CLASSES)
    made.train(False)
    return made


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def ids(parameters: list[nn.Parameter]) -> set[int]:
    assert len({id(p) for p in parameters}) == len(parameters)
    return {id(p) for p in parameters}


def test_the_default_size_is_the_documented_one() -> None:
    full = DigitsViT.build(DigitsViTConfig(), (1, 32, 32), 10)
    assert len(full.blocks()) == 4
    parameters = sum(p.numel() for p in full.module.parameters())
    by_hand = (
        (64 + 1) * 64  # patches of 8 x 8
        + 64 + (16 + 1) * 64  # class token, positions
        + 4 * (4 * 64 + 64 * 192 + 192 + 64 * 64 + 64 + 2 * 64 * 256 + 256 + 64)
        + 2 * 64 + 65 * 10  # last norm, head
    )  # fmt: skip
    assert parameters == by_hand
    assert round(parameters / 1e6, 2) == 0.21


def test_blocks_name_linear_layers_of_fitting_shapes(model: DigitsViT) -> None:
    blocks = model.blocks()
    assert len(blocks) == DEPTH
    names = [n for b in blocks for n in (*b.qkv, b.out, b.ff_in, b.ff_out)]
    assert len(set(names)) == 4 * DEPTH
    for block in blocks:
        assert block.fused
        assert block.heads == HEADS
        (qkv_name,) = block.qkv
        qkv, out, up, down = (
            model.module.get_submodule(n) for n in (qkv_name, block.out, block.ff_in, block.ff_out)
        )
        for layer in (qkv, out, up, down):
            assert isinstance(layer, nn.Linear)
        assert (qkv.in_features, qkv.out_features) == (WIDTH, 3 * WIDTH)
        assert (out.in_features, out.out_features) == (WIDTH, WIDTH)
        assert up.in_features == down.out_features == WIDTH
        assert up.out_features == down.in_features == 4 * WIDTH
        assert out.in_features % block.heads == 0


def test_a_block_of_three_layers_is_not_fused() -> None:
    assert not Block(("q", "k", "v"), "o", "i", "f", 2).fused
    assert Block(("qkv",), "o", "i", "f", 2).fused


def test_the_named_layers_are_those_that_run_in_the_order_of_the_blocks(
    model: DigitsViT, x: torch.Tensor
) -> None:
    called: list[str] = []
    names = [n for b in model.blocks() for n in (*b.qkv, b.out, b.ff_in, b.ff_out)]
    for name in names:
        model.module.get_submodule(name).register_forward_hook(
            lambda *_, name=name: called.append(name)
        )
    model(x)
    assert called == names


@torch.no_grad()
def test_the_rows_of_a_fused_layer_are_query_key_and_value_by_heads(
    model: DigitsViT, x: torch.Tensor
) -> None:
    """Attention written out from the declared structure equals the block's own."""
    block = model.blocks()[0]
    captured: list[torch.Tensor] = []
    attention = model.module.get_submodule(block.out.rpartition(".")[0])
    attention.register_forward_hook(lambda _, inputs, out: captured.extend((inputs[0], out)))
    model(x)
    tokens, expected = captured
    n, t, w = tokens.shape
    qkv = model.module.get_submodule(block.qkv[0])(tokens)
    q, k, v = (
        part.view(n, t, block.heads, w // block.heads).transpose(1, 2) for part in qkv.split(w, 2)
    )
    weights = (q @ k.transpose(2, 3) / (w // block.heads) ** 0.5).softmax(dim=3)
    mixed = (weights @ v).transpose(1, 2).reshape(n, t, w)
    assert torch.allclose(model.module.get_submodule(block.out)(mixed), expected, atol=1e-5)


def test_features_are_what_the_head_receives(model: DigitsViT, x: torch.Tensor) -> None:
    outputs, features = model.with_features(x)
    assert outputs.shape == (5, CLASSES)
    assert features.shape == (5, WIDTH)
    assert torch.equal(model.head(features), outputs)
    assert torch.equal(model(x), outputs)


def test_features_carry_gradients_to_the_body_and_leave_no_hook(
    model: DigitsViT, x: torch.Tensor
) -> None:
    _, features = model.with_features(x)
    features.sum().backward()
    assert all(p.grad is None for p in model.head_parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.body_parameters())
    assert not model.head._forward_pre_hooks


def test_a_failing_forward_pass_leaves_no_hook(model: DigitsViT) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        model.with_features(torch.rand(2, 1, 5, 5))
    assert not model.head._forward_pre_hooks


def test_a_head_that_is_not_called_is_an_error(model: DigitsViT, x: torch.Tensor) -> None:
    class Bare(DigitsViT):
        head_name = "unused"

    model.module.add_module("unused", nn.Linear(2, 2))
    with pytest.raises(BenchError, match="Bare: head 'unused' was not called"):
        Bare(model.module).with_features(x)


def test_head_and_body_share_no_parameter_and_miss_none(model: DigitsViT) -> None:
    head, body = ids(model.head_parameters()), ids(model.body_parameters())
    assert not head & body
    assert head | body == ids(list(model.module.parameters()))
    assert [tuple(p.shape) for p in model.head_parameters()] == [(CLASSES, WIDTH), (CLASSES,)]


def test_normalization_parameters_are_scale_and_shift_of_every_norm(model: DigitsViT) -> None:
    found = model.normalization_parameters()
    named = {n for n, p in model.module.named_parameters() if id(p) in ids(found)}
    expected = {
        f"blocks.{i}.norm{j}.{part}"
        for i in range(DEPTH) for j in (1, 2) for part in ("weight", "bias")
    } | {"norm.weight", "norm.bias"}  # fmt: skip
    assert named == expected
    assert ids(found) <= ids(model.body_parameters())


def test_normalization_layers_of_every_kind_are_found() -> None:
    net = nn.Sequential(
        nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.BatchNorm2d(4),
        nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False),
    )  # fmt: skip
    found = ids(TinyModel(net).normalization_parameters())
    assert found == {id(p) for layer in net[:4] for p in layer.parameters()}


def test_freezing_lets_gradients_flow_to_the_chosen_parameters_only(
    model: DigitsViT, x: torch.Tensor
) -> None:
    chosen = model.normalization_parameters()
    model.freeze_except(chosen)
    model(x).square().sum().backward()
    for p in model.module.parameters():
        assert p.requires_grad == (id(p) in ids(chosen))
        assert (p.grad is not None) == (id(p) in ids(chosen))
    model.freeze_except(model.head_parameters())
    assert {id(p) for p in model.module.parameters() if p.requires_grad} == ids(
        model.head_parameters()
    )


def test_a_clone_is_equal_and_independent(model: DigitsViT, x: torch.Tensor) -> None:
    model.freeze_except(model.head_parameters())
    twin = model.clone()
    assert isinstance(twin, DigitsViT)
    assert torch.equal(twin(x), model(x))
    before = model(x).detach()
    assert not ids(list(twin.module.parameters())) & ids(list(model.module.parameters()))
    assert [p.requires_grad for p in twin.module.parameters()] == [
        p.requires_grad for p in model.module.parameters()
    ]
    with torch.no_grad():
        for p in twin.module.parameters():
            p.add_(1.0)
    assert torch.equal(model(x), before)
    assert not torch.equal(twin(x), before)


def test_fresh_weights_come_from_the_global_generator() -> None:
    def built(seed: int) -> str:
        torch.manual_seed(seed)
        return weights_digest(DigitsViT.build(CONFIG, (1, 32, 32), CLASSES).module)

    assert built(0) == built(0)
    assert built(0) != built(1)


@torch.no_grad()
def test_the_weights_digest_changes_with_one_bit_of_any_weight_and_comes_back(
    model: DigitsViT,
) -> None:
    first = weights_digest(model.module)
    assert weights_digest(model.clone().module) == first
    for p in model.module.parameters():
        kept = p.flatten()[0].clone()
        p.view(-1)[0] = torch.nextafter(kept, torch.tensor(10.0))
        assert weights_digest(model.module) != first
        p.view(-1)[0] = kept
    assert weights_digest(model.module) == first


def test_the_weights_digest_sees_names_shapes_and_buffers() -> None:
    class Held(nn.Module):
        def __init__(self, name: str, value: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer(name, value)

    zeros = torch.zeros(6)
    made = [
        Held("a", zeros), Held("b", zeros), Held("a", zeros.view(2, 3)), Held("a", zeros + 1),
        Held("a", torch.zeros(6, dtype=torch.int32)),
    ]  # fmt: skip
    assert len({weights_digest(m) for m in made}) == len(made)


def test_a_module_with_batch_norm_has_a_weights_digest() -> None:
    """Its count of batches is a tensor without dimensions."""
    net = nn.BatchNorm1d(3)
    first = weights_digest(net)
    net(torch.rand(4, 3))
    assert weights_digest(net) != first


def test_loss_and_hits_by_hand(model: DigitsViT) -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([0, 0])
    log_sum = [
        torch.tensor([2.0, 0.0]).exp().sum().log(),
        torch.tensor([0.0, 1.0]).exp().sum().log(),
    ]
    expected = ((log_sum[0] - 2.0) + (log_sum[1] - 0.0)) / 2
    assert float(model.loss(outputs, y)) == pytest.approx(float(expected))
    score = model.rules.score()
    score.update(outputs, y)
    assert score.compute() == 0.5


def test_smoothing_mixes_the_uniform_loss(model: DigitsViT) -> None:
    outputs, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = outputs.log_softmax(1)[0]
    expected = -(0.9 * logs[0] + 0.1 * logs.mean())
    assert float(model.loss(outputs, y, label_smoothing=0.1)) == pytest.approx(float(expected))


def test_augmenting_moves_a_batch_by_at_most_one_pixel(model: DigitsViT, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    moves = set()
    for _ in range(60):
        out = model.augment(x)
        matches = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(out, torch.roll(x, (down, right), (2, 3)))
        ]
        assert len(matches) == 1
        moves.update(matches)
    assert len(moves) == 9


def test_train_sets_the_modules_mode(model: DigitsViT) -> None:
    model.train()
    assert model.module.training
    assert all(m.training for m in model.module.modules())
    model.train(False)
    assert not any(m.training for m in model.module.modules())


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 8, 8)])
def test_other_input_shapes_can_be_built(shape: tuple[int, ...]) -> None:
    made = DigitsViT.build(CONFIG, shape, 4)
    assert made(torch.rand(2, *shape)).shape == (2, 4)
