"""Whole runs on a GPU, over a driver and tensors that stand for one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_nvml import FakeGpu, FakeNvml
from tagged_gpu import MixedDevices, tagged_gpu

from bench import registry, run_suite
from bench.contracts.model import SourceTraining
from bench.errors import BenchError
from bench.records.record import Record
from bench.run.results import ending
from bench.testing import CountingMethod, LearningMethod, TinyModel, TinyStream

SUITE = """
name: tiny
description: Small parts.
stream: tiny-stream
model: tiny-model
methods: [learning]
seeds: 1
devices: [{device}]
protocol: {{batch_size: 4}}
"""


class Trained(TinyModel):
    source_training = SourceTraining(epochs=2, batch_size=4)


class Shifts(TinyStream):
    """Two small domains."""


class Learning(LearningMethod):
    """Takes gradient steps."""


class Halved(LearningMethod):
    """Fails where products are not in bfloat16."""

    def predict(self, x: Any) -> torch.Tensor:
        outputs = super().predict(x)
        assert outputs.dtype == torch.bfloat16
        return outputs


class Mixing(CountingMethod):
    """Adds a tensor of the CPU to what is predicted."""

    def predict(self, x: Any) -> torch.Tensor:
        out = self.model(x)
        return out + torch.zeros(out.shape)


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # put back after the test
        monkeypatch.delenv(name)
    with registry.isolated():
        registry.register("stream", "tiny-stream")(Shifts)
        registry.register("model", "tiny-model")(Trained)
        registry.register("method", "learning")(Learning)
        registry.register("method", "mixing")(Mixing)
        registry.register("method", "halved")(Halved)
        yield


def run(tmp_path: Path, device: str = "xavier-nx", **how: Any) -> Record:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE.format(device=device))
    store = tmp_path / "store"
    (record,) = run_suite(suite, store=store, executor="inline", **how).records
    return record


def driver(monkeypatch: pytest.MonkeyPatch, **gpu: Any) -> FakeNvml:
    fake = FakeNvml(FakeGpu("GPU-aaaa-1", **gpu))
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    return fake


def test_a_run_on_a_gpu_is_a_cell_of_its_own_with_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)
    cpu = run(tmp_path)
    with tagged_gpu():
        gpu = run(tmp_path, accelerator="cuda")
    assert (cpu.status, gpu.status) == ("ok", "ok"), gpu.reason
    assert gpu.identity != cpu.identity
    assert gpu.cell.title == cpu.cell.title.replace(" · seed", " · cuda · seed")
    assert cpu.results is not None
    assert gpu.results is not None
    found, expected = (
        each.results.costs.model_dump(exclude={"tracing_s"}) for each in (gpu, cpu) if each.results
    )
    assert found == expected
    assert gpu.results.domains == cpu.results.domains
    facts = gpu.environment["accelerator"]
    assert facts["gpu"] == "Made-up 9000"
    assert facts["gpu_uuid"] == "GPU-aaaa-1"
    assert facts["deterministic"] is True
    assert facts["tf32"] is False
    assert "accelerator" not in cpu.environment


def test_weights_that_a_gpu_made_are_kept_apart_and_give_the_same_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)
    with tagged_gpu():
        cold = run(tmp_path, accelerator="auto")
        (kept,) = (tmp_path / "cache" / "source-models").glob("*.pt")
        (tmp_path / "store" / "records" / f"{cold.identity}.json").unlink()
        warm = run(tmp_path, accelerator="cuda:GPU-aaaa")
    assert kept.stem.endswith("-cuda")
    weights = torch.load(kept, weights_only=True)
    assert all(not tensor.is_cuda for tensor in weights.values())
    assert cold.identity == warm.identity
    assert cold.results is not None
    assert warm.results is not None
    assert cold.results.domains == warm.results.domains
    assert cold.source_model == warm.source_model


def test_a_method_that_mixes_devices_fails_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)
    assert run(tmp_path, methods="mixing").status == "ok"
    with tagged_gpu():
        record = run(tmp_path, methods="mixing", accelerator="cuda")
    assert record.status == "failed"
    assert MixedDevices.__name__ in record.reason


def test_time_memory_and_energy_are_the_gpus_where_the_host_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch, processes={4711: 9_000_000})
    waits: list[None] = []
    with tagged_gpu():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
        record = run(tmp_path, "host", accelerator="cuda")
    assert record.status == "ok", record.reason
    assert record.results is not None
    costs = record.results.costs
    steps = sum(costs.steps.values())
    assert len(waits) >= 2 * steps + 2  # before and after each, and around a prediction
    assert costs.peak_memory.value == 3_000_000
    assert costs.resident_memory is not None
    assert costs.resident_memory.value == 5_000_000
    assert costs.runtime_memory.value == 9_000_000 - 4_000_000
    process = costs.get("process_memory")
    assert process is not None
    assert process.value == 9_000_000
    assert "until the GPU is done" in costs.adaptation_time.how
    assert costs.adaptation_energy.kind == "unavailable"
    assert "is shared: processes 4711 compute on it too" in costs.adaptation_energy.how


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        ({"mig": True}, r"divided (MIG)"),
        ({"millijoules": ()}, "gives no total energy: Not Supported"),
    ],
)
def test_energy_that_cannot_be_read_is_unavailable_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: dict[str, Any], reason: str
) -> None:
    driver(monkeypatch, **gpu)
    with tagged_gpu():
        record = run(tmp_path, "host", accelerator="cuda")
    assert record.status == "ok", record.reason
    assert record.results is not None
    assert record.results.costs.adaptation_energy.value is None
    assert reason in record.results.costs.adaptation_energy.how


def test_memory_that_runs_out_on_a_gpu_is_an_oom_record() -> None:
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    found = ending(error)
    assert (found["status"], found["oom_on"]) == ("oom", "host")
    assert found["reason"] == "GPU memory: CUDA out of memory. Tried to allocate 20.00 GiB."


def test_without_a_gpu_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(works=False))  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="--accelerator cuda: no GPU can be used here; take cpu"):
        run(tmp_path, accelerator="cuda")
    assert not (tmp_path / "store").exists()


def test_threads_are_part_of_the_identity_and_of_no_run_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)
    one, two = run(tmp_path), run(tmp_path, threads=2)
    assert one.identity != two.identity
    assert "threads" not in one.cell.model_dump()
    assert "2 threads" in two.cell.title
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    with pytest.raises(BenchError, match="--threads 2: is for runs on the CPU"):
        run(tmp_path, accelerator="cuda", threads=2)


def test_threads_of_a_suite_that_do_not_apply_on_a_gpu_are_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)
    plain = run(tmp_path)
    monkeypatch.setitem(globals(), "SUITE", SUITE + "threads: 4\n")
    told = "suite tiny: threads: 4 is for runs on the CPU and does not apply: runs on a GPU have 1"
    with tagged_gpu(), pytest.warns(UserWarning, match=told):
        record = run(tmp_path, accelerator="cuda")
    assert record.cell.threads == 1
    assert run(tmp_path, threads=1).identity == plain.identity


def test_mixed_precision_is_a_cell_of_its_own_whose_products_are_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SUITE", SUITE + "precision: bf16\n")
    half = run(tmp_path, "agx-orin", methods="halved")
    assert half.status == "ok", half.reason
    assert half.cell.precision == "bf16"
    assert " · bf16 · " in half.cell.title
    assert half.results is not None
    assert torch.is_autocast_enabled("cpu") is False


def test_half_precision_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SUITE", SUITE + "precision: fp16\n")
    with pytest.raises(BenchError, match="'precision': 'fp16' is not allowed: gradients in float1"):
        run(tmp_path)
