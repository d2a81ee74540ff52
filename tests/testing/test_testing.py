"""What ships for the tests of plugins: small parts that say what happened to them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import registry
from bench.contracts.model import Block
from bench.contracts.stream import Split
from bench.errors import BenchError, DeviceOutOfMemory
from bench.testing import (
    CountingMethod,
    LearningMethod,
    TinyModel,
    TinyModelConfig,
    TinyStream,
    TinyStreamConfig,
    isolated_registry,
    make_cell,
    make_device,
    make_record,
    run_method,
)

PLUGIN = (
    "from bench import register\nfrom bench.testing import CountingMethod\n\n\n"
    '@register("method", "mine")\nclass Mine(CountingMethod):\n    """Mine."""\n'
)


def numbers(split: Split) -> list[float]:
    return sorted(split.x[:, 1].tolist())


def test_samples_say_their_domain_their_split_and_their_number() -> None:
    stream = TinyStream(TinyStreamConfig(domains=3, samples=5, tests=2))
    assert stream.domain_names() == ("first", "second", "third")
    for place, domain in enumerate([stream.source(), *map(stream.domain, stream.NAMES)]):
        for split in (domain.adaptation, domain.test):
            assert set(split.x[:, 0].tolist()) == {float(place)}
            assert torch.equal(split.y, split.x[:, 1].long() % 2)
        assert numbers(domain.adaptation) == [0, 1, 2, 3, 4]
        assert numbers(domain.test) == [100, 101]


def test_the_seed_orders_target_samples_and_leaves_the_source() -> None:
    config = TinyStreamConfig(samples=50)
    one, two, again = (TinyStream(config, seed) for seed in (1, 2, 1))
    assert torch.equal(one.source().adaptation.x, two.source().adaptation.x)
    first = one.domain("first").adaptation
    assert torch.equal(first.x, again.domain("first").adaptation.x)
    assert not torch.equal(first.x, two.domain("first").adaptation.x)


def test_the_model_is_two_layers_around_a_norm_or_what_it_wraps() -> None:
    torch.manual_seed(0)
    model = TinyModel.build(TinyModelConfig(width=5), (2, 3), 4)
    x = torch.randn(7, 2, 3)
    body, norm, head = model.module.body, model.module.norm, model.module.head
    hidden = torch.tanh(norm(x.reshape(7, 6) @ body.weight.t() + body.bias))
    outputs, features = model.with_features(x)
    torch.testing.assert_close(features, hidden)
    torch.testing.assert_close(outputs, hidden @ head.weight.t() + head.bias)
    assert model.blocks() == []
    block = Block(qkv=("0",), out="0", ff_in="0", ff_out="0", heads=1)
    layers = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    wrapped = TinyModel(layers, "1", [block]).clone()
    assert torch.equal(wrapped.head.weight, layers[1].weight)
    assert wrapped.blocks() == [block]


@pytest.mark.parametrize(("name", "batches"), [("periodic", [4, 4, 2]), ("online", [4, 4, 2])])
def test_a_method_that_counts_is_given_every_sample_once(name: str, batches: list[int]) -> None:
    method = CountingMethod()
    result = run_method(method, name=name, batch_size=4)
    assert [len(samples) for _, samples in method.given] == batches * 2
    assert [domain for domain, _ in method.given] == ["first"] * 3 + ["second"] * 3
    assert [stage.charges["toy"].steps for stage in result.stages] == [3, 3]
    assert all((s.adaptation_samples, s.test_samples) == (10, 4) for s in result.stages)


def test_the_method_that_learns_takes_the_formulas_step() -> None:
    stream = TinyStream(TinyStreamConfig(domains=1, samples=6))
    torch.manual_seed(0)
    model = TinyModel(nn.Linear(2, 2), "")
    weight, bias = (p.detach().clone() for p in model.module.parameters())
    split = stream.domain("first").adaptation
    probabilities = (split.x @ weight.t() + bias).softmax(1)
    gradient = (probabilities - nn.functional.one_hot(split.y, 2)).t() @ split.x / 6
    run_method(LearningMethod(), model=model, stream=stream, labelled=True, batch_size=6)
    torch.testing.assert_close(model.module.weight.detach(), weight - 0.1 * gradient)


def test_without_labels_it_learns_its_own_decisions() -> None:
    stream = TinyStream(TinyStreamConfig(domains=1, samples=6))
    torch.manual_seed(0)
    model = TinyModel(nn.Linear(2, 2), "")
    weight, bias = (p.detach().clone() for p in model.module.parameters())
    x = stream.domain("first").adaptation.x
    logits = x @ weight.t() + bias
    decisions = nn.functional.one_hot(logits.argmax(1), 2)
    gradient = (logits.softmax(1) - decisions).t() @ x / 6
    run_method(LearningMethod(), model=model, stream=stream, batch_size=6)
    torch.testing.assert_close(model.module.weight.detach(), weight - 0.1 * gradient)


def test_a_small_window_closes_and_a_small_device_has_no_room() -> None:
    class Launches(CountingMethod):
        def adapt(self, domain, window):
            for batch in window.steps(domain.batches()):
                batch.x + 1  # one launch: one second
                self.given.append((domain.name, batch.sample_ids.tolist()))

    method = Launches()
    result = run_method(method, batch_size=2, window_s=3)
    assert [stage.window_closed for stage in result.stages] == [True, True]
    assert [stage.charges["toy"].time_s for stage in result.stages] == [3.0, 3.0]
    assert len(method.given) == 6
    with pytest.raises(DeviceOutOfMemory):
        run_method(Launches(), device=make_device(memory=10.0))


def test_the_source_is_closed_after_prepare_unless_the_method_needs_it() -> None:
    class Keeps(CountingMethod):
        def prepare(self, model, source):
            super().prepare(model, source)
            self.source = source

        def adapt(self, domain, window):
            assert len(self.source) == 10

    with pytest.raises(BenchError, match="needs = \\('source_data',\\)"):
        run_method(Keeps())
    Keeps.needs = ("source_data",)
    run_method(Keeps())


def test_runs_are_equal_for_equal_seeds() -> None:
    one, two = (run_method(LearningMethod(), seed=5, batch_size=3) for _ in range(2))
    assert one == two


def test_cells_and_records_have_what_is_asked_for() -> None:
    assert make_cell().identity == make_cell().identity != make_cell(seed=4).identity
    record = make_record(cell=make_cell(seed=4), status="oom")
    assert (record.identity, record.status) == (make_cell(seed=4).identity, "oom")
    assert make_record().cell == make_cell()
    device = make_device("mine", launch=2.0, reach={"matmul": (0.5, 1.0)})
    assert (device.name, device.launch_overhead.value) == ("mine", 2.0)
    assert device.efficiency["matmul"].flops.value == 0.5
    assert math.isclose(device.energy_per_byte.value, 1e-30)


def test_what_is_added_in_an_isolated_registry_is_forgotten(tmp_path: Path) -> None:
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    for file in files:
        file.write_text(PLUGIN)
    with isolated_registry():
        registry.add_plugin(files[0])
        assert registry.entry("method", "mine").file == files[0].resolve()
        with isolated_registry():
            assert "mine" not in registry.entries("method")
            registry.add_plugin(files[1])
            assert registry.entry("method", "mine").file == files[1].resolve()
        assert registry.entry("method", "mine").file == files[0].resolve()
        assert issubclass(registry.load("method", "mine"), CountingMethod)
    assert "mine" not in registry.entries("method")


def test_it_is_forgotten_after_an_error_too(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text(PLUGIN)

    def fails() -> None:
        with isolated_registry():
            registry.add_plugin(file)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert "mine" not in registry.entries("method")


def test_importing_bench_imports_neither_the_parts_for_tests_nor_torch() -> None:
    code = "import bench, sys; print('torch' in sys.modules, 'bench.testing' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
