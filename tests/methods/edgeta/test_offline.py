"""The offline stage: what it depends on, what it leaves as it was, its parts and its errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.contracts.data import DomainView, take
from bench.contracts.model import Block
from bench.errors import BenchError
from bench.methods.edgeta import offline as stage
from bench.methods.edgeta import stages
from bench.methods.edgeta.config import OFFLINE, EdgeTAConfig
from bench.methods.edgeta.method import ReleasedConfig
from bench.methods.edgeta.offline import Offline, lora_products, offline, weights_of
from bench.models.digits_vit import DigitsViT
from bench.models.surgery.gates import gated_layers, insert_gates, set_sparsity
from bench.models.surgery.linear import linear_at
from bench.models.surgery.lora import LoraLinear, fuse_lora
from bench.models.surgery.pruning import cut, strongest

ONLINE = {
    "learning_rate", "epochs", "mmd_weight", "sparsity", "importance", "neurons", "feedback",
    "kb_to_fm", "fm_to_kb", "feedback_biases", "max_residual", "trained_share", "selector",
    "iterations", "qkv_bias", "model_feedback",
}  # fmt: skip
CHANGED: dict[str, Any] = {
    "learning_rate": 0.02, "epochs": 2, "mmd_weight": 2.0, "sparsity": 0.5, "importance": "first",
    "neurons": "random", "feedback": "none", "kb_to_fm": 0.5, "fm_to_kb": 0.5,
    "feedback_biases": False, "ratio": 4, "matched": False, "attention": True, "lora_rank": 3,
    "lora_steps": 2, "lora_learning_rate": 0.02, "lora_in_feedback": False, "kb_steps": 5,
    "kb_learning_rate": 0.02, "kb_weight_decay": 0.02, "distillation": 2.0, "gate_reduction": 2,
    "index": "dense", "index_neurons": 5, "max_residual": 500.0, "index_steps": 5,
    "index_learning_rate": 0.02, "index_weight_decay": 0.2, "index_kb_learning_rate": 0.02,
    "index_weight": 0.02, "gate_l1": 0.02, "min_sparsity": 0.1, "max_sparsity": 0.8,
    "sampling": "sandwich", "checkpoints": 3, "trained_share": 0.5, "selector": "random",
    "iterations": 7, "qkv_bias": False, "model_feedback": "replace",
    "selection": "best", "lora_schedule": "linear", "gate_l1_of": "batch",
}  # fmt: skip


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Any:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """The stages that were trained instead of read from the cache, in their order."""
    done = []
    for name in ("adapt_lora", "train_kb", "train_index"):
        train = getattr(stage, name)

        def noted(*given, train=train, name=name):
            done.append(name)
            return train(*given)

        monkeypatch.setattr(stage, name, noted)
    return done


ALL = ["adapt_lora", "train_kb", "train_index"]


def tensors(made: Offline) -> dict[str, torch.Tensor]:
    return {
        **{f"fm.{n}": t for n, t in made.fm.module.state_dict().items()},
        **{f"kb.{n}": t for n, t in made.kb.module.state_dict().items()},
        **{f"index.{n}": t for n, t in made.index.state_dict().items()},
        **made.products,
    }


def require_same(first: Offline, second: Offline) -> None:
    ours, theirs = tensors(first), tensors(second)
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert first.accuracy == second.accuracy
    assert first.curves == second.curves
    assert first.residuals == second.residuals


def test_the_key_depends_on_the_offline_settings_and_no_others(
    monkeypatch, build, source, settings
) -> None:
    paths: list[Any] = []

    class Found(Exception):
        pass

    def ask(path, make):
        paths.append(path)
        raise Found

    monkeypatch.setattr(stage, "cached", ask)
    monkeypatch.setattr(stage, "_structure", lambda *_: None)  # slow, and not in the key
    model, data = build("vit"), source("vit")

    def key(**changes: Any) -> str:
        with pytest.raises(Found):
            offline(EdgeTAConfig(**{**settings, **changes}), model, data)
        return str(paths.pop())

    assert set(CHANGED) == set(EdgeTAConfig.model_fields)
    assert set(EdgeTAConfig.model_fields) - set(OFFLINE) == ONLINE
    first = key()
    assert {name for name, value in CHANGED.items() if key(**{name: value}) == first} == ONLINE
    assert key() == first
    with torch.no_grad():
        next(model.module.parameters()).view(-1)[0] += 1e-3
    assert key() != first


@pytest.mark.parametrize("config_class", [EdgeTAConfig, ReleasedConfig])
def test_a_hit_leaves_everything_as_a_miss_does(
    cache, trainings, build, source, settings, kind, config_class
) -> None:
    results, after = [], []
    model, data = build(kind), source(kind)
    before = {n: t.clone() for n, t in model.module.state_dict().items()}
    for changes in ({}, {"learning_rate": 0.03, "max_residual": 1e3}, {"index_steps": 3}):
        torch.manual_seed(7)
        data.rng_state = torch.Generator().manual_seed(5).get_state()
        results.append(offline(config_class(**{**settings, **changes}), model, data))
        after.append((torch.get_rng_state(), data.rng_state))
    assert trainings == [*ALL, "train_index"]
    require_same(*results[:2])
    torch.manual_seed(7)
    untouched = (torch.get_rng_state(), torch.Generator().manual_seed(5).get_state())
    for state in after:
        assert all(torch.equal(a, b) for a, b in zip(state, untouched, strict=True))
    assert all(torch.equal(t, before[n]) for n, t in model.module.state_dict().items())
    assert not any(p.requires_grad for m in (results[1].fm, results[1].kb)
                   for p in m.module.parameters())  # fmt: skip


def test_a_damaged_file_is_made_again(cache, trainings, build, source, settings, capsys) -> None:
    config = EdgeTAConfig(**settings)
    first = offline(config, build("vit"), source("vit"))
    assert len(list((cache / "edgeta").glob("*.pt"))) == 3
    (path,) = (cache / "edgeta").glob("index-*.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    require_same(first, offline(config, build("vit"), source("vit")))
    assert trainings == [*ALL, "train_index"]
    assert "is damaged" in capsys.readouterr().err
    require_same(first, offline(config, build("vit"), source("vit")))
    assert trainings == [*ALL, "train_index"]


@pytest.mark.parametrize("config_class", [EdgeTAConfig, ReleasedConfig])
@pytest.mark.parametrize("attention", [False, True])
def test_stages_are_made_one_by_one_with_the_bits_of_all_in_a_row(
    cache, trainings, build, source, settings, monkeypatch, kind, config_class, attention
) -> None:
    made = []
    few = {**settings, "attention": attention}
    for number, changes in enumerate(({"kb_steps": 5}, {"index_steps": 3}, {}, {"index_steps": 3})):
        if number == 3:
            monkeypatch.setenv("BENCH_CACHE", str(cache / "another"))
        made.append(offline(config_class(**{**few, **changes}), build(kind), source(kind)))
    assert trainings == [*ALL, "train_kb", "train_index", "train_index", *ALL]
    require_same(made[1], made[3])
    ours, others = tensors(made[0]), tensors(made[2])
    assert any(not torch.equal(t, others[n]) for n, t in ours.items() if n.startswith("kb."))


def test_the_first_draw_is_that_of_a_plain_program_and_others_differ(
    cache, build, source, settings
) -> None:
    """Seed, structure, then the three trainings in a row, with one order of batches."""
    made = offline(EdgeTAConfig(**settings), build("vit"), source("vit"))
    for draw in (0, 1):
        config, data = EdgeTAConfig(**settings), source("vit", draw=draw)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(draw))
        parts = []
        for chosen in (order[12:], order[:12]):
            generator = torch.Generator().manual_seed(draw)
            parts.append(DomainView("source", data.x[chosen], data.y[chosen], 8, generator))
        untrained, fm = build("vit"), build("vit")  # they seed torch
        with torch.random.fork_rng():
            torch.manual_seed(draw)
            stage._structure(config, untrained)
            stages.adapt_lora(config, fm, *parts)
            fuse_lora(fm)
            kb = fm.clone()
            cut(kb, strongest(kb, 2))
            stages.train_kb(config, kb, fm, *parts)
            insert_gates(kb, 4)
            index = stage._index(config, kb, fm, {})
            stages.train_index(config, kb, index, weights_of(fm), *parts)
        found = tensors(Offline(fm, {}, kb, index, {}))
        same = {name: torch.equal(t, found[name]) for name, t in tensors(made).items()}
        assert all(same.values()) == (draw == 0)
        again = tensors(offline(config, build("vit"), data))
        assert all(torch.equal(t, again[n]) for n, t in found.items())


def test_curves_and_facts_of_the_stages(cache, build, source, settings) -> None:
    config = EdgeTAConfig(**settings)
    made = offline(config, build("vit"), source("vit"))
    curves = made.curves
    assert [step for step, _ in curves["lora/loss"]] == [1, 2, 3]
    assert [step for step, _ in curves["knowledge-base/accuracy"]] == [2, 4]
    levels = [f"index/accuracy at sparsity {s:g}" for s in (0, 0.3, 0.6, 0.9)]
    assert all([step for step, _ in curves[name]] == [2, 4] for name in levels)
    residuals = made.index.residuals(weights_of(made.kb), weights_of(made.fm))
    assert made.residuals == pytest.approx(residuals)
    for name, value in residuals.items():
        assert curves[f"index/residual of {name}"] == [(4, pytest.approx(value))]
    facts = made.facts()
    assert set(facts) == {"lora", "knowledge-base", "index"}
    assert facts["lora"]["loss"] == curves["lora/loss"][-1][1]
    assert facts["index"]["largest residual"] == max(made.residuals.values())
    assert facts["index"]["accuracy by sparsity"]["0.9"] == made.accuracy[0.9]


@pytest.mark.parametrize("selection", ["last", "best"])
def test_the_last_or_the_best_weights_of_a_stage_stay(
    monkeypatch, build, source, settings, selection
) -> None:
    scores = iter([0.2, 0.6, 0.6, 0.1] * 2)
    seen = []

    def metric_on(model, data):
        seen.append({n: p.detach().clone() for n, p in model.module.named_parameters()})
        return next(scores)

    monkeypatch.setattr(stages, "metric_on", metric_on)
    few = {"lora_steps": 4, "kb_steps": 4, "checkpoints": 4, "selection": selection}
    config = EdgeTAConfig(**{**settings, **few})
    fm = build("vit")
    curves = stages.adapt_lora(config, fm, source("vit"), source("vit"))
    kb = build("vit")
    stages.train_kb(config, kb, build("vit"), source("vit"), source("vit"))
    assert curves["accuracy"] == [(1, 0.2), (2, 0.6), (3, 0.6), (4, 0.1)]
    kept = 1 if selection == "best" else 3
    for model, of_stage in ((fm, seen[:4]), (kb, seen[4:])):
        for name, p in model.module.named_parameters():
            assert torch.equal(p, of_stage[kept][name]), name
        assert any(not torch.equal(p, of_stage[4 - kept][n])
                   for n, p in model.module.named_parameters())  # fmt: skip


def test_the_rate_of_lora_is_constant_or_as_released(build, source, settings, monkeypatch) -> None:
    rates: dict[str, list[float]] = {}
    for schedule in ("constant", "linear"):
        found = rates[schedule] = []

        def step(optimizer, loss, found=found):
            found.append(optimizer.param_groups[0]["lr"])
            loss.backward()
            optimizer.step()

        monkeypatch.setattr(stages, "take_step", step)
        few = {"lora_steps": 20, "lora_schedule": schedule, "lora_learning_rate": 0.01}
        config = EdgeTAConfig(**{**settings, **few})
        stages.adapt_lora(config, build("vit"), source("vit"), source("vit"))
    assert rates["constant"] == [0.01] * 20
    wanted = [0.5, 1.0, *[(20 - s) / 18 for s in range(2, 20)]]
    assert rates["linear"] == pytest.approx([0.01 * share for share in wanted])


def test_the_l1_norm_is_of_a_sample_or_of_the_batch() -> None:
    gates = {"a": torch.tensor([[1.0, -2.0], [0.5, 0.0]]), "b": torch.tensor([[3.0], [4.0]])}
    assert float(stages.gates_l1(gates, 2, "batch")) == pytest.approx(10.5)
    assert float(stages.gates_l1(gates, 2, "sample")) == pytest.approx(5.25)


@torch.no_grad()
def test_lora_changes_nothing_when_inserted_and_nothing_when_fused(
    build, source, settings, kind
) -> None:
    x = source(kind).x
    model = build(kind)
    plain = model(x)
    fm = model.clone()
    with torch.enable_grad():
        none = EdgeTAConfig(**{**settings, "lora_steps": 0})
        stages.adapt_lora(none, fm, source(kind), source(kind))
    assert torch.equal(fm(x), plain)
    with torch.enable_grad():
        fm = model.clone()
        stages.adapt_lora(EdgeTAConfig(**settings), fm, source(kind), source(kind))
    adapted = fm(x)
    assert float((adapted - plain).abs().max()) > 1e-2
    fused = fm.clone()
    fuse_lora(fused)
    torch.testing.assert_close(fused(x), adapted, rtol=0, atol=1e-5)
    own = dict(model.module.named_parameters())
    qkv = {f"{name}.weight" for block in model.blocks() for name in block.qkv}
    changed = {n for n, p in fused.module.named_parameters() if not torch.equal(p, own[n])}
    assert changed == qkv | {n for n in own if n.startswith(f"{model.head_name}.")}
    stage._require_equal(fm, fused, source(kind))
    fused.head.bias += 0.5
    with pytest.raises(BenchError, match=r"fusing LoRA changes outputs by 0\.5; check"):
        stage._require_equal(fm, fused, source(kind))


def test_corrected_the_model_is_fused_and_as_released_its_products_lie_beside_it(
    build, source, settings, kind
) -> None:
    made = offline(EdgeTAConfig(**settings), build(kind), source(kind))
    assert not made.products
    assert not any(isinstance(m, LoraLinear) for m in made.fm.module.modules())
    released = offline(ReleasedConfig(**settings), build(kind), source(kind))
    assert len(released.products) == (2 if kind == "vit" else 6)
    for name, product in released.products.items():
        layer = released.fm.module.get_submodule(name.removesuffix(".lora_product"))
        parts = len(layer.down)
        rows = len(product) // parts
        for i in range(len(product)):
            a, b = layer.down[i // rows], layer.up[i // rows]
            row = sum(b[i % rows, r] * a[r] for r in range(2))
            torch.testing.assert_close(product[i], row, rtol=1e-4, atol=1e-6)
    again = lora_products(released.fm)
    assert all(torch.equal(p, again[n]) for n, p in released.products.items())


def test_the_checkpoint_of_the_best_mean_accuracy_stays(
    cache, monkeypatch, build, source, settings
) -> None:
    scores = iter([(0.1, 0.3), (0.5, 0.6), (0.9, 0.2), (0.2, 0.2)])  # means .2 .55 .55 .2
    seen = []

    def validated(config, kb, validation):
        seen.append({n: p.detach().clone() for n, p in kb.module.named_parameters()})
        low, high = next(scores)
        return {0.0: low, 0.9: high}

    monkeypatch.setattr(stages, "validated", validated)
    made = offline(ReleasedConfig(**{**settings, "checkpoints": 4}), build("vit"), source("vit"))
    assert len(seen) == 4
    assert made.accuracy == {0.0: 0.5, 0.9: 0.6}
    for name, p in made.kb.module.named_parameters():
        assert torch.equal(p, seen[1][name]), name
    assert any(not torch.equal(seen[2][n], p) for n, p in made.kb.module.named_parameters())


def test_accuracies_are_those_of_the_masked_knowledge_base_on_held_out_samples(
    build, source, settings
) -> None:
    data = source("vit")
    made = offline(EdgeTAConfig(**settings), build("vit"), data)
    assert list(made.accuracy) == [0.0, 0.3, 0.6, 0.9]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    held = order[:12]
    for sparsity, accuracy in made.accuracy.items():
        set_sparsity(made.kb, sparsity)
        hits = [int(made.kb(take(data.x, i.reshape(1))).argmax()) == int(data.y[i]) for i in held]
        assert accuracy == pytest.approx(sum(hits) / 12)


@pytest.mark.parametrize("attention", [False, True])
def test_the_knowledge_base_has_the_declared_widths(build, source, settings, attention) -> None:
    config = EdgeTAConfig(**{**settings, "attention": attention})
    made = offline(config, build("vit"), source("vit"))
    for block in made.kb.blocks():
        assert linear_at(made.kb, block.ff_in).out_features == 32
        assert block.heads == (1 if attention else 2)
    assert len(gated_layers(made.kb)) == (6 if attention else 2)


@pytest.mark.parametrize("config_class", [EdgeTAConfig, ReleasedConfig])
@pytest.mark.parametrize("attention", [False, True])
def test_a_model_in_bfloat16_works_and_stays_so(
    build, source, settings, config_class, attention
) -> None:
    model = build("vit")
    model.module.to(torch.bfloat16)
    config = config_class(**{**settings, "attention": attention})
    made = offline(config, model, source("vit", dtype=torch.bfloat16))
    for name, tensor in tensors(made).items():
        wanted = torch.int64 if ".support_" in name else torch.bfloat16
        assert tensor.dtype == wanted, name
        assert tensor.isfinite().all(), name
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}


def test_a_source_of_one_sample_is_refused(build, source, settings) -> None:
    with pytest.raises(BenchError, match="1 source samples leave none to train on; give 2"):
        offline(EdgeTAConfig(**settings), build("vit"), source("vit", 1))
    made = offline(EdgeTAConfig(**settings), build("vit"), source("vit", 2))
    assert all(t.isfinite().all() for t in tensors(made).values())


def test_a_ratio_that_does_not_divide_is_refused(build, source, settings) -> None:
    config = EdgeTAConfig(**{**settings, "ratio": 3})
    with pytest.raises(BenchError, match=r"blocks\.0\.attn\.qkv has head width 8, not .*ratio 3"):
        offline(config, build("vit"), source("vit"))


def test_a_model_without_blocks_is_refused(build, source, settings) -> None:
    class Blockless(DigitsViT):
        def blocks(self) -> list[Block]:
            return []

    with pytest.raises(BenchError, match=r"Blockless declares no blocks; implement blocks\(\)"):
        offline(EdgeTAConfig(**settings), Blockless(build("vit").module), source("vit"))


def test_an_index_that_does_not_fit_is_refused_and_not_made_again(
    cache, trainings, build, source, settings
) -> None:
    replacing = {"model_feedback": "replace", "fm_to_kb": 0.5, "max_residual": 1e-3}
    strict = EdgeTAConfig(**{**settings, **replacing})
    for _ in range(2):
        with pytest.raises(
            BenchError, match=r"residual of \S+ is \S+, and fm_to_kb 0\.5 times it is above max_re"
        ):
            offline(strict, build("vit"), source("vit"))
    for harmless in ({"model_feedback": "change"}, {"feedback": "direct"}):
        config = EdgeTAConfig(**{**settings, **replacing, **harmless})
        offline(config, build("vit"), source("vit"))
    assert trainings == ALL


def test_sparsities_are_drawn_in_the_sandwich_order_or_uniformly() -> None:
    torch.manual_seed(0)
    bounds = {"min_sparsity": 0.2, "max_sparsity": 0.7}
    drawn = list(
        itertools.islice(stages._sparsities(EdgeTAConfig(sampling="sandwich", **bounds)), 400)
    )
    assert drawn[0::4] == [0.2] * 100
    assert drawn[3::4] == [0.7] * 100
    for middle in (
        drawn[1::4] + drawn[2::4],
        list(itertools.islice(stages._sparsities(EdgeTAConfig(**bounds)), 200)),
    ):
        assert len(set(middle)) > 150
        assert 0.2 <= min(middle) < 0.25
        assert 0.65 < max(middle) <= 0.7
        assert sum(middle) / 200 == pytest.approx(0.45, abs=0.03)


def test_a_maximal_sparsity_below_the_least_is_refused() -> None:
    with pytest.raises(ValidationError, match="is below min_sparsity"):
        EdgeTAConfig(min_sparsity=0.5, max_sparsity=0.4)


def test_other_batches_train_another_index(build, source, settings) -> None:
    config = EdgeTAConfig(**settings)
    first = offline(config, build("vit"), source("vit", batch_size=8))
    other = offline(config, build("vit"), source("vit", batch_size=12))
    assert any(not torch.equal(t, tensors(other)[n]) for n, t in tensors(first).items())
