"""SAR against Niu et al. (ICLR 2023), eqs. (2) and (4), in plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.contracts.model import Block
from bench.errors import Unsupported
from bench.methods.sar import Sar, SarConfig, lower_affine_parameters


def entropies(net, x, scale, shift):
    hidden = x @ net.body.weight.detach().t() + net.body.bias.detach()
    mean = hidden.mean(dim=1, keepdim=True)
    spread = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    active = torch.tanh((hidden - mean) / spread * scale + shift)
    logits = active @ net.head.weight.detach().t() + net.head.bias.detach()
    p = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    return [-sum(v * torch.log(v) for v in row) for row in p]


def plain_sar(net, batches, share, rho, lr):
    """Weights, losses at the perturbed weights, and what became of each sample."""
    margin = share * math.log(3)
    weights = [p.detach().clone() for p in net.norm.parameters()]
    velocity = [torch.zeros_like(p) for p in weights]
    losses, fates = [], []
    for x in batches:
        live = [w.clone().requires_grad_(True) for w in weights]
        first = entropies(net, x, *live)
        chosen = [i for i, h in enumerate(first) if h < margin]
        gradients = torch.autograd.grad(sum(first[i] for i in chosen) / len(chosen), live)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        moved = [
            (w + rho * g / norm).requires_grad_(True)
            for w, g in zip(weights, gradients, strict=True)
        ]
        second = entropies(net, x, *moved)
        again = [i for i in chosen if second[i] < margin]
        fates += [
            "kept" if i in again else "lost" if i in chosen else "never" for i in range(len(x))
        ]
        loss = sum(second[i] for i in again) / len(again)
        losses.append(float(loss.detach()))
        for i, gradient in enumerate(torch.autograd.grad(loss, moved)):
            velocity[i] = 0.9 * velocity[i] + gradient
            weights[i] = weights[i] - lr * velocity[i]
    return weights, losses, fates


def test_updates_follow_the_gradient_at_perturbed_weights(model, data, view, adapt):
    x = 2 * data(24)[0]
    batches = [batch.x for batch in view(x, batch_size=8).batches()]
    weights, losses, fates = plain_sar(model.module, batches, 0.9, 0.3, 0.05)
    assert set(fates) == {"kept", "lost", "never"}
    config = SarConfig(
        entropy_share=0.9, rho=0.3, learning_rate=0.05, frozen_blocks=0.0, recovery_threshold=0.0
    )
    method = Sar(config)
    method.prepare(model, view(data(4)[0]))
    adapt(method, view(x, batch_size=8))
    for got, want in zip(model.module.norm.parameters(), weights, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=1e-9)
    average = losses[0]
    for loss in losses[1:]:
        average = 0.9 * average + 0.1 * loss
    assert method.average == pytest.approx(average, rel=1e-6)


@pytest.mark.parametrize("recovery", ["corrected", "faithful"])
def test_the_model_recovers_when_the_average_is_low(model, data, view, adapt, recovery):
    """Weights go back; ``faithful`` has the old average and the momentum still."""
    x = data(6)[0]
    start = [p.detach().clone() for p in model.module.norm.parameters()]
    method = Sar(SarConfig(entropy_share=1.0, recovery_threshold=0.0, learning_rate=0.1))
    method.prepare(model, view(x))
    adapt(method, view(x))
    assert not torch.equal(model.module.norm.weight.detach(), start[0])
    low = method.average
    assert 0 < low < 1.2
    method.config = SarConfig(
        entropy_share=1.0, recovery_threshold=5.0, learning_rate=0.1, recovery=recovery
    )
    adapt(method, view(x))
    for got, want in zip(model.module.norm.parameters(), start, strict=True):
        assert torch.equal(got.detach(), want)
    assert bool(method.optimizer.state) == (recovery == "faithful")
    assert (method.average is None) == (recovery == "corrected")


def test_a_batch_without_a_reliable_sample_changes_nothing(model, data, view, adapt):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    method = Sar(SarConfig(entropy_share=1e-6))
    method.prepare(model, view(data(4)[0]))
    assert adapt(method, view(data(8)[0])).counts == {"adapt": 1}
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert method.average is None


def test_a_batch_whose_samples_all_become_unreliable_changes_nothing(model, data, view, adapt):
    """The perturbation is taken back to the last bit."""
    x = data(5)[0]
    h = entropies(model.module, x, *(p.detach() for p in model.module.norm.parameters()))
    share = (float(min(h)) + 1e-9) / math.log(3)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    method = Sar(SarConfig(entropy_share=share, rho=0.5))
    method.prepare(model, view(x))
    adapt(method, view(x))
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert method.average is None


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.q, self.norm2, self.fc = (
            nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4),
        )  # fmt: skip


class _Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_pre = nn.LayerNorm(4)
        self.blocks = nn.Sequential(*(_Block() for _ in range(12)))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)


def names_of(model, parameters):
    wanted = {id(p) for p in parameters}
    return {n.rpartition(".")[0] for n, p in model.module.named_parameters() if id(p) in wanted}


def test_a_quarter_of_the_blocks_and_the_final_norm_are_frozen(model, monkeypatch):
    """Of ViT-B's 12 blocks the last three, as in the paper."""
    model.module = _Tower()
    monkeypatch.setattr(
        type(model),
        "blocks",
        lambda self: [
            Block((f"blocks.{i}.q",), f"blocks.{i}.q", f"blocks.{i}.fc", f"blocks.{i}.fc", 1)
            for i in range(12)
        ],
    )
    trained = names_of(model, lower_affine_parameters(model, 0.25))
    expected = {f"blocks.{i}.norm{j}" for i in range(9) for j in (1, 2)} | {"norm_pre"}
    assert trained == expected
    assert "norm" in names_of(model, lower_affine_parameters(model, 0.0))
    assert names_of(model, lower_affine_parameters(model, 1.0)) == {"norm_pre"}


def test_without_blocks_the_top_normalization_layers_are_frozen(model):
    model.module = nn.Sequential(*(nn.LayerNorm(4) for _ in range(8)))
    assert names_of(model, lower_affine_parameters(model, 0.25)) == {str(i) for i in range(6)}


def test_nothing_left_to_train_is_refused_with_a_cure(model):
    with pytest.raises(Unsupported, match=r"frozen_blocks 1\.0 leaves no .* lower it"):
        lower_affine_parameters(model, 1.0)
