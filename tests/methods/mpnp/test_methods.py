"""What each method trains, which modalities it answers from, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import BenchError, Unsupported
from bench.conformance import check_component
from bench.methods.mpnp.method import MPnP, MPnPConfig
from bench.methods.mpnp.modality import ModalityConfig
from bench.methods.mpnp.rivals import EpAlm, EpAlmConfig, FullModality, PromptFuse, PromptFuseConfig

SHORT = {"epochs": 2, "offline_epochs": 1, "learning_rate": 0.01}
METHODS = {
    "mpnp-llm": (MPnP, MPnPConfig, {"blocks": 2}),
    "full-modality": (FullModality, ModalityConfig, {}),
    "promptfuse": (PromptFuse, PromptFuseConfig, {"prompts": 3}),
    "ep-alm": (EpAlm, EpAlmConfig, {"prompts": 2}),
}


def prepared(name: str, modal: Any, view: Any, samples: Any, **settings: Any) -> Any:
    method_class, config, own = METHODS[name]
    torch.manual_seed(3)
    method = method_class(config(**{**SHORT, **own, **settings}))
    method.prepare(modal, view(*samples(8), batch_size=4))
    return method


def weights(method: Any) -> dict[str, torch.Tensor]:
    named = {f"model.{n}": p for n, p in method.model.module.named_parameters()}
    named |= {f"links.{n}": p for n, p in method.links.named_parameters()}
    return {name: p.detach().clone() for name, p in named.items()}


def changed(before: dict[str, torch.Tensor], method: Any) -> set[str]:
    now = weights(method)
    return {name for name in before if not torch.equal(before[name], now[name])}


def test_online_only_the_new_aligners_and_the_gates_are_trained(
    modal, view, samples, adapt, monkeypatch
) -> None:
    method = prepared("mpnp-llm", modal, view, samples)
    before = weights(method)
    with_gradient: set[str] = set()
    step = MPnP._step

    def watched(self: Any, *arguments: Any) -> Any:
        loss = step(self, *arguments)
        for where, module in (("model", self.model.module), ("links", self.links)):
            named = module.named_parameters()
            with_gradient.update(f"{where}.{n}" for n, p in named if p.grad is not None)
        return loss

    monkeypatch.setattr(MPnP, "_step", watched)
    adapt(method, view(*samples(8, 2), batch_size=4))
    layers = ("key.inner", "key.outer", "value.inner", "value.outer")
    expected = {f"links.range.{n}.{part}" for n in layers for part in ("weight", "bias")}
    expected.add("links.gates.w")
    assert with_gradient == expected
    assert changed(before, method) == expected
    assert method.links.gates.w.shape == (2,)


def test_offline_keys_and_values_of_the_linked_blocks_are_trained_too_or_frozen(
    modal, view, samples
) -> None:
    fresh = {f"model.{n}": p.detach().clone() for n, p in modal.module.named_parameters()}
    frozen = prepared("mpnp-llm", modal, view, samples, decoder_offline="frozen")
    assert not changed(fresh, frozen)
    trained = prepared("mpnp-llm", modal, view, samples)
    at = "model.language.decoder.layers"
    expected = {
        f"{at}.{i}.self_attn.{n}_proj.{part}"
        for i in (1, 2) for n in ("k", "v") for part in ("weight", "bias")
    }  # fmt: skip
    moved = changed(fresh, trained)
    # A bias of all keys shifts every score alike, so that its gradient is rounding, if any
    assert {name for name in moved if "k_proj.bias" not in name} == {
        name for name in expected if "k_proj.bias" not in name
    }
    assert moved <= expected


@pytest.mark.parametrize("name", METHODS)
def test_what_else_there_is_stays_bit_identical(name, modal, view, samples, adapt) -> None:
    method = prepared(name, modal, view, samples)
    before = weights(method)
    adapt(method, view(*samples(8, 2), batch_size=4))
    moved = changed(before, method)
    assert not any("encoders" in n or "links.image" in n for n in moved)
    decoder = {n for n in moved if n.startswith("model.")}
    assert bool(decoder) == (name == "full-modality")
    assert any(n.startswith("links.range") for n in moved)
    assert all(not p.requires_grad for p in method.model.module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_switched_it_answers_from_the_second_modality_and_added_from_both(
    name, modal, view, samples, adapt
) -> None:
    x, _ = samples(4, 7)
    dark = {**x, "image": torch.zeros_like(x["image"])}
    far = {**x, "range": torch.ones_like(x["range"])}

    def depends(method: Any) -> tuple[bool, bool]:
        with torch.no_grad():
            clean = method.predict(x)
            return tuple(not torch.equal(clean, method.predict(each)) for each in (dark, far))

    for online, expected in (("switch", (False, True)), ("add", (True, True))):
        method = prepared(name, modal.clone(), view, samples, online=online)
        assert depends(method) == (True, False)
        adapt(method, view(*samples(8, 2), batch_size=4))
        assert depends(method) == expected
        assert method.details()["modality"]["active"] == (
            ["range"] if online == "switch" else ["image", "range"]
        )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("missing", ["image", "range"])
def test_a_missing_modality_is_an_error_that_names_those_there_are(
    name, missing, modal, view, samples, adapt
) -> None:
    method = prepared(name, modal, view, samples, online="add")
    x, y = samples(8, 2)
    other = {"image": "range", "range": "image"}[missing]
    del x[missing]
    with pytest.raises(BenchError, match=f"modality '{missing}' is missing: .* have {other};"):
        adapt(method, view(x, y))
    assert method.active == ["image", "range"]


def test_a_switch_does_not_need_the_first_modality(modal, view, samples, adapt) -> None:
    method = prepared("mpnp-llm", modal, view, samples)
    x, y = samples(8, 2)
    del x["image"]
    adapt(method, view(x, y))
    assert method.predict(x).shape == (8, 5)


def test_a_budget_below_the_floor_and_too_many_blocks_end_the_preparation(
    modal, view, samples
) -> None:
    with pytest.raises(BenchError, match=r"budget 0\.1: linking one block takes 0\.\d+ of full"):
        prepared("mpnp-llm", modal, view, samples, blocks=0, budget=0.1)
    with pytest.raises(BenchError, match="blocks 4: the decoder has 3"):
        prepared("mpnp-llm", modal, view, samples, blocks=4)


def test_a_model_without_modalities_is_unsupported(model, view, data) -> None:
    with pytest.raises(Unsupported, match="has none; take a model of several"):
        MPnP(MPnPConfig()).prepare(model, view(*data(8)))


def test_the_rate_falls_linearly_and_gates_have_their_own(modal, view, samples) -> None:
    method = prepared("mpnp-llm", modal, view, samples, gate_rate=0.2)
    optimizer, schedule = method._optimizer(method.trained("range"), 4)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    share = torch.tensor([1.0, 0.75, 0.5, 0.25]).unsqueeze(1)
    torch.testing.assert_close(torch.tensor(rates), share * torch.tensor([[0.01, 0.2]]))


def test_the_gradient_of_a_gate_is_that_of_a_difference_quotient(modal, view, samples) -> None:
    """Of the loss through sigmoid(w) K and sigmoid(w) V; attention is in single precision."""
    method = prepared("mpnp-llm", modal, view, samples)
    method.active = ["range"]
    x, y = samples(8, 2)
    w = method.links.gates.w
    w.requires_grad_(True)
    modal.rules.loss(method.outputs(x), y).backward()
    for i in range(len(w)):
        ends = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                w[i] += step
                ends.append(float(modal.rules.loss(method.outputs(x), y)))
                w[i] -= step
        assert float(w.grad[i]) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-2, abs=1e-5)


def test_ep_alms_place_holds_the_token_of_the_layer_whose_turn_it_is(modal, view, samples) -> None:
    method = prepared("ep-alm", modal, view, samples, share=1.0)
    x, _ = samples(2, 5)
    shown: list[torch.Tensor] = []
    for layer in modal.layers:
        # Hooks run in their order: these see what the method's own, which come later, put there
        layer.self_attn_layer_norm.register_forward_pre_hook(
            lambda _, inputs: shown.append(inputs[0][:, 0].detach())
        )
    with torch.no_grad():
        method.predict(x)
        tokens = method.links.image.projection(modal.encoded("image", x))
    for found, layer in zip(shown, (0, 0, 1), strict=True):  # 3 blocks, 2 layers
        torch.testing.assert_close(found, tokens[:, layer])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_it_keeps_the_contract_of_a_method(name: str) -> None:
    failed = [result.line for result in check_component("method", name) if not result.passed]
    assert not failed, "\n".join(failed)
