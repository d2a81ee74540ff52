"""What every test-time method must stand: batches of one, short batches, bfloat16, a restart."""

from __future__ import annotations

import copy
import importlib
import io

import pytest
import torch
from torch import nn

from bench.contracts.data import DomainView
from bench.contracts.method import search_space
from bench.contracts.stream import Split
from bench.contracts.task import make_task
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.run.evaluator import Evaluator
from bench.run.window import Window
from bench.testing import TinyModel, make_device

METHODS = {  # module, class, settings under which even a few samples of a raw network count
    "tent": ("Tent", {}),
    "shot": ("Shot", {}),
    "eata": ("Eata", {"entropy_share": 1.0, "max_similarity": 1.0}),
    "cotta": ("Cotta", {"augmentations": 2, "restore_probability": 0.2}),
    "sar": ("Sar", {"entropy_share": 1.0}),
    "rotta": ("Rotta", {"update_every": 2, "capacity": 4}),
    "lame": ("Lame", {}),
    "memo": ("Memo", {"views": 2}),
    "t3a": ("T3a", {"supports": 2}),
    "pseudo_label": ("PseudoLabel", {"threshold": 0.0}),
}
LEARNS_NO_WEIGHTS = ("lame", "memo", "t3a")


class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.body = nn.Linear(64, 8)
        self.norm = norm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.body(x.flatten(1)))))


def build(norm=nn.LayerNorm):
    torch.manual_seed(0)
    return TinyModel(Net(norm))


def images(n, seed=0, dtype=torch.float32):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def view(x, batch_size, seed=0, single_pass=False):
    return DomainView("d", x, None, batch_size, torch.Generator().manual_seed(seed), single_pass)


def prepared(name, model, **more):
    cls, settings = METHODS[name]
    cls = getattr(importlib.import_module(f"bench.methods.{name}"), cls)
    method = cls(cls.Config(**settings | more))
    dtype = next(model.module.parameters()).dtype
    torch.manual_seed(7)
    method.prepare(model, view(images(6, seed=9, dtype=dtype), 4))
    return method


def adapt(method, *views):
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    with Window(tracker, 1e9, model=lambda: method.model.module) as window:
        for each in views:
            method.adapt(each, window)
    return tracker


@torch.no_grad()
def outputs(method, x):
    return method.predict(x)


def require_finite_and_changed(name, method, model, before):
    x = images(3, seed=5, dtype=next(model.module.parameters()).dtype)
    got = outputs(method, x)
    assert got.shape == (3, 3)
    assert got.isfinite().all()
    assert all(p.isfinite().all() for p in model.module.parameters())
    same = all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert same == (name in LEARNS_NO_WEIGHTS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("n", "batch_size"), [(2, 1), (5, 2)])
def test_batches_of_one_and_a_short_last_batch(name, n, batch_size):
    model = build()
    before = copy.deepcopy(model.module.state_dict())
    method = prepared(name, model)
    adapt(method, view(images(n), batch_size))
    require_finite_and_changed(name, method, model, before)
    assert outputs(method, images(1)).shape == (1, 3)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16(name):
    """Steps large enough to move a bfloat16 weight, whose neighbours are 2^-8 apart."""
    model = build()
    model.module.to(torch.bfloat16)
    before = copy.deepcopy(model.module.state_dict())
    more = {} if name in LEARNS_NO_WEIGHTS else {"learning_rate": 0.1}
    method = prepared(name, model, **more)
    adapt(method, view(images(5, dtype=torch.bfloat16), 2))
    require_finite_and_changed(name, method, model, before)
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", METHODS)
def test_batchnorm(name):
    model = build(nn.BatchNorm1d)
    before = {k: v for k, v in copy.deepcopy(model.module.state_dict()).items() if "track" not in k}
    method = prepared(name, model)
    adapt(method, view(images(8), 4))
    got = outputs(method, images(3, seed=5))
    assert got.isfinite().all()
    state = model.module.state_dict()
    assert all(torch.equal(state[k], v) for k, v in before.items()) == (name in LEARNS_NO_WEIGHTS)


@pytest.mark.parametrize("name", METHODS)
def test_a_restart_in_mid_stream_changes_no_bit(name):
    """Saved after one domain and loaded by another process, under another global seed."""
    model = build()
    twin = model.clone()
    first, second, test = images(7, 1), images(9, 2), images(4, 3)
    method = prepared(name, model)
    adapt(method, view(first, 4))
    file = io.BytesIO()
    torch.save(method.state(), file)
    adapt(method, view(second, 4))

    file.seek(0)
    resumed = prepared(name, twin)
    resumed.load_state(torch.load(file, weights_only=True))
    torch.manual_seed(123)
    adapt(resumed, view(second, 4))
    assert torch.equal(outputs(method, test), outputs(resumed, test))
    for a, b in zip(
        model.module.state_dict().values(), twin.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", METHODS)
def test_prediction_only_reads(name):
    """The protocol's own check, which looks at every tensor that the method holds."""
    method = prepared(name, build())
    adapt(method, view(images(6), 3))
    test = Split(images(5), torch.zeros(5, dtype=torch.int64))
    classes = method.predict(test.x).shape[1]
    tracker = make_tracker([make_device()], list)
    first, second = (
        Evaluator(method, tracker, 2, make_task("classification"), classes).scores(
            test, "a test split"
        )
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("name", METHODS)
def test_an_online_stream_gives_each_batch_once(name):
    more = {} if name in LEARNS_NO_WEIGHTS else {"epochs": 5}
    method = prepared(name, build(), **more)
    tracker = adapt(method, *(view(images(3, seed), 3, single_pass=True) for seed in range(4)))
    updates = sum(n for kind, n in tracker.counts.items() if kind.startswith("adapt"))
    assert updates == (0 if name in ("lame", "memo") else 4)


@pytest.mark.parametrize("name", METHODS)
def test_a_copied_state_is_independent(name):
    """As the protocol's reset before each domain does it."""
    method = prepared(name, build())
    adapt(method, view(images(6, 1), 3))
    kept, test = copy.deepcopy(vars(method)), images(3, seed=5)
    before = outputs(method, test)
    adapt(method, view(images(6, 2), 3))
    vars(method).clear()
    vars(method).update(kept)
    assert torch.equal(outputs(method, test), before)
    adapt(method, view(images(6, 2), 3))


@pytest.mark.parametrize("name", METHODS)
def test_declarations(name):
    cls = getattr(importlib.import_module(f"bench.methods.{name}"), METHODS[name][0])
    assert cls.family == "UDA"
    assert (cls.shifts, cls.protocols) == (("domain",), ("periodic", "online"))
    assert cls.equation
    assert "\n" not in cls.equation
    assert 1 <= len(list(search_space(cls.Config))) <= 5
    for field in search_space(cls.Config):
        assert field.holds(cls.Config.model_fields[field.name].default)
