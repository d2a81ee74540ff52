"""Calibration: a synthetic machine is recovered; timing, points, the file and the command."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench.calibration import calibrate as session
from bench.calibration import host as machine
from bench.calibration.calibrate import (
    curves,
    launch_overhead,
    profile_of,
    single_operators,
    to_yaml,
    traced,
)
from bench.calibration.memory_fit import (
    measure_footprint,
)
from bench.calibration.operators import (
    SMALLEST,
    Sizes,
    convolutions,
    large_copy,
    operators,
    optimizer_steps,
)
from bench.cli import app, main
from bench.costs.device_profile import ModelledDevice, load_device
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.probe.cases import FUNCTIONS, Operand, Operator, OptimizerStep
from bench.probe.networks import DISPATCHES, Network, freeze
from bench.probe.profile import Footprint, Measurements, Power, fitted, peak_bandwidth, peak_flops
from bench.probe.timing import Pool, Timer, lower_quartile, measure

TINY = Sizes((2, 6), (8, 16), (1,), ((4, 8), (6, 8)), (8, 4096), ((1, 2, 4, 8),), (8, 64))


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool("cpu", 2**20, 2**14)


def quiet(*_: object) -> None:
    pass


# --- a machine whose operators take known times -------------------------------------------


def truth_s(flops: float, size: float) -> float:
    return 3e-6 + flops / 2e10 + size / 5e9


@dataclass
class KnownMachine:
    """Stands for a timer: a case takes what its counted calls take by `truth_s`."""

    pool: Pool
    autograd_s: float = 0.0

    def seconds(self, case: Any) -> list[float]:
        calls = traced(case, self.pool).details
        taken = sum(n * truth_s(flops, size) for (*_, flops, size), n in calls.items())
        return [taken + (self.autograd_s if getattr(case, "backward", False) else 0.0)]


@pytest.fixture(scope="module")
def known(pool: Pool) -> Measurements:
    timer: Any = KnownMachine(pool, autograd_s=1e-5)
    cases = [*operators(TINY), *convolutions(TINY), *optimizer_steps(TINY)]
    with torch.no_grad():
        measured = curves(
            single_operators(cases, pool, 1e9, quiet), timer, 1, quiet, autograd_s=1e-5
        )
        dispatches = []
        for case in DISPATCHES:
            trace = traced(case, pool)
            alone = sum(n * truth_s(*call[3:]) for call, n in trace.details.items())
            dispatches.append((trace, alone + 7e-6 * trace.details.total()))
    footprint = Footprint(5e8, 1.1, 1.5, 0.4, 8e6, 0.1)
    return Measurements(
        measured, dispatches, footprint, 8e9, 7e9, "cpu", 1, "2030-01-02", "Measured in a test",
        2**14, OPERATOR_CLASSES, "bench device calibrate",
    )  # fmt: skip


def test_every_point_is_what_the_operator_takes(known: Measurements) -> None:
    found = [
        (kind, point)
        for kind, curve in known.curves.items()
        for points in curve.points.values()
        for point in points
    ]
    assert len(found) > 150
    for kind, (flops, size, seconds) in found:
        assert seconds == pytest.approx(truth_s(flops, size), rel=2e-3), kind


def test_there_are_curves_of_every_class(known: Measurements) -> None:
    assert {curve.of for curve in known.curves.values()} == set(OPERATOR_CLASSES)
    expected = {
        "addmm.nt", "mm.nn", "mm.tn", "mm.nt", "bmm.nn", "bmm.nt", "bmm.tn", "add", "mul", "gelu",
        "gelu_backward", "threshold_backward", "hardtanh_", "bernoulli_", "clone", "cat", "stack",
        "copy_", "sum", "mean", "_softmax", "embedding", "embedding_dense_backward", "optimiser",
        "native_layer_norm", "native_layer_norm_backward.both", "convolution.dense",
        "convolution.dense.strided", "convolution.pointwise", "convolution.depthwise",
        "convolution_backward.depthwise.input", "convolution_backward.dense.weight.strided",
        "max_pool2d_with_indices",
    }  # fmt: skip
    assert expected <= set(known.curves)
    assert {"float32", "bfloat16"} <= set(known.curves["mm.nn"].points)


def test_peaks_are_the_best_that_was_reached(known: Measurements) -> None:
    points = [
        point
        for kind in ("addmm.nt", "mm.nn", "mm.tn", "mm.nt", "bmm.nn", "bmm.nt", "bmm.tn")
        for point in known.curves[kind].points["float32"]
    ]
    assert peak_flops(known.curves)["float32"] == max(f / s for f, _, s in points)
    assert next(iter(peak_flops(known.curves))) == "float32"
    size = 2 * 4 * 4096
    assert peak_bandwidth(known.curves) == pytest.approx(size / truth_s(0, size), rel=2e-3)


def test_the_launch_overhead_is_what_the_operators_do_not_explain(known: Measurements) -> None:
    # The networks are smaller than any point, so that the shortest one stands for each call.
    content = profile_of("known", known, None)
    value = content["launch_overhead"]["value"]
    assert value == pytest.approx(7e-6, rel=0.2)


def test_launch_overhead_by_hand(make_device: Callable[..., Any]) -> None:
    call = ("add", "elementwise", "float32", 0.0, 300.0)
    trace = StepTrace(Counter({call[1:]: 4}), details=Counter({call: 4}))
    device = make_device(launch=1e-9, bandwidth=100.0)
    added = device.model_copy(update={"dispatch": "added"})
    assert launch_overhead(added, [(trace, 20.0)]) == pytest.approx((20.0 - 4 * 3.0) / 4)
    assert launch_overhead(added, [(trace, 1.0)]) == 2e-7  # never less than nothing
    assert launch_overhead(device, [(trace, 20.0)]) == pytest.approx(20.0 / 4)


def test_the_written_profile_predicts_the_machine(known: Measurements, tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(to_yaml(profile_of("known", known, Power(5.0, 20.0, "A meter in a test"))))
    device = load_device(str(path))
    assert isinstance(device, ModelledDevice)
    assert (device.accelerator, device.threads, device.dispatch) == ("cpu", 1, "added")
    launch = device.launch_overhead.value
    for kind, flops, size in (("mm.nn", 512.0, 512.0), ("add", 4096.0, 49152.0)):
        of = known.curves[kind].of
        trace = StepTrace(details=Counter({(kind, of, "float32", flops, size): 3}))
        expected = 3 * (launch + truth_s(flops, size))
        assert step_cost(trace, device).time_s == pytest.approx(expected, rel=0.02)
    assert device.memory.value == 8e9
    assert device.runtime_memory.value == 5e8
    assert device.resident_memory is not None
    assert device.resident_memory.step.value == 1.5
    assert (device.power_idle.value, device.power_budget.value) == (5.0, 20.0)
    assert device.energy_unavailable == ""
    cost = step_cost(trace, device)
    assert cost.energy_j == pytest.approx(20.0 * cost.time_s)
    full = (
        5.0
        + device.flops["float32"].value * device.energy_per_flop["float32"].value
        + device.bandwidth.value * device.energy_per_byte.value
    )
    assert full == pytest.approx(20.0, rel=1e-3)


def test_without_watts_the_profile_says_that_no_energy_was_measured(
    known: Measurements, tmp_path: Path
) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(to_yaml(profile_of("known", known, None)))
    device = load_device(str(path))
    assert isinstance(device, ModelledDevice)
    assert device.energy_unavailable == (
        "no energy was measured: calibrate with --idle-watts and --busy-watts"
    )
    assert device.power_budget.source.startswith("Not measured: 10 W idle and 5 W more")


def test_the_bandwidth_says_which_copy_it_is_of(known: Measurements) -> None:
    def source(cache: float) -> str:
        return profile_of("known", known._replace(cache=cache), None)["bandwidth"]["source"]

    # The largest copy moves 32.77 kB.
    assert "a copy of 0.03277 MB, read and written, more than twice the last" in source(16_000)
    assert "copy of 0.03277 MB, read and written, of which the last cache of 0.03 MB" in source(3e4)


@pytest.mark.parametrize(
    ("largest", "cache", "added"),
    [
        (8192, 2**15, [2**13 + 2**10]),  # 64 kB, which is not more than twice the cache
        (9216, 2**15, []),  # 72 kB, which is
        (8192, 2**25, [2**18]),  # no more than the pool has
    ],
)
def test_a_copy_larger_than_twice_the_cache_is_always_there(
    largest: int, cache: int, added: list[int]
) -> None:
    sizes = replace(TINY, numbers=(8, largest))
    found = large_copy(sizes, Pool("cpu", 2**20, cache))
    assert [case.name for case in found] == [f"copy_ {count}" for count in added]
    if added and cache == 2**15:
        (_, trace), *_ = single_operators(found, Pool("cpu", 2**20, cache), 1e9, quiet)
        ((_, _, _, _, size),) = trace.details
        assert size > 2 * cache


def test_the_file_has_a_point_on_a_line(known: Measurements) -> None:
    text = to_yaml(profile_of("known", known, None))
    points = sum(len(p) for c in known.curves.values() for p in c.points.values())
    lines = [line for line in text.splitlines() if line.strip().startswith("- [")]
    assert len(lines) == points
    assert text.startswith("# Written by 'bench device calibrate'")


def test_on_an_accelerator_dispatch_overlaps(known: Measurements) -> None:
    content = profile_of("known", known._replace(accelerator="cuda"), None)
    assert content["dispatch"] == "overlapped"
    calls = sum(trace.details.total() for trace, _ in known.dispatches)
    taken = sum(seconds for _, seconds in known.dispatches)
    assert content["launch_overhead"]["value"] == pytest.approx(taken / calls, rel=1e-3)


# --- what is left out ---------------------------------------------------------------------


def test_cases_that_are_too_large_or_no_single_operator_are_left_out_and_said(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setitem(FUNCTIONS, "double", lambda t: t.exp().tanh())
    monkeypatch.setitem(FUNCTIONS, "broken", lambda t: t.view(3, 3))
    good = Operator("good", "exp", (Operand((8,)),))
    large = Operator("large", "exp", (Operand((4096,)),))
    double = Operator("double", "double", (Operand((8,)),))
    broken = Operator("broken", "broken", (Operand((8,)),))
    found = single_operators([good, large, double, broken], pool, 1000.0, said.append)
    assert [case.name for case, _ in found] == ["good"]
    assert [line.partition(": ")[2].split()[0] for line in said] == ["large", "double", "broken:"]
    assert "exp and tanh" in said[1]


def test_an_optimizers_point_is_the_mean_of_its_calls(pool: Pool) -> None:
    with torch.no_grad():
        step = OptimizerStep("AdamW", 64)
        ((case, trace),) = single_operators([step], pool, 1e9, quiet)
        timer: Any = KnownMachine(pool)
        (curve,) = curves([(case, trace)], timer, 1, quiet).values()
    ((flops, size, seconds),) = curve.points["float32"]
    calls = trace.details.total()
    assert calls % 20 == 0  # so many parameters, each in a loop of its own
    assert size == pytest.approx(trace.bytes / calls, rel=1e-3)
    assert seconds == pytest.approx(truth_s(flops, size), rel=2e-3)


# --- timing -------------------------------------------------------------------------------


class Clock:
    """Time passes only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Work:
    """Takes ``seconds`` in turn from a list that starts again."""

    name: str
    clock: Clock
    seconds: list[float]
    done: int = 0
    bytes: int = 8

    def calls(self, pool: Pool) -> list[Callable[[], object]]:
        def call() -> None:
            self.clock.now += self.seconds[self.done % len(self.seconds)]
            self.done += 1

        return [call]


