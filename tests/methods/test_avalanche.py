"""What all methods that Avalanche trains promise: charged steps, copies in memory, resuming."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from bench import registry
from bench.contracts.model import FoundationModel
from bench.errors import LabelsHidden
from bench.operators.live_memory import live_tensors

NAMES = ("ewc", "mas", "si", "lwf", "gem", "a-gem", "replay", "der++", "joint")
BUFFERS = {
    "gem": {"memory_size": 9},
    "a-gem": {"memory_size": 9, "sample_size": 4},
    "replay": {"memory_size": 7},
    "der++": {"memory_size": 7},
}
every_method = pytest.mark.parametrize("name", NAMES)


def make(name, **settings):
    method = registry.load("method", name)
    return method(method.Config(**{**BUFFERS.get(name, {}), "learning_rate": 0.01, **settings}))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


def live_bytes(*things):
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in live_tensors(list(things))}
    return sum(s.nbytes() for s in storages.values())


@every_method
def test_literals(name):
    """Listing reads them from the class itself, so each file states them."""
    facts = registry.entry("method", name).facts
    assert facts["family"] == ("reference" if name == "joint" else "CL")
    assert facts["shifts"] == ("domain", "class")
    assert facts["protocols"] == ("periodic",)
    assert facts["preload"] == ("bench.methods.avalanche.without_wandb",)
    assert "target_labels" in facts["needs"]
    assert ("replay_memory" in facts["needs"]) == (name in BUFFERS or name == "joint")
    assert facts["equation"]


@every_method
def test_the_views_order_is_everybodys_and_every_step_is_charged(name, model, data, view, adapt):
    method = make(name, epochs=2)
    method.prepare(model, view(*data(10), batch_size=4))
    mine, twin = view(*data(10, 2), batch_size=4, seed=5), view(*data(10, 2), batch_size=4, seed=5)
    assert adapt(method, mine).counts == {"adapt": 6, "consolidation": 1}
    assert len(list(twin.batches(2))) == 6
    assert torch.equal(mine.rng_state, twin.rng_state)


@every_method
def test_nothing_of_a_domain_stays_but_what_is_kept(name, model, data, view, adapt):
    x, y = data(12)
    source = view(x, y, batch_size=4)
    method = make(name)
    method.prepare(model, source)
    references = []
    for seed in (2, 3):
        x, y = data(10, seed)
        references += [weakref.ref(t.untyped_storage()) for t in (x, y)]
        domain = view(x, y, batch_size=4)
        adapt(method, domain)
        domain.close("over")
        del x, y, domain
    assert [r() for r in references] == [None] * 4

    parameters, sample, label = len(weights(model)), 6 * 8, 8
    kept = {
        "ewc": (8 + 4) * parameters,  # weights, and importances in single precision
        "mas": (8 + 4) * parameters,
        "si": 3 * 8 * parameters,
        "lwf": 8 * parameters,
        "gem": 9 * (sample + 2 * label),  # with task labels
        "a-gem": 9 * (sample + label),
        "replay": 7 * (sample + label + 4),  # with the reservoirs' weights
        "der++": 7 * (sample + label + 3 * 8 + 4),
        "joint": 20 * (sample + label),
    }
    loss = 4  # Avalanche keeps a scalar
    everybodys = live_bytes(method.model, method.optimizer)
    assert live_bytes(method.stored()) - everybodys - loss == kept[name]


@every_method
def test_a_saved_state_goes_on_bit_for_bit(name, model, data, view, adapt):
    twin_model = model.clone()
    method, twin = make(name), make(name)
    source = data(10)
    method.prepare(model, view(*source, batch_size=4))
    adapt(method, view(*data(10, 2), batch_size=4), view(*data(10, 3), batch_size=4))
    file = io.BytesIO()
    torch.save(method.state(), file)
    torch.manual_seed(99)
    file.seek(0)
    twin.prepare(twin_model, view(*source, batch_size=4))
    twin.load_state(torch.load(file, weights_only=True))
    for one in (method, twin):
        adapt(one, view(*data(10, 4), batch_size=4), view(*data(10, 5), batch_size=4))
    assert torch.equal(weights(model), weights(twin_model))
    ours, theirs = (list(live_tensors(one.state())) for one in (method, twin))
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@every_method
def test_a_copy_of_all_attributes_goes_its_own_way(name, model, data, view, adapt):
    """The protocol's reset puts a deep copy of what was prepared back before each domain."""
    method = make(name)
    method.prepare(model, view(*data(10), batch_size=4))
    start = copy.deepcopy(vars(method))
    adapt(method, view(*data(10, 2), batch_size=4))
    once = weights(method.model)
    vars(method).clear()
    vars(method).update(start)
    assert not torch.equal(weights(method.model), once)
    adapt(method, view(*data(10, 2), batch_size=4))
    assert torch.equal(weights(method.model), once)


