"""EdgeTA on the device: proxies, what is retrained, what comes back, what is charged and kept."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts.data import take
from bench.errors import DeviceOutOfMemory, Unsupported
from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.method import EdgeTA, EdgeTAFaithful, ReleasedConfig
from bench.methods.edgeta.offline import weights_of
from bench.methods.edgeta.proxies import proxy_to_kb
from bench.methods.edgeta.retraining import retrained
from bench.models.surgery.gates import importance, set_sparsity
from bench.models.surgery.neurons import pairs
from bench.operators.live_memory import live_tensors


@pytest.fixture
def ready(build, source, settings) -> Any:
    """A prepared method by kind of model, with changed settings."""

    def make(kind: str, released: bool = False, dtype: Any = torch.float32, **changes: Any):
        method_class, config = (
            (EdgeTAFaithful, ReleasedConfig) if released else (EdgeTA, EdgeTAConfig)
        )
        method = method_class(config(**{**settings, **changes}))
        torch.manual_seed(1)
        model = build(kind)
        model.module.to(dtype)
        with torch.enable_grad():
            method.prepare(model, source(kind, **({"dtype": dtype} if kind == "vit" else {})))
        return method

    return make


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def changed(now: dict[str, Tensor], before: dict[str, Tensor]) -> set[str]:
    return {name for name in now if not torch.equal(now[name], before[name])}


@torch.no_grad()
def masked(method: EdgeTA, x: Any, sparsity: float) -> Tensor:
    set_sparsity(method.kb, sparsity)
    return method.kb(x)


@torch.no_grad()
@pytest.mark.parametrize("attention", [False, True])
def test_the_proxy_equals_the_masked_knowledge_base_on_the_sample(
    ready, domain, adapt, kind, attention
) -> None:
    method = ready(kind, importance="first", sparsity=0.7, attention=attention)
    with method.source.preserve_rng():
        sample = take(next(method.source.batches()).x, torch.tensor([0]))
    torch.testing.assert_close(
        method.predict(sample), masked(method, sample, 0.7), rtol=0, atol=1e-4
    )
    before = masked(method, sample, 0.7)
    target = domain(kind, 20, seed=2)
    with torch.enable_grad():
        adapt(method, target)
    assert float((masked(method, sample, 0.7) - before).abs().max()) > 1e-4  # it learned
    proxy, _ = method.generate(target.x)
    sample = take(target.x, torch.tensor([0]))
    torch.testing.assert_close(proxy(sample), masked(method, sample, 0.7), rtol=0, atol=1e-4)
    other = take(target.x, torch.tensor([1]))
    assert float((proxy(other) - masked(method, other, 0.7)).abs().max()) > 1e-4


@torch.no_grad()
def test_without_sparsity_the_proxy_is_the_knowledge_base(ready, domain, kind) -> None:
    method = ready(kind, importance="first", sparsity=0.0)
    x = domain(kind, 4, seed=2).x
    for i in range(4):
        sample = take(x, torch.tensor([i]))
        proxy, slices = method.generate(sample)
        torch.testing.assert_close(proxy(sample), method.kb(sample), rtol=0, atol=1e-5)
        own = weights_of(method.kb)
        for name, p in proxy.module.named_parameters():
            assert torch.equal(p, own[name])
            assert torch.equal(slices[name].gather(own[name]), p)


def trained_names(kind: str, gated: bool = True) -> set[str]:
    inner = ".linear" if gated else ""
    if kind == "vit":
        layers = [f"blocks.{b}.{n}" for b in range(2) for n in ("attn.qkv", f"mlp.fc1{inner}",
                  "mlp.fc2", "norm1", "norm2")] + ["norm"]  # fmt: skip
    else:
        layers = ["bert.embeddings.LayerNorm"] + [
            f"bert.encoder.layer.{b}.{n}" for b in range(2)
            for n in ("attention.self.query", "attention.self.key", "attention.self.value",
                      f"intermediate.dense{inner}", "output.dense", "output.LayerNorm",
                      "attention.output.LayerNorm")
        ]  # fmt: skip
    return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def test_queries_keys_values_feed_forward_and_norms_are_retrained(ready, build, kind) -> None:
    assert set(retrained(ready(kind).model)) == trained_names(kind)
    assert set(retrained(build(kind))) == trained_names(kind, gated=False)


@pytest.mark.parametrize("feedback", ["none", "direct", "full", "replace"])
@pytest.mark.parametrize("biases", [True, False])
def test_what_changes_and_what_stays(ready, domain, adapt, kind, feedback, biases) -> None:
    form = {"feedback": feedback}
    if feedback == "replace":
        form = {"feedback": "full", "model_feedback": "replace"}
    method = ready(kind, **form, feedback_biases=biases, sparsity=0.5)
    kb, fm = copied(weights_of(method.kb)), copied(weights_of(method.fm))
    slices: dict[str, Any] = {}
    adapt(method, domain(kind, 20, seed=2))
    start, slices = method.kb.clone(), method.slices
    # The proxy started from the knowledge base as it was: outside of what is retrained it is so.
    same = {n for n, p in method.model.module.named_parameters()
            if torch.equal(p, slices[n].gather(kb[n]))}  # fmt: skip
    key_biases = {n for n in kb if "key.bias" in n}  # softmax does not see them: gradient 0
    assert set(slices) - same | key_biases == trained_names(kind) | key_biases
    moved = changed(weights_of(method.kb), kb)
    back = {n for n in trained_names(kind) if biases or not n.endswith("bias")}
    matched = set()
    for block in method.fm.blocks():
        matched |= {f"{name}.weight" for name in (*block.qkv, block.out, block.ff_out)}
    if feedback == "none":
        assert not moved
    else:
        # The model's attention output layer stays, so that it has no change to give back.
        outs = {f"{block.out}.weight" for block in start.blocks()}
        own = outs if feedback == "replace" else set()
        assert moved | key_biases == (back | own) | key_biases
    now = changed(weights_of(method.fm), fm)
    if feedback in ("full", "replace"):  # the attention's output layer is read, not written
        outs = {f"{block.out}.weight" for block in method.fm.blocks()}
        assert now == matched - outs | {f"{b.ff_in}.weight" for b in method.fm.blocks()}
    else:
        assert not now
    for name in {n for n in kb if n.startswith(method.model.head_name)}:
        assert torch.equal(dict(method.model.module.named_parameters())[name], kb[name])


def test_direct_feedback_is_the_mean_of_knowledge_base_and_proxy(ready, domain, adapt) -> None:
    method = ready("vit", feedback="direct", sparsity=0.5)
    expected = copied(weights_of(method.kb))
    adapt(method, domain("vit", 20, seed=2))
    proxy_to_kb(weights_of(method.model), expected, method.slices, retrained(method.model))
    assert not changed(weights_of(method.kb), expected)


def test_rates_of_0_make_full_feedback_direct(ready, domain, adapt, kind) -> None:
    results = []
    for settings in ({"feedback": "direct"}, {"kb_to_fm": 0.0, "fm_to_kb": 0.0}):
        method = ready(kind, **settings)
        torch.manual_seed(4)
        adapt(method, domain(kind, 20, seed=2), domain(kind, 20, seed=3))
        results.append({**weights_of(method.kb), **weights_of(method.model)})
        results.append(weights_of(method.fm))
    assert not changed(results[0], results[2])
    assert not changed(results[1], results[3])


def kept(method: EdgeTA, x: Any) -> dict[str, list[int]]:
    _, slices = method.generate(x)
    return {p.inner: slices[f"{p.inner}.linear.weight"].rows.tolist() for p in pairs(method.kb)}


def top(g: Tensor, count: int) -> list[int]:
    return sorted(sorted(range(len(g)), key=lambda i: (-float(g[i]), i))[:count])


@pytest.mark.parametrize("neurons", ["important", "unimportant", "random"])
def test_the_neurons_kept_by_sorting(ready, domain, kind, neurons) -> None:
    method = ready(kind, sparsity=0.75, neurons=neurons)
    x = domain(kind, 8, seed=2).x
    found = kept(method, x)
    repeated = kept(method, x)
    set_sparsity(method.kb, 0.75)
    for name, g in importance(method.kb, x).items():
        mean = torch.stack([g[i] for i in range(8)]).mean(dim=0)
        count = len(mean) - int(len(mean) * 0.75)
        important, least = top(mean, count), top(-mean, count)
        assert len(found[name]) == count
        if neurons == "random":
            assert found[name] not in (important, least, repeated[name])
            continue
        assert found[name] == (important if neurons == "important" else least)
        assert repeated[name] == found[name]


@torch.no_grad()
def test_importance_is_of_the_mean_the_first_or_the_least_certain_sample(
    ready, domain, kind
) -> None:
    x = domain(kind, 8, seed=2).x
    for how in ("mean", "first", "entropy"):
        method = ready(kind, importance=how, sparsity=0.5)
        proxy, _ = method.generate(x)
        p = masked(method, x, 0.5).softmax(dim=1)
        entropy = [-sum(float(v) * float(v.log()) for v in row) for row in p]
        least_certain = max(range(8), key=entropy.__getitem__)
        assert least_certain != 0
        for name, g in importance(method.kb, x).items():
            own = {"mean": g.mean(dim=0), "first": g[0], "entropy": g[least_certain]}[how]
            rows = top(own, len(own) - len(own) // 2)
            multiplier = proxy.module.get_submodule(name).multiplier
            torch.testing.assert_close(multiplier, own[rows], rtol=1e-4, atol=1e-5)


def test_importance_is_read_from_one_batch_of_the_domain(ready, domain, adapt) -> None:
    """Its first: samples after it do not count."""
    results = []
    for n in (8, 12):
        method = ready("vit")
        adapt(method, domain("vit", n, seed=2, batch_size=8))
        results.append(method.model.module.blocks[0].mlp.fc1.multiplier)
    data = domain("vit", 12, seed=2, batch_size=8)
    method = ready("vit")
    again, _ = method.generate(data.x[:8])
    assert torch.equal(results[1], again.module.blocks[0].mlp.fc1.multiplier)


def test_a_window_without_room_for_one_iteration_is_unsupported(ready, domain, adapt) -> None:
    method = ready("vit")
    tracker = adapt(method, domain("vit", 20, seed=2))
    whole = tracker.devices[0].window.time_s
    short = ready("vit")
    (proxy_s,) = [c.time_s for k, c in tracker.devices[0]._costs.items() if k[0] == "proxy"]
    with pytest.raises(
        Unsupported,
        match=r"edgeta: the window of \S+ s closes before the first iteration.*lengthen window_s",
    ):
        adapt(short, domain("vit", 20, seed=2), budget_s=proxy_s)
    adapt(ready("vit"), domain("vit", 20, seed=2), budget_s=2 * whole)


@pytest.mark.parametrize("released", [False, True])
def test_a_saved_state_continues_bit_for_bit(ready, domain, adapt, kind, released) -> None:
    first, second = (ready(kind, released) for _ in range(2))
    adapt(first, domain(kind, 20, seed=2))
    stream = io.BytesIO()
    torch.save(first.state(), stream)
    stream.seek(0)
    second.load_state(torch.load(stream, weights_only=True))
    x = domain(kind, 5, seed=4).x
    with torch.no_grad():
        assert torch.equal(first.predict(x), second.predict(x))
    for method in (first, second):
        torch.manual_seed(5)
        adapt(method, domain(kind, 20, seed=3))
    ours, theirs = first.state(), second.state()
    for part in ("fm", "products", "kb", "proxy", "kept"):
        assert list(ours[part]) == list(theirs[part])
        assert not changed(ours[part], theirs[part]), part
    assert torch.equal(ours["source"], theirs["source"])
    assert bool(ours["products"]) == released


def test_a_state_does_not_change_with_the_method(ready, domain, adapt) -> None:
    method = ready("vit")
    state = method.state()
    before = {part: copied(state[part]) for part in ("fm", "kb", "proxy")}
    adapt(method, domain("vit", 20, seed=2))
    for part, tensors in before.items():
        assert not changed(state[part], tensors)
    assert changed(method.state()["kb"], before["kb"])


def test_every_piece_is_charged(ready, domain, adapt, kind) -> None:
    method = ready(kind, epochs=2)
    tracker = adapt(method, domain(kind, 20, seed=2), domain(kind, 20, seed=3))
    assert tracker.counts == {"proxy": 2, "adapt": 2 * 2 * 3, "feedback": 2}
    costs = {key[0]: cost.time_s for key, cost in tracker.devices[0]._costs.items()}
    assert all(costs[name] > 0 for name in ("proxy", "adapt", "feedback"))


def test_model_knowledge_base_index_and_proxy_are_in_memory(ready, domain, adapt, kind) -> None:
    def size(tensors: Any) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    def held(method: EdgeTA) -> int:
        found = {t.untyped_storage()._cdata: t for t in live_tensors(method.stored())}
        return sum(t.untyped_storage().nbytes() for t in found.values())

    for released in (False, True):
        method = ready(kind, released, sparsity=0.5)
        adapt(method, domain(kind, 20, seed=2))
        parts = [size(m.module.state_dict().values()) for m in (method.fm, method.kb, method.model)]
        parts += [size(method.index.state_dict().values()), size(method.products.values())]
        if kind == "bert":  # positions and token types are buffers outside the state
            parts += [
                size(m.module.get_submodule("bert.embeddings").buffers())
                for m in (method.fm, method.kb, method.model)
            ]
        ids = {id(s.rows if s.rows is not None else s.columns): s for s in method.slices.values()}
        rows = [s.rows if s.rows is not None else s.columns for s in ids.values()]
        parts.append(size(r for r in rows if r is not None))
        gradients = [p.grad for p in method.model.module.parameters() if p.grad is not None]
        parts.append(size(gradients))
        assert held(method) == sum(parts)
        entries = [v.numel() for v in method.index.values]
        if kind == "vit":  # 4 of 16 dimensions or 64 neurons; or all, of weight and product
            wanted = 2 * ([24 * 96, 32 * 64, 32 * 64] if released else [8 * 4, 8 * 4, 32 * 4])
            wanted += 5 * [16 * 16] if released else []
            assert sorted(entries) == sorted(wanted)


def test_a_device_too_small_for_all_of_it_is_out_of_memory(ready, domain, make_device) -> None:
    from bench.costs.factory import make_tracker
    from bench.run.window import Window

    method = ready("vit")
    small = make_device(memory=50_000.0, launch=1e-6)
    tracker = make_tracker([small], method.stored)
    with pytest.raises(DeviceOutOfMemory), Window(tracker, 1e9) as window:
        method.adapt(domain("vit", 20, seed=2), window)


@pytest.mark.parametrize("released", [False, True])
def test_models_in_bfloat16_are_adapted_and_stay_so(ready, domain, adapt, released) -> None:
    method = ready("vit", released, dtype=torch.bfloat16)
    before = copied(weights_of(method.kb))
    for seed in (2, 3):
        adapt(method, domain("vit", 20, seed=seed, dtype=torch.bfloat16))
    for model in (method.fm, method.kb, method.model):
        for name, tensor in model.module.state_dict().items():
            assert tensor.dtype == torch.bfloat16, name
            assert tensor.isfinite().all(), name
    assert changed(weights_of(method.kb), before)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_of_one_sample_give_finite_weights(ready, domain, adapt, kind, batch_size) -> None:
    method = ready(kind)
    tracker = adapt(method, domain(kind, 5, seed=2, batch_size=batch_size))
    assert tracker.counts["adapt"] == (5 if batch_size == 1 else 2)
    for model in (method.fm, method.kb, method.model):
        assert all(p.isfinite().all() for p in model.module.parameters())


def test_the_settings_as_released_are_those_of_the_code() -> None:
    config = ReleasedConfig()
    assert (config.matched, config.index, config.lora_in_feedback) == (False, "dense", False)
    assert (config.importance, config.max_residual) == ("first", None)
    assert (config.kb_to_fm, config.fm_to_kb, config.feedback_biases) == (1.0, 1.0, False)
    assert issubclass(EdgeTAFaithful, EdgeTA)