def test_a_short_call_is_timed_over_many_and_a_long_one_once(pool: Pool) -> None:
    clock = Clock()
    timer = Timer(pool, clock)
    short, long = Work("short", clock, [1e-5]), Work("long", clock, [0.5])
    assert timer.seconds(short) == pytest.approx([1e-5, 1e-5])
    assert short.done >= 200
    assert timer.seconds(long) == pytest.approx([0.5])
    assert long.done == 5


def test_a_share_of_the_time_is_that_of_each_thread(pool: Pool) -> None:
    timer = Timer(pool, threads=4)
    assert timer.busy == 1.0  # nothing was measured
    timer.process_s, timer.wall_s = 4.0, 2.0
    assert timer.busy == 0.5
    timer.process_s = 9.0
    assert timer.busy == 1.0


def test_rounds_are_interleaved_and_the_lower_quartile_counts(pool: Pool) -> None:
    clock, order = Clock(), []

    class Noted(Work):
        def calls(self, pool: Pool) -> list[Callable[[], object]]:
            order.append(self.name)
            return super().calls(pool)

    # Four calls to warm up, then the measured one, in each of five rounds.
    measured = [1.0, 4.0, 2.0, 8.0, 3.0]
    first = Noted("a", clock, [s for m in measured for s in (9, 9, 9, 9, m)])
    second = Noted("b", clock, [0.5])
    found = measure([first, second], Timer(pool, clock), 5)
    assert order == ["a", "b"] * 5
    assert [seconds for _, seconds in found] == pytest.approx([2.0, 0.5])