@every_method
def test_a_window_that_closes_in_a_domain_leaves_the_method_sound(name, model, data, view, adapt):
    method = make(name, epochs=20)
    method.prepare(model, view(*data(8), batch_size=4))
    first = adapt(method, view(*data(8, 2), batch_size=4))
    assert first.counts["adapt"] == 40
    step_s = first.devices[0].expected_s(("adapt", (4, 6)))
    # Half a step on top: a first step has no optimizer state to update yet.
    cut = adapt(method, view(*data(8, 3), batch_size=4), budget_s=9.5 * step_s)
    assert 5 <= cut.counts["adapt"] <= 14
    assert cut.counts["consolidation"] == 1
    again = adapt(method, view(*data(8, 4), batch_size=4))
    assert again.counts == {"adapt": 40, "consolidation": 1}
    assert weights(model).isfinite().all()


@every_method
def test_work_goes_by_batches_not_by_samples(name, model, data, view, adapt):
    """Importances from each batch's gradient; by default `ewc` and `mas` take each sample's."""
    by_batch = {"per_sample": False} if name in ("ewc", "mas") else {}

    def launches(n):
        method = make(name, epochs=1, **by_batch)
        method.prepare(model.clone(), view(*data(8), batch_size=n))
        x, y = data(n, 2)
        y[:3] = torch.arange(3)
        tracker = adapt(method, view(x, y, batch_size=n))
        return [tracker._traces["adapt", (n, 6)].launches] + [
            trace.launches
            for (kind, _), trace in tracker._traces.items()
            if kind == "consolidation"
        ]

    few, many = launches(8), launches(64)
    slack = 40 if "gem" in name else 0  # a projected step takes some more operators
    assert all(abs(a - b) <= slack for a, b in zip(few, many, strict=True))


@every_method
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_of_one_short_last_ones_and_one_class(name, batch_size, model, data, view, adapt):
    method = make(name, epochs=1)
    x, _ = data(4)
    method.prepare(model, view(x, torch.zeros(4, dtype=torch.int64), batch_size=batch_size))
    x, _ = data(4, 2)
    adapt(method, view(x, torch.ones(4, dtype=torch.int64), batch_size=batch_size))
    adapt(method, view(*data(1, 3), batch_size=batch_size))
    assert weights(model).isfinite().all()


@every_method
def test_more_domains_than_memory(name, model, data, view, adapt):
    small = {"replay": {"memory_size": 2}, "der++": {"memory_size": 2}}
    small["a-gem"] = {"memory_size": 2, "sample_size": 2}
    small["gem"] = {"memory_size": 2}
    method = make(name, epochs=1, **small.get(name, {}))
    method.prepare(model, view(*data(4), batch_size=4))
    adapt(method, *(view(*data(4, seed), batch_size=4) for seed in range(2, 6)))
    assert weights(model).isfinite().all()


def kept_of_each_domain(method):
    """Samples in memory by the inputs' first number, which names the domain here."""
    held = method.stored().get("plugin", method.strategy)
    memories = getattr(held, "memory_x", None)
    if memories is not None:
        parts = list(memories.values())
    else:
        groups = getattr(held, "buffers", None) or getattr(held, "groups", None)
        parts = [kept.x for kept in groups or held.storage_policy.groups]
    return torch.cat(parts)[:, 0].int().bincount().tolist()


