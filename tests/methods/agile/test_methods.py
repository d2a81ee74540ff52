"""Offloading methods through their public doors: predictions, fallbacks, records, adaptation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts.method import counting_shapes
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import DeviceCosts
from bench.errors import Unsupported
from bench.methods.agile.link import CORRUPT, LOST, RATE_0
from bench.registry import load
from bench.run.window import Window

Prepare = Callable[..., Any]
ALL = ("agile-nn", "deepcod", "early-exit", "all-local", "all-remote")
LINKED = ("agile-nn", "deepcod", "early-exit", "all-remote")


@torch.no_grad()
def predicted(method: Any, x: Tensor) -> Tensor:
    found: Tensor = method.predict(x)
    return found


def told(method: Any) -> dict[str, Any]:
    found: dict[str, Any] = method.details()["offloading"]["predicting"]
    return found


# --- predictions --------------------------------------------------------------------------


@torch.no_grad()
def test_the_split_network_gives_what_it_gives_in_one_piece(
    prepare: Prepare, images: Tensor
) -> None:
    """Extractor, quantiser, link and server, against the same modules called in one process."""
    method = prepare("agile-nn")
    device, server = method.model.module, method.link.answer
    features = device.extractor(images)
    sent = features[:, 2:]
    levels = 6 * device.quantiser.positions.sigmoid()
    nearest = levels[(sent.unsqueeze(-1) - levels).abs().argmin(dim=-1)]
    local = device.head(features[:, :2].mean(dim=(2, 3)))
    remote = torch.cat([server.network(each[None]) for each in nearest])
    alpha = 1 / (1 + torch.exp(-device.weight / 6.0))
    expected = alpha * local + (1 - alpha) * remote
    assert torch.allclose(predicted(method, images), expected, atol=1e-5)
    assert (nearest - sent).abs().max() > 0.05  # the quantiser changed something
    assert told(method)["answered_by_server"] == len(images)


@torch.no_grad()
def test_the_image_arrives_within_half_a_step_of_its_pixels(
    prepare: Prepare, images: Tensor, model: Any
) -> None:
    out = predicted(prepare("all-remote"), images)
    assert torch.allclose(out, model(images), atol=0.05)
    assert torch.equal(out, predicted(prepare("all-remote", coding="lzw"), images))


@torch.no_grad()
def test_without_a_server_the_small_network_answers(prepare: Prepare, images: Tensor) -> None:
    method = prepare("all-local")
    assert torch.equal(predicted(method, images), method.model.module(images))
    assert told(method)["answered_on_device"] == {"no server": len(images)}


@torch.no_grad()
def test_an_exit_answers_what_it_is_sure_of(prepare: Prepare, images: Tensor) -> None:
    method = prepare("early-exit", confidence=0.2)
    local = method.model.module(images)
    sure = local.softmax(dim=1).amax(dim=1) >= 0.2
    out = predicted(method, images)
    assert 0 < sure.sum() < len(images)
    assert torch.equal(out[sure], local[sure])
    assert not torch.isclose(out[~sure], local[~sure]).all(dim=1).any()
    facts = told(method)
    assert facts["answered_on_device"] == {"confident": int(sure.sum())}
    assert facts["answered_by_server"] == int((~sure).sum())
    everything = prepare("early-exit", confidence=1.0)
    predicted(everything, images)
    share = int((~sure).sum()) / len(images)
    sent = told(everything)["bytes_up_per_sample"]
    assert facts["bytes_up_per_sample"] == pytest.approx(sent * share, rel=0.2)


# --- what a link does ---------------------------------------------------------------------


def test_without_a_link_the_local_prediction_stands_and_is_counted(
    prepare: Prepare, images: Tensor
) -> None:
    method = prepare("agile-nn", rate_kbps=0)
    assert torch.equal(predicted(method, images), method.model.module(images))
    facts = told(method)
    assert facts["answered_on_device"] == {RATE_0: len(images)}
    assert facts["bytes_up_per_sample"] == 0
    assert facts["measured_at_rate"] is None
    assert method.model.module(images).argmax(dim=1).tolist() == (
        predicted(method, images).argmax(dim=1).tolist()
    )


@pytest.mark.parametrize(("fault", "why"), [("loss", LOST), ("corruption", CORRUPT)])
def test_a_fault_leaves_its_samples_to_the_device(
    prepare: Prepare, images: Tensor, fault: str, why: str
) -> None:
    method, whole = prepare("agile-nn", **{fault: 0.3}), prepare("agile-nn")
    out, right = predicted(method, images), predicted(whole, images)
    alone = (out == method.model.module(images)).all(dim=1)
    assert 5 < alone.sum() < 40
    assert torch.equal(out[~alone], right[~alone])
    facts = told(method)
    assert facts["answered_on_device"] == {why: int(alone.sum())}
    assert any(why in note for note in method.details()["notes"])


def test_a_link_that_dies_in_the_middle_leaves_the_rest_to_the_device(
    prepare: Prepare, images: Tensor
) -> None:
    method = prepare("agile-nn")
    before = predicted(method, images)
    method.link.kill()
    assert torch.equal(predicted(method, images), method.model.module(images))
    assert not torch.equal(before, method.model.module(images))
    facts = told(method)
    assert facts["answered_by_server"] == len(images)
    ((why, number),) = facts["answered_on_device"].items()
    assert number == len(images)
    assert why.startswith("the link died: the server's process ended")
    assert facts["link"] == why
    assert any(why in note for note in method.details()["notes"])


def test_a_method_that_cannot_answer_alone_is_skipped_without_a_link(make_cell: Any) -> None:
    for name in LINKED:
        kind = load("method", name)
        cell = make_cell()
        method = cell.method.model_copy(
            update={"name": name, "config": kind.Config(rate_kbps=0).model_dump(mode="json")}
        )
        reason = kind.skip(cell.model_copy(update={"method": method}))
        assert (reason is None) == kind.answers_alone
        assert reason is None or RATE_0 in reason


def test_faults_where_nobody_else_answers_are_told(prepare: Prepare, images: Tensor) -> None:
    method = prepare("all-remote", loss=0.3)
    out = predicted(method, images)
    alone = (out == 0).all(dim=1)
    assert 5 < alone.sum() < 40
    assert told(method)["answered_on_device"] == {LOST: int(alone.sum())}
    (note,) = method.details()["notes"]
    assert "the first class is predicted" in note


# --- costs --------------------------------------------------------------------------------


def costs(method: Any, x: Tensor, device: str = "stm32f746") -> DeviceCosts:
    tracker = make_tracker([load_device(device)], method.stored)
    with torch.no_grad():
        tracker.inference(len(x), lambda: method.predict(x))
    (found,) = tracker.devices
    return found


def test_latency_has_four_parts_and_says_what_is_measured(prepare: Prepare, images: Tensor) -> None:
    method = prepare("agile-nn", rate_kbps=270)
    device = costs(method, images[:8])
    amounts = method.further_costs(device)
    assert device.inference is not None
    kinds = {name: amount.kind for name, amount in amounts.items()}
    assert kinds == {
        "latency_local": "modelled", "latency_encoding": "modelled",
        "latency_transmission": "modelled", "latency_remote": "measured", "latency": "modelled",
        "offload_energy": "modelled", "bytes_sent": "measured",
    }  # fmt: skip
    value = {name: amount.value for name, amount in amounts.items()}
    parts = [v for name, v in value.items() if name.startswith("latency_")]
    assert value["latency_local"] == pytest.approx(device.inference.time_s / 8)
    symbols = 8 * 4 * 4
    assert value["latency_encoding"] == pytest.approx(22 * symbols / 216e6)
    assert value["latency_transmission"] == pytest.approx(8 * value["bytes_sent"] / 270e3)
    assert value["latency"] == pytest.approx(sum(parts))
    energy = 2.07 * value["latency"] + 0.4455 * value["latency_transmission"]
    assert value["offload_energy"] == pytest.approx(energy)


def test_a_slower_clock_lengthens_what_the_device_computes(
    prepare: Prepare, images: Tensor
) -> None:
    method = prepare("agile-nn")
    fast, slow = (
        method.further_costs(costs(method, images[:8], name))
        for name in ("stm32f746", "stm32f746@64mhz")
    )
    assert slow["latency_encoding"].value == pytest.approx(
        fast["latency_encoding"].value * 216 / 64
    )
    assert slow["latency_local"].value == pytest.approx(
        fast["latency_local"].value * 216 / 64, rel=0.01
    )


def test_a_lost_message_costs_its_deadline(prepare: Prepare, images: Tensor) -> None:
    method = prepare("agile-nn", loss=1.0, deadline_ms=100)
    amounts = method.further_costs(costs(method, images[:8]))
    sending = 8 * amounts["bytes_sent"].value / 6e6
    assert amounts["latency_transmission"].value == pytest.approx(sending + 0.1)


def test_what_is_not_known_of_a_device_is_unavailable(prepare: Prepare, images: Tensor) -> None:
    method = prepare("agile-nn")
    amounts = method.further_costs(costs(method, images[:8], "xavier-nx"))
    for name in ("latency_encoding", "latency", "offload_energy"):
        assert amounts[name].kind == "unavailable"
        assert amounts[name].how
    assert amounts["latency_local"].value is not None


def test_the_link_at_its_own_rate_takes_what_the_model_says(
    prepare: Prepare, images: Tensor
) -> None:
    method = prepare("agile-nn", rate_kbps=100)
    predicted(method, images[:4])
    measured = told(method)["measured_at_rate"]
    assert measured["messages"] == 4
    modelled = 8 * measured["bytes"] / 100e3
    assert modelled * 0.95 < measured["transmission_s"] < modelled + 0.5
    assert told(method)["measured_at_rate"] == measured  # once


def test_the_server_is_not_in_the_devices_memory(prepare: Prepare) -> None:
    method = prepare("agile-nn")
    stored = sum(p.numel() for p in method.stored()[0].parameters())
    assert stored == method.details()["offloading"]["device_parameters"]
    assert stored < 500
    facts = method.details()["offloading"]
    # The largest layer: an image of 16 x 16 in, four maps of 8 x 8 out; or these in and out.
    assert facts["device_ram_bytes"] == 4 * (16 * 16 + 4 * 8 * 8)
    assert facts["device_flash_bytes"] == 4 * stored


@pytest.mark.parametrize("name", LINKED)
def test_all_coders_are_compared_on_the_same_symbols(
    prepare: Prepare, images: Tensor, name: str
) -> None:
    method = prepare(name)
    predicted(method, images)
    sizes = told(method)["code_bytes"]
    assert set(sizes) == {"lzw", "zlib", "lzma", "packed"}
    assert all(size > 0 for size in sizes.values())


# --- adaptation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapts", "changed"),
    [
        ("nothing", set()), ("weight", {"weight"}), ("local", {"head.weight", "head.bias"}),
        ("both", {"weight", "head.weight", "head.bias"}),
    ],
)  # fmt: skip
def test_only_what_is_named_adapts(
    prepare: Prepare, images: Tensor, view: Any, adapts: str, changed: set[str]
) -> None:
    method = prepare("agile-nn", adapts=adapts, adapt_rate=0.5)
    before = copy.deepcopy(method.model.module.state_dict())
    tracker = make_tracker([load_device("stm32f746")], method.stored)
    with Window(tracker, 1e9, None, lambda: method.model.module) as window:
        method.adapt(view(images[:32], labelled=False, name="target"), window)
    after = method.model.module.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed
    assert tracker.counts["adapt"] == (2 if changed else 0)


def test_a_step_is_the_gradient_of_the_entropy(prepare: Prepare, images: Tensor, view: Any) -> None:
    """Of the combination weight and the head, against a plain computation."""
    method = prepare("agile-nn", adapt_rate=0.3)
    device = method.model.module
    x = images[:16]
    with torch.no_grad():
        features = device.extractor(x)
        symbols = device.quantiser.symbols(features[:, 2:])
        sent = device.quantiser.values[symbols.long()]
        remote = torch.cat([method.link.answer.network(each[None]) for each in sent])
        seen = features[:, :2].mean(dim=(2, 3))
    w = device.weight.detach().clone().requires_grad_()
    weight = device.head.weight.detach().clone().requires_grad_()
    bias = device.head.bias.detach().clone().requires_grad_()
    alpha = torch.sigmoid(w / 6.0)
    p = (alpha * (seen @ weight.T + bias) + (1 - alpha) * remote).softmax(dim=1)
    (-(p * p.log()).sum(dim=1).mean()).backward()
    tracker = make_tracker([load_device("stm32f746")], method.stored)
    with Window(tracker, 1e9, None, lambda: device) as window:
        method.adapt(view(x, labelled=False, name="target"), window)
    for now, then in ((device.weight, w), (device.head.weight, weight), (device.head.bias, bias)):
        assert then.grad is not None
        assert then.grad.abs().max() > 0
        assert torch.allclose(now, then.detach() - 0.3 * then.grad, atol=1e-6)


# --- before deployment --------------------------------------------------------------------


def test_channels_are_chosen_before_the_training(prepare: Prepare) -> None:
    facts = prepare("agile-nn").details()["offloading"]["offline"]
    assert len(set(facts["channels"])) == 2
    assert 0 <= facts["skewness"] <= 1
    assert 0 <= facts["disorder_violated"] <= 1
    assert "channels" not in prepare("agile-nn", choose_channels=False).facts


def test_the_offline_stage_is_made_once(prepare: Prepare, images: Tensor) -> None:
    first, again = prepare("agile-nn"), prepare("agile-nn", rate_kbps=270, adapts="nothing")
    assert torch.equal(predicted(first, images), predicted(again, images))
    offline = type(first).offline_settings
    assert offline(first.config) == offline(again.config)
    assert offline(first.config) != offline(prepare("agile-nn", rho=0.9).config)


def test_the_offline_stage_does_not_depend_on_the_seed(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Whichever seed comes first trains it for all."""
    found = []
    for seed in (0, 7):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / str(seed)))
        found.append(prepare("all-local", seed=seed).model.module.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_split_that_leaves_one_side_empty_is_refused() -> None:
    kind = load("method", "agile-nn")
    with pytest.raises(ValueError, match="leaves 0 on the device"):
        kind.Config(split=0.01)


def test_a_model_without_a_stem_of_convolutions_is_unsupported(images: Tensor, view: Any) -> None:
    kind, vit = load("method", "agile-nn"), load("model", "digits-vit")
    model = vit.build(vit.Config(width=32, depth=1), (1, 16, 16), 10)
    model.train(False)
    with pytest.raises(Unsupported, match=r"does not run from its layer 'patch_embed.proj' on"):
        kind(kind.Config(channels=10)).prepare(model, view(images))


def test_a_method_is_counted_without_values(model: Any, images: Tensor, view: Any) -> None:
    kind = load("method", "agile-nn")
    method = kind(kind.Config(channels=10))
    with counting_shapes():
        method.prepare(model.clone(), view(images))
        assert predicted(method, images).shape == (60, 10)
    assert method.link is None