def test_a_huge_case_gets_fresh_pages_before_every_measurement(pool: Pool) -> None:
    clock, trimmed = Clock(), []
    timer = Timer(pool, clock, trim=lambda: trimmed.append(work.done))
    work = Work("huge", clock, [0.5])
    work.huge = True  # type: ignore[attr-defined]
    assert timer.seconds(work) == pytest.approx([0.5, 0.5])
    assert trimmed == [4, 5]


def test_forward_work_on_more_than_32_mib_is_huge() -> None:
    large, small = Operand((9_000_000,)), Operand((8_000_000,))
    assert Operator("exp", "exp", (large,)).huge
    assert not Operator("exp", "exp", (small,)).huge
    assert not Operator("exp", "exp", (large,), backward=True).huge
    assert Operator("expand", "exp", (small,), makes=36_000_000).huge


def test_progress_is_told(pool: Pool) -> None:
    clock, seen = Clock(), []
    measure([Work("a", clock, [1.0])], Timer(pool, clock), 3, lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], 3.0), ([5, 1, 2, 4, 3], 2.0), ([4, 1, 3, 2], 1.75)]
)
def test_lower_quartile(values: list[float], expected: float) -> None:
    assert lower_quartile(values) == pytest.approx(expected)


def test_the_pool_gives_parts_behind_each_other_and_starts_again() -> None:
    pool = Pool("cpu", 4 * 256, 512)
    first, second, third = pool.take(8, 8), pool.take(100), pool.take(8, 8)
    assert (first.storage_offset(), second.storage_offset()) == (0, 64)
    assert third.storage_offset() == 192
    assert pool.take(1).storage_offset() == 0
    assert 0.5 <= float(pool.take(64).min()) <= float(pool.take(64).max()) < 1
    mine = pool.own(4)
    mine.zero_()
    assert float(pool.take(256).min()) >= 0.5
    assert (pool.sets(256), pool.sets(600), pool.sets(10_000)) == (4, 1, 1)


