"""The neuron index against loops over neurons that know a transformer's parameters by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.contracts.model import FoundationModel
from bench.errors import BenchError
from bench.methods.edgeta.index import (
    Group,
    NeuronIndex,
    Part,
    _least_squares,
    _most_alike,
    paired_groups,
    released_groups,
)
from bench.methods.edgeta.offline import lora_products, weights_of
from bench.models.surgery.gates import insert_gates
from bench.models.surgery.lora import insert_lora
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.pruning import cut, strongest, strongest_heads

WIDTH, DEPTH = 16, 2
Weights = dict[str, Tensor]
Slot = list[tuple[str, Any]]
"""Where the weights of one neuron are: parameters and indices into them."""


def names(kind: str, block: int) -> dict[str, str]:
    if kind == "vit":
        at = f"blocks.{block}."
        return {"qkv": f"{at}attn.qkv", "out": f"{at}attn.proj", "in": f"{at}mlp.fc1",
                "back": f"{at}mlp.fc2"}  # fmt: skip
    at = f"bert.encoder.layer.{block}."
    return {
        **{part: f"{at}attention.self.{part}" for part in ("query", "key", "value")},
        "out": f"{at}attention.output.dense", "in": f"{at}intermediate.dense",
        "back": f"{at}output.dense",
    }  # fmt: skip


def norms(kind: str) -> list[str]:
    if kind == "vit":
        return [f"blocks.{b}.norm{i}" for b in range(DEPTH) for i in (1, 2)] + ["norm"]
    layers = [f"bert.encoder.layer.{b}.{part}output.LayerNorm"
              for b in range(DEPTH) for part in ("attention.", "")]  # fmt: skip
    return ["bert.embeddings.LayerNorm", *layers]


def paired_slots(kind: str, width: int, inner: int, gated: bool) -> dict[str, list[Slot]]:
    """Neurons by group: ``width`` attention dimensions and ``inner`` feed-forward neurons."""
    found: dict[str, list[Slot]] = {}
    for b in range(DEPTH):
        n = names(kind, b)
        if kind == "vit":
            w = f"{n['qkv']}.weight"
            at = {"q": [(w, i) for i in range(width)], "k": [(w, width + i) for i in range(width)],
                  "v": [(w, 2 * width + i) for i in range(width)]}  # fmt: skip
        else:
            at = {p[0]: [(f"{n[p]}.weight", i) for i in range(width)]
                  for p in ("query", "key", "value")}  # fmt: skip
        first = n.get("qkv", n.get("query"))
        out, up = f"{n['out']}.weight", f"{n['in']}{'.linear' if gated else ''}.weight"
        every = slice(None)
        found[f"{first}.query-key"] = [[at["q"][i], at["k"][i]] for i in range(width)]
        found[f"{n['out']}.value"] = [[at["v"][i], (out, (every, i))] for i in range(width)]
        found[n["in"]] = [[(up, i), (f"{n['back']}.weight", (every, i))] for i in range(inner)]
    return found


def released_slots(kind: str, width: int, inner: int, gated: bool) -> dict[str, list[Slot]]:
    found: dict[str, list[Slot]] = {}
    for b in range(DEPTH):
        n = names(kind, b)
        for layer in [n["qkv"]] if kind == "vit" else [n["query"], n["key"], n["value"]]:
            rows = range(3 * width if kind == "vit" else width)
            if gated:
                found[layer] = [[(f"{layer}.weight", i)] for i in rows]
            else:
                found[layer] = [
                    [(f"{layer}.{part}", i)]
                    for part in ("base.weight", "lora_product")
                    for i in rows
                ]
        up = f"{n['in']}{'.linear' if gated else ''}.weight"
        found[n["in"]] = [[(up, i)] for i in range(inner)]
        found[n["back"]] = [[(f"{n['back']}.weight", (slice(None), i))] for i in range(inner)]
    for norm in norms(kind):
        found[norm] = [[(f"{norm}.weight", slice(i, i + 1))] for i in range(WIDTH)]
    return found


def read(weights: Weights, slot: Slot) -> Tensor:
    return torch.cat([weights[name][where] for name, where in slot])


def write(weights: Weights, slot: Slot, values: Tensor) -> None:
    start = 0
    for name, where in slot:
        length = len(weights[name][where])
        weights[name][where] = values[start : start + length]
        start += length


class Case:
    """Knowledge base, model, index with random entries, and where neurons are."""

    def __init__(self, fm: FoundationModel, kind: str, which: str) -> None:
        self.kb = fm.clone()
        cut(self.kb, strongest(self.kb, 2))
        insert_gates(self.kb, 4)
        products: Weights = {}
        if which == "released":
            insert_lora(fm, 2, 2)
            products = {n: torch.randn_like(p) for n, p in lora_products(fm).items()}
        self.fm = fm
        self.k = {n: p.clone() for n, p in weights_of(self.kb).items()}
        self.f = {n: p.clone() for n, p in ({**weights_of(fm), **products}).items()}
        inner = 64 if kind == "vit" else 32
        slots = paired_slots if which == "paired" else released_slots
        self.small = slots(kind, WIDTH // 2, inner // 2, gated=True)
        self.large = slots(kind, WIDTH, inner, gated=False)
        groups = (paired_groups if which == "paired" else released_groups)(self.kb, fm)
        self.index = NeuronIndex(groups, self.k, self.f, 4 if which == "paired" else None)
        with torch.no_grad():
            for values in self.index.values:
                values.normal_()

    def matrices(self) -> dict[str, list[list[float]]]:
        """I by group, written out in full."""
        found = {}
        for i, group in enumerate(self.index.groups):
            values = self.index.values[i].detach()
            if hasattr(self.index, f"support_{i}"):
                support = getattr(self.index, f"support_{i}")
                full = torch.zeros(len(self.small[group.name]), len(self.large[group.name]))
                for row in range(len(values)):
                    for entry in range(values.shape[1]):
                        full[row, support[row, entry]] = values[row, entry]
                values = full
            found[group.name] = values.tolist()
        return found

    def combined(self, row: list[float], f: Weights, slots: list[Slot]) -> Tensor:
        """sum_j I_ij F_j."""
        total = torch.zeros_like(read(f, slots[0]))
        for j in range(len(slots)):
            if row[j] != 0:
                total += row[j] * read(f, slots[j])
        return total


@pytest.fixture(params=["paired", "released"])
def case(request: Any, build: Any, kind: str) -> Case:
    return Case(build(kind), kind, request.param)


def copied(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def moved(weights: Weights) -> Weights:
    torch.manual_seed(3)
    return {name: tensor + torch.randn_like(tensor) for name, tensor in weights.items()}


def require_equal(found: Weights, expected: Weights, before: Weights) -> None:
    """Equal; and exactly as before where the loops changed nothing."""
    for name, tensor in expected.items():
        if torch.equal(tensor, before[name]):
            assert torch.equal(found[name], before[name]), name
        else:
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


def test_groups_are_those_of_the_structure(case: Case) -> None:
    assert {g.name for g in case.index.groups} == set(case.small) == set(case.large)
    for name, matrix in case.matrices().items():
        assert len(matrix) == len(case.small[name])
        assert {len(row) for row in matrix} == {len(case.large[name])}


def test_loss_and_residuals_by_loops(case: Case) -> None:
    total, residuals = 0.0, {}
    for name, matrix in case.matrices().items():
        away = size = 0.0
        for i, slot in enumerate(case.small[name]):
            k = read(case.k, slot)
            away += float((case.combined(matrix[i], case.f, case.large[name]) - k).pow(2).sum())
            size += float(k.pow(2).sum())
        total += away
        residuals[name] = math.sqrt(away / size)
    assert case.index.loss(case.k, case.f).item() == pytest.approx(total, rel=1e-4)
    assert case.index.residuals(case.k, case.f) == pytest.approx(residuals, rel=1e-4)


def test_knowledge_base_to_model_by_loops(case: Case) -> None:
    """F_j += a sum_i I_ij (K_i - K_i before)."""
    before, expected = copied(case.k), copied(case.f)
    now = moved(case.k)
    for name, matrix in case.matrices().items():
        for i, slot in enumerate(case.small[name]):
            change = read(now, slot) - read(before, slot)
            for j, other in enumerate(case.large[name]):
                if matrix[i][j] != 0:
                    write(expected, other, read(expected, other) + 0.3 * matrix[i][j] * change)
    found, kept = copied(case.f), copied(now)
    case.index.to_fm(before, now, found, 0.3)
    require_equal(found, expected, case.f)
    assert all(torch.equal(now[n], kept[n]) for n in now)
    assert not torch.equal(found[next(iter(case.large.values()))[0][0][0]],
                           case.f[next(iter(case.large.values()))[0][0][0]])  # fmt: skip


def test_model_to_knowledge_base_by_loops(case: Case) -> None:
    """K_i = a sum_j I_ij F_j + (1 - a) K_i."""
    expected = copied(case.k)
    for name, matrix in case.matrices().items():
        for i, slot in enumerate(case.small[name]):
            read_off = case.combined(matrix[i], case.f, case.large[name])
            write(expected, slot, 0.3 * read_off + 0.7 * read(case.k, slot))
    found, kept = copied(case.k), copied(case.f)
    case.index.to_kb(found, case.f, 0.3)
    require_equal(found, expected, case.k)
    assert all(torch.equal(case.f[n], kept[n]) for n in kept)


def test_the_models_change_to_the_knowledge_base_by_loops(case: Case) -> None:
    """K_i += a sum_j I_ij (F_j - F_j before)."""
    now, expected = moved(case.f), copied(case.k)
    for name, matrix in case.matrices().items():
        for i, slot in enumerate(case.small[name]):
            gone = case.combined(matrix[i], now, case.large[name])
            gone = gone - case.combined(matrix[i], case.f, case.large[name])
            write(expected, slot, read(expected, slot) + 0.3 * gone)
    found, kept = copied(case.k), copied(now)
    case.index.change_to_kb(case.index.read(case.f), found, now, 0.3)
    require_equal(found, expected, case.k)
    assert all(torch.equal(now[n], kept[n]) for n in kept)


def test_a_model_that_did_not_change_leaves_the_knowledge_base(case: Case) -> None:
    found = copied(case.k)
    case.index.change_to_kb(case.index.read(case.f), found, case.f, 1.0)
    assert all(torch.equal(found[n], case.k[n]) for n in found)
    case.index.to_kb(found, case.f, 1.0)  # what this index, which fits nothing, does otherwise
    assert any(not torch.equal(found[n], case.k[n]) for n in found)


def test_rate_0_is_the_identity_and_rate_1_the_combination(case: Case) -> None:
    fm, kb, now = copied(case.f), copied(case.k), moved(case.k)
    case.index.to_fm(case.k, now, fm, 0.0)
    case.index.to_kb(kb, case.f, 0.0)
    assert all(torch.equal(fm[n], case.f[n]) for n in fm)
    assert all(torch.equal(kb[n], case.k[n]) for n in kb)
    case.index.to_kb(kb, case.f, 1.0)
    assert max(case.index.residuals(kb, case.f).values()) < 1e-5


def qkv_rows(weights: Weights, kind: str, size: int, part: int) -> Tensor:
    n = names(kind, 0)
    if kind == "vit":
        found = weights.get(f"{n['qkv']}.weight", weights.get(f"{n['qkv']}.base.weight"))
        assert found is not None
        return found[part * size : (part + 1) * size]
    own = n[("query", "key", "value")[part]]
    return weights[f"{own}.weight" if f"{own}.weight" in weights else f"{own}.base.weight"]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_query_key_and_value_do_not_mix(build, kind: str, part: int) -> None:
    case = Case(build(kind), kind, "paired")
    now, fm = copied(case.k), copied(case.f)
    qkv_rows(now, kind, WIDTH // 2, part).add_(1.0)
    case.index.to_fm(case.k, now, fm, 1.0)
    for other in range(3):
        same = torch.equal(qkv_rows(fm, kind, WIDTH, other), qkv_rows(case.f, kind, WIDTH, other))
        assert same == (other != part)
    touched = {name for name in fm if not torch.equal(fm[name], case.f[name])}
    assert len(touched) == 1


def test_as_released_a_fused_layers_query_key_and_value_mix(build) -> None:
    case = Case(build("vit"), "vit", "released")
    now, fm = copied(case.k), copied(case.f)
    qkv_rows(now, "vit", WIDTH // 2, 0).add_(1.0)
    case.index.to_fm(case.k, now, fm, 1.0)
    assert not torch.equal(qkv_rows(fm, "vit", WIDTH, 2), qkv_rows(case.f, "vit", WIDTH, 2))


def test_what_enters_and_what_leaves_a_neuron_goes_back_by_the_same_numbers(build, kind) -> None:
    case = Case(build(kind), kind, "paired")
    n = names(kind, 1)
    up, down = f"{n['in']}.weight", f"{n['back']}.weight"
    (place,) = [i for i, g in enumerate(case.index.groups) if g.name == n["in"]]
    support, values = getattr(case.index, f"support_{place}"), case.index.values[place]
    row = 3
    now, fm = copied(case.k), copied(case.f)
    now[f"{n['in']}.linear.weight"][row] += 1.0
    now[down][:, row] += 1.0
    case.index.to_fm(case.k, now, fm, 1.0)
    expected = torch.zeros(fm[up].shape[0])
    for a in range(support.shape[1]):
        expected[support[row, a]] = values[row, a].item()
    torch.testing.assert_close((fm[up] - case.f[up])[:, 5], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((fm[down] - case.f[down])[7], expected, rtol=1e-4, atol=1e-5)


def test_factorised_attention_is_left_out(build, kind) -> None:
    fm = build(kind)
    kb = fm.clone()
    cut(kb, strongest_heads(kb, 2))
    factorise(kb)
    insert_gates(kb, 4)
    assert [g.name for g in paired_groups(kb, fm)] == [names(kind, b)["in"] for b in range(DEPTH)]
    layers = [names(kind, b)[part] for b in range(DEPTH) for part in ("in", "back")]
    assert {g.name for g in released_groups(kb, fm)} == {*layers, *norms(kind)}


def plain(k: Tensor, f: Tensor, neurons: int | None) -> tuple[NeuronIndex, Weights, Weights]:
    kb, fm = {"w": k}, {"w": f}
    groups = [Group("layer", (Part("w"),), (Part("w"),))]
    return NeuronIndex(groups, kb, fm, neurons), kb, fm


def test_residual_of_an_exact_combination_is_0_and_of_an_empty_index_1() -> None:
    torch.manual_seed(0)
    f = torch.linalg.qr(torch.randn(6, 6)).Q  # orthogonal: which neurons matter is certain
    k = torch.stack([2 * f[1] - f[4], f[0] + 3 * f[5]])
    index, kb, fm = plain(k, f, 2)
    assert index.get_buffer("support_0").tolist() == [[1, 4], [0, 5]]
    assert index.values[0].detach().flatten().tolist() == pytest.approx([2, -1, 1, 3], abs=1e-2)
    assert index.residuals(kb, fm)["layer"] < 1e-3
    index, kb, fm = plain(k, f, None)
    assert index.residuals(kb, fm)["layer"] == pytest.approx(1.0)
    assert index.loss(kb, fm).item() == pytest.approx(float(k.pow(2).sum()))


def test_refitting_follows_the_weights_and_keeps_a_dense_index() -> None:
    torch.manual_seed(0)
    f = torch.randn(6, 4)
    index, kb, fm = plain(f[[1, 2]].clone(), f, 1)
    kb["w"].mul_(-3.0)
    index.refit(kb, fm)
    assert index.values[0].detach().flatten().tolist() == pytest.approx([-3, -3], rel=1e-3)
    dense, kb, fm = plain(f[:2], f, None)
    dense.refit(kb, fm)
    assert not dense.values[0].any()


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_residual_above_the_limit_is_an_error_with_its_cure(which: str, value: float) -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    groups = [Group(name, (Part(name),), (Part(name),)) for name in weights]
    index = NeuronIndex(groups, weights, weights, 1)
    index.require_residual(weights, weights, 0.5, 0.45)
    place, name = (0, "a") if which == "first" else (1, "b")
    with torch.no_grad():
        index.values[place].fill_(value)
    said = {0.0: "1"}.get(value, str(value))
    with pytest.raises(
        BenchError,
        match=rf"residual of {name} is {said}, and fm_to_kb 0\.5 times it is above max_residual "
        r"0\.45: .*; use model_feedback: change",
    ):
        index.require_residual(weights, weights, 0.5, 0.45)
    index.require_residual(weights, weights, 0.5, None)


def test_the_limit_is_of_the_residual_times_the_rate() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(3, 4)}
    index = NeuronIndex([Group("a", (Part("a"),), (Part("a"),))], weights, weights, 1)
    with torch.no_grad():
        index.values[0].fill_(0.6)
    moved = {"a": weights["a"].clone()}
    index.to_kb(moved, weights, 0.25)
    away = float((moved["a"] - weights["a"]).norm() / weights["a"].norm())
    assert away == pytest.approx(0.25 * 0.4, rel=1e-5)
    index.require_residual(weights, weights, 0.25, 0.1001)
    with pytest.raises(BenchError, match=r"is 0\.4, and fm_to_kb 0\.25 times it is above"):
        index.require_residual(weights, weights, 0.25, 0.0999)


def test_the_neurons_most_alike_by_loops() -> None:
    torch.manual_seed(0)
    k, f = torch.randn(5, 7), torch.randn(9, 7)
    for i, chosen in enumerate(_most_alike(k, f, 3).tolist()):
        along = [abs(float(k[i] @ f[j])) / float(f[j].norm()) for j in range(9)]
        assert chosen == sorted(sorted(range(9), key=lambda j: -along[j])[:3])


def test_least_squares_are_numpys() -> None:
    """Damped by 1e-4 of the atoms' mean square, as a row of sqrt(damping) for each entry."""
    torch.manual_seed(0)
    k, f = torch.randn(5, 7), torch.randn(9, 7)
    support = _most_alike(k, f, 3)
    found = _least_squares(k, f, support)
    for i in range(5):
        atoms = f[support[i]].numpy().astype(float).T
        free, *_ = np.linalg.lstsq(atoms, k[i].numpy().astype(float), rcond=None)
        damping = 1e-4 * (atoms**2).sum(axis=0).mean()
        wide = np.concatenate([atoms, np.sqrt(damping) * np.eye(3)])
        damped, *_ = np.linalg.lstsq(wide, np.r_[k[i].numpy(), np.zeros(3)], rcond=None)
        np.testing.assert_allclose(found[i].numpy(), damped, atol=1e-5)
        np.testing.assert_allclose(found[i].numpy(), free, atol=5e-3)


def test_neurons_that_are_zero_do_not_break_the_fit() -> None:
    index, kb, fm = plain(torch.zeros(2, 3), torch.zeros(4, 3), 2)
    assert index.values[0].isfinite().all()
    assert index.residuals(kb, fm) == {"layer": 0.0}