@pytest.mark.parametrize("name", ["gem", "a-gem", "replay", "der++"])
def test_memories_are_equal_totals_whatever_the_stream_is_long(name, model, data, view, adapt):
    """What each domain keeps is a part of what it kept before; a total by default the same."""
    method_class = registry.load("method", name)
    assert method_class.Config().memory_size == 200
    method = method_class(method_class.Config(memory_size=10, epochs=1))
    counts = []
    for place in range(4):
        x, y = data(12, place)
        x[:, 0] = place
        domain = view(x, y, batch_size=6)
        if place == 0:
            method.prepare(model, domain)
        else:
            adapt(method, domain)
        counts.append(kept_of_each_domain(method))
    assert [sum(each) for each in counts] == [10] * 4
    if name != "der++":  # of equal shares of classes
        assert [sorted(each, reverse=True) for each in counts] == [
            [10], [5, 5], [4, 3, 3], [3, 3, 2, 2],
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["gem", "a-gem"])
def test_a_memory_for_each_domain_grows_with_the_stream(name, model, data, view, adapt):
    method_class = registry.load("method", name)
    method = method_class(method_class.Config(patterns_per_domain=4, epochs=1))
    for place in range(3):
        x, y = data(12, place)
        x[:, 0] = place
        if place == 0:
            method.prepare(model, view(x, y, batch_size=6))
        else:
            adapt(method, view(x, y, batch_size=6))
    assert kept_of_each_domain(method) == [4, 4, 4]


@every_method
def test_bfloat16(name, model, data, view, adapt):
    model.module.bfloat16()
    method = make(name)
    x, y = data(10)
    method.prepare(model, view(x.bfloat16(), y, batch_size=4))
    before = weights(model)
    x, y = data(10, 2)
    adapt(method, view(x.bfloat16(), y, batch_size=4), view(-x.bfloat16(), y, batch_size=4))
    assert weights(model).dtype == torch.bfloat16
    assert weights(model).isfinite().all()
    assert not torch.equal(weights(model), before)


class TwoInputs(FoundationModel):
    """A model with a dict of inputs, whose call is not its module's."""

    @classmethod
    def build(cls, config=None, input_shape=(6,), classes=3):
        return cls(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, classes)))

    def blocks(self):
        return []

    def __call__(self, x):
        return self.module(x["left"] * x["mask"])


@every_method
def test_inputs_in_a_dict_and_a_models_own_call(name, data, view, adapt):
    def inputs(seed):
        x, y = data(10, seed)
        return {"left": x.float(), "mask": (x > 0).float()}, y

    torch.manual_seed(0)
    model = TwoInputs.build()
    method = make(name)
    method.prepare(model, view(*inputs(1), batch_size=4))
    adapt(method, view(*inputs(2), batch_size=4), view(*inputs(3), batch_size=4))
    file = io.BytesIO()
    torch.save(method.state(), file)
    file.seek(0)
    method.load_state(torch.load(file, weights_only=True))
    adapt(method, view(*inputs(4), batch_size=4))
    assert weights(model).isfinite().all()


@every_method
def test_without_labels_it_is_told_why_there_are_none(name, model, data, view, adapt):
    method = make(name)
    method.prepare(model, view(*data(4), batch_size=4))
    with pytest.raises(LabelsHidden, match="supervised_references"):
        adapt(method, view(data(6)[0]))


def test_avalanche_comes_without_wandb_which_can_still_be_imported(tmp_path):
    """Each import of wandb would leave a folder: a run's process ends without cleaning up."""
    script = (
        "import os, sys\n"
        "import bench.methods.avalanche.without_wandb\n"
        "assert 'avalanche.training' in sys.modules and 'wandb' not in sys.modules\n"
        "import bench.methods.avalanche.plugins\n"
        "assert 'wandb' not in sys.modules\n"
        "os._exit(0)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", script], env=environment, check=True, timeout=240)
    assert not [path for path in tmp_path.iterdir() if "wandb" in path.name]