# --- memory -------------------------------------------------------------------------------


def test_a_known_footprint_is_recovered() -> None:
    steps = [(1e7, 2e7, 3e6), (9e7, 1e7, 0.0), (4e7, 3e8, 2e7), (2e8, 1e8, 5e6), (5e6, 0.0, 0.0)]
    seen = [(s, d, c, 1.2 * s + 1.7 * d + 0.5 * c + 6e6) for s, d, c in steps]
    found = fitted(7e8, seen)
    assert (found.stored, found.step, found.convolution) == pytest.approx((1.2, 1.7, 0.5))
    assert found.added == pytest.approx(6e6)
    assert found.worst == pytest.approx(0.0, abs=1e-9)


def test_what_lives_is_held() -> None:
    found = fitted(1.0, [(1e7, 1e7, 0.0, 1.5e7), (1e7, 2e7, 0.0, 3.5e7), (2e7, 2e7, 0.0, 3e7)])
    assert min(found.stored, found.step) >= 1
    assert min(found.convolution, found.added) >= 0


def test_each_network_is_measured_in_a_process_of_its_own() -> None:
    asked: list[dict[str, Any]] = []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"runtime": 3.0 + len(asked), "stored": 10.0, "step": len(asked), "convolution": 0,
                "resident": 20.0 + 2 * len(asked)}  # fmt: skip

    networks = [Network("tokens", 8, 1, 2, "none"), Network("maps", 8, 1, 2, "all")]
    found = measure_footprint(ask, "cpu", networks)
    assert found.runtime == 4.0
    assert [request["network"]["kind"] for request in asked] == ["tokens", "maps"]


@pytest.mark.parametrize(
    ("trained", "count"),
    [
        ("all", 32 + 216 + 72 + 288 + 264 + 90),
        ("norms", 4 * 8),
        ("adapters", 3 * (8 * 8 + 8 * 8)),
        ("none", 0),
    ],
)
def test_only_what_is_named_is_trained(trained: str, count: int) -> None:
    module, x = Network("tokens", 8, 1, 2, trained).build()
    before = module(x)
    freeze(module, trained)
    assert torch.equal(module(x), before)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("kind", ["tokens", "words", "maps", "inverted"])
def test_the_networks_compute(kind: str) -> None:
    module, x = Network(kind, 8, 1, 2, "all").build()
    assert module(x).shape == (2, 10)


# --- the machine --------------------------------------------------------------------------


def test_others_at_work_are_refused_or_told() -> None:
    assert machine.require_idle(0.1, force=False) == ""
    with pytest.raises(BenchError, match=r"1\.50 processors .* give --force"):
        machine.require_idle(1.5, force=False)
    assert "will not be those of an idle machine" in machine.require_idle(1.5, force=True)


def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert machine.accelerator("auto") == "cpu"
    with pytest.raises(BenchError, match="torch finds none"):
        machine.accelerator("cuda")
    with pytest.raises(BenchError, match="use auto, cpu or cuda"):
        machine.accelerator("gpu")
    with pytest.raises(BenchError, match=r"^0 threads: .*; say more$"):
        machine.require_threads(0, "say more")


def test_only_processors_that_the_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    machine.require_threads(1, "")
    with pytest.raises(BenchError, match="2 threads: this process may use 1 of"):
        machine.require_threads(2, "")
    monkeypatch.delattr(os, "sched_getaffinity")
    machine.require_threads(8, "")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_threads_are_left_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    moved, used = [], []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: moved.append(given))
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    machine.use_threads(2)
    assert (used, moved) == ([2], [])


def test_an_accelerator_at_work_is_refused_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    load = {0: 80}
    monkeypatch.setattr("torch.cuda.utilization", lambda device: load[device])
    with pytest.raises(BenchError, match=r"busy 80 % of the time: wait .* give --force"):
        machine.require_idle_accelerator(force=False)
    assert "will not be those" in machine.require_idle_accelerator(force=True)
    load[0] = 0
    assert machine.require_idle_accelerator(force=False) == ""


def test_an_accelerator_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: int) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr("torch.cuda.utilization", missing)
    assert machine.require_idle_accelerator(force=False) == (
        "whether others use the accelerator is not known (nvidia-ml-py does not seem to be "
        "installed): see nvidia-smi"
    )


def test_work_that_was_not_alone_is_told() -> None:
    assert machine.contention_warning("it", 0.96, 1) == ""
    alone = "it had a processor only 52% of the time: others were at work"
    assert machine.contention_warning("it", 0.52, 1) == alone
    several = machine.contention_warning("it", 0.52, 4)
    assert "a processor for each of 4 threads only 52% of the time" in several


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def bench_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An idle machine in a folder of its own; memory is not measured, and sizes are few."""

    def ask(request: dict[str, Any], threads: int) -> dict[str, Any]:
        step = 1e6 * (1 + len(request["what"]))
        return {"runtime": 5e8, "stored": 1e7, "step": step, "convolution": 0.0,
                "resident": 1.1e7 + 1.5 * step}  # fmt: skip

    small = partial(
        session.calibrated,
        run=ask,
        sizes=(replace(SMALLEST, maps=((2, 8),)), TINY),
        pool_bytes=2**20,
        cache=2**15,
    )
    monkeypatch.setattr(session, "calibrated", small)
    monkeypatch.setattr(machine, "use_threads", lambda threads: None)
    monkeypatch.setattr(machine, "others_at_work", lambda: 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_calibrate_writes_a_profile_that_loads(bench_machine: Path) -> None:
    given = ["device", "calibrate", "--name", "my-box", "--quick", "--rounds", "1",
             "--accelerator", "cpu"]  # fmt: skip
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    device = load_device(str(bench_machine / "my-box.yaml"))
    assert isinstance(device, ModelledDevice)
    assert device.curves is not None
    assert len(device.curves.kinds) > 60
    assert "1 threads used" in device.curves.source
    assert "each thread had a processor" in device.curves.source
    assert max(size for _, size, _ in device.curves.kinds["copy_"].points["float32"]) > 2 * 2**15
    assert "more than twice the last cache of 0.03277 MB" in device.bandwidth.source
    assert "--idle-watts" in device.energy_unavailable
    assert "load averages" in device.curves.source
    assert torch.__version__.partition("+")[0] in device.curves.source
    assert device.resident_memory is not None
    assert device.resident_memory.step.value == pytest.approx(1.5, rel=0.01)
    assert "next: bench device check my-box" in done.stdout
    assert "bench: operators: 100 %" in done.stderr
    shown = CliRunner().invoke(app, ["device", "show", "my-box.yaml"]).stdout
    assert "calibrated on cpu with 1 threads" in shown
    assert "resident_memory.step" in shown


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["--name", "My Box"], "use small letters"),
        (["--name", "taken"], "taken.yaml exists"),
        (["--threads", "9999"], "9999 threads: this process may use"),
        (["--accelerator", "tpu"], "use auto, cpu or cuda"),
        (["--threads", "2", "--cpu-time"], "--cpu-time: counts one thread, not 2"),
        (["--idle-watts", "5"], "give both or neither"),
        (["--idle-watts", "5", "--busy-watts", "4"], "is not below"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    bench_machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    given: list[str],
    part: str,
) -> None:
    (bench_machine / "taken.yaml").write_text("name: taken\n")
    monkeypatch.setattr(sys, "argv", ["bench", "device", "calibrate", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert part in line
    assert sorted(p.name for p in bench_machine.iterdir()) == ["taken.yaml"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no file")
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    bench_machine: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(session, "calibrated", lambda *given: measured.append(given))
    monkeypatch.chdir("/proc")
    monkeypatch.setattr(sys, "argv", ["bench", "device", "calibrate"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "/proc/this-machine.yaml: " in line
    assert "run it in another folder" in line
    assert measured == []


def test_a_calibration_that_was_not_alone_says_so(
    bench_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timer, "busy", 0.5)
    given = ["device", "calibrate", "--quick", "--rounds", "1", "--accelerator", "cpu"]
    told = "bench: warning: the calibration had a processor only 50% of the time"
    assert told in CliRunner().invoke(app, given).stderr


def test_a_busy_machine_is_refused(
    bench_machine: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(machine, "others_at_work", lambda: 1.2)
    monkeypatch.setattr(sys, "argv", ["bench", "device", "calibrate"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "wait until the machine is idle, or give --force" in capfd.readouterr().err


def test_cpu_time_counts_one_thread_alone(bench_machine: Path) -> None:
    with pytest.raises(BenchError, match="--cpu-time"):
        session.make_timer(session.Settings("x", threads=2, cpu_time=True), 1e9)


def test_the_timer_knows_the_threads() -> None:
    assert session.make_timer(session.Settings("x", threads=2), 1e6).threads == 2
