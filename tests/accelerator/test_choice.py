"""Which GPUs there are, which were asked for, and which run has which."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_nvml import FakeGpu, FakeNvml

from bench.accelerator.choice import choose
from bench.accelerator.facts import accelerator_facts, why_not_alone
from bench.accelerator.gpus import Gpu, compute_processes, list_gpus, process_bytes
from bench.accelerator.slots import Slots, environment_of
from bench.errors import BenchError
from bench.execute.campaign import make_executor
from bench.execute.launcher import Launcher

ONE, TWO = Gpu(0, "GPU-aaaa-1", "Made-up 9000"), Gpu(1, "GPU-bbbb-2", "Made-up 9000")
DRIVER = FakeNvml(FakeGpu("GPU-aaaa-1"), FakeGpu("GPU-bbbb-2"))


def test_gpus_are_read_from_the_driver() -> None:
    found = list_gpus(DRIVER, {})
    assert [gpu.uuid for gpu in found] == ["GPU-aaaa-1", "GPU-bbbb-2"]
    assert found[0] == Gpu(0, "GPU-aaaa-1", "Made-up 9000", "590.1")


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1", [1]), ("GPU-bbbb", [1]), ("1,0", [1, 0]), ("", []), ("-1", []), ("0,7,1", [0])],
)
def test_what_cuda_hides_is_no_gpu_here(visible: str, indices: list[int]) -> None:
    found = list_gpus(DRIVER, {"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.index for gpu in found] == indices


def test_numbers_of_unlike_gpus_are_refused_unless_they_are_in_the_order_of_the_bus() -> None:
    """CUDA's own order has the fastest first, the driver's is that of the bus."""
    unlike = FakeNvml(FakeGpu("GPU-aaaa-1"), FakeGpu("GPU-bbbb-2", name="Made-up 100"))
    with pytest.raises(BenchError, match=r"=1: numbers of unlike GPUs .*=PCI_BUS_ID, or") as told:
        list_gpus(unlike, {"CUDA_VISIBLE_DEVICES": "1"})
    assert "\n" not in str(told.value)
    ordered = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    for environ in (ordered, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}):
        assert [gpu.index for gpu in list_gpus(unlike, environ)] == [1]
    assert list_gpus(unlike, {"CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_without_a_driver_there_is_no_gpu() -> None:
    assert list_gpus(FakeNvml(works=False), {}) == []


@pytest.mark.parametrize(
    ("accelerator", "gpus", "expected"),
    [
        ("cpu", None, ()),
        ("cuda", None, (ONE, TWO)),
        ("auto", None, (ONE, TWO)),
        ("cuda:GPU-bbbb", None, (TWO,)),
        ("cuda:1", None, (TWO,)),
        ("cuda", "1, 0", (TWO, ONE)),
    ],
)
def test_the_gpus_that_were_asked_for_are_chosen(
    accelerator: str, gpus: str | None, expected: tuple[Gpu, ...]
) -> None:
    choice = choose(accelerator, gpus, find=lambda: [ONE, TWO])
    assert choice.gpus == expected
    assert choice.kind == ("cuda" if expected else "cpu")


def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    choice = choose("auto", find=list)
    assert (choice.kind, choice.title) == ("cpu", "the CPU")


@pytest.mark.parametrize(
    ("accelerator", "gpus", "per_gpu", "message"),
    [
        ("tpu", None, 1, "--accelerator 'tpu': use cpu, cuda, cuda:UUID or auto"),
        ("auto:0", None, 1, "use cpu, cuda"),
        ("cuda:", None, 1, "use cpu, cuda"),
        ("cuda:7", None, 1, r"GPU '7' is 0 of the GPUs here; give one of 0: Made-up 9000 \(GPU"),
        ("cuda:GPU-", None, 1, "GPU 'GPU-' is 2 of the GPUs here"),
        ("cuda", "0,0", 1, "a GPU is named twice; use --per-gpu"),
        ("cuda:0", "1", 1, "give one of them"),
        ("cpu", "0", 1, "--gpus 0: runs are on the CPU; add --accelerator cuda"),
        ("cpu", None, 2, "--per-gpu 2: runs are on the CPU"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    accelerator: str, gpus: str | None, per_gpu: int, message: str
) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        choose(accelerator, gpus, per_gpu, lambda: [ONE, TWO])
    assert "\n" not in str(caught.value)


def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(BenchError, match="--accelerator cuda: no GPU can be used here; take cpu"):
        choose("cuda", find=list)


# --- slots


def test_runs_are_spread_over_gpus_and_wait_when_all_slots_are_taken(tmp_path: Path) -> None:
    slots = Slots(choose("cuda", per_gpu=2, find=lambda: [ONE, TWO]), tmp_path)
    assert slots.number == 4
    assert [slots.take(run) for run in "abcde"] == [ONE, TWO, ONE, TWO, None]
    assert slots.gpu("c") == ONE
    slots.release("b")
    assert slots.take("e") == TWO
    slots.release("never started")


def test_a_measured_run_has_its_gpu_alone(tmp_path: Path) -> None:
    slots = Slots(choose("cuda", per_gpu=2, find=lambda: [ONE]), tmp_path)
    assert slots.take("ordinary") == ONE
    assert slots.take("measured", alone=True) is None
    slots.release("ordinary")
    assert slots.take("measured", alone=True) == ONE
    assert slots.take("ordinary") is None
    slots.release("measured")
    assert slots.take("ordinary") == ONE


def test_commands_share_gpus_but_not_with_one_that_measures(tmp_path: Path) -> None:
    mine, other = (Slots(choose("cuda", find=lambda: [ONE]), tmp_path) for _ in range(2))
    assert mine.take("a") == ONE
    assert other.take("b") == ONE
    other.release("b")
    assert other.take("b", alone=True) is None
    mine.release("a")
    assert other.take("b", alone=True) == ONE
    assert mine.take("a") is None


def test_a_lock_of_another_user_is_opened_without_asking_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux refuses that on another's file in a sticky folder (fs.protected_regular)."""
    lock = tmp_path / f"bench-gpu-{ONE.uuid}.lock"
    real = os.open

    def protected(path: Path, flags: int, mode: int = 0o777) -> int:
        if lock.exists() and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    for _ in range(2):
        assert Slots(choose("cuda", find=lambda: [ONE]), tmp_path).take("a") == ONE
    assert lock.stat().st_mode & 0o777 == 0o666


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / f"bench-gpu-{ONE.uuid}.lock").mkdir()
    with pytest.raises(BenchError, match=r"GPU-aaaa-1.lock cannot be opened .*remove it") as told:
        Slots(choose("cuda", find=lambda: [ONE]), tmp_path).take("a")
    assert "\n" not in str(told.value)


def test_a_process_of_a_gpu_sees_that_gpu_alone() -> None:
    found = environment_of(TWO)
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-bbbb-2"
    assert found["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert found["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(Gpu(0))  # the driver gave no name


def test_a_launcher_gives_its_children_their_gpu_before_they_import_torch(tmp_path: Path) -> None:
    tmp_path.joinpath("told.py").write_text(
        "import os, sys\n"
        f"with open({str(tmp_path / 'seen')!r}, 'w') as file:\n"
        "    names = 'CUDA_VISIBLE_DEVICES', 'CUBLAS_WORKSPACE_CONFIG'\n"
        "    print('torch' in sys.modules, *map(os.environ.get, names), file=file)\n"
    )
    for gpu, expected in ((TWO, "False GPU-bbbb-2 :4096:8"), (None, "False  None")):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
            path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
            patch.setenv("PYTHONPATH", path)
            launcher = Launcher(["told"], gpu)
        deadline = time.monotonic() + 60
        while not launcher.answers() and not launcher._ready and time.monotonic() < deadline:
            time.sleep(0.05)
        launcher.stop()
        assert tmp_path.joinpath("seen").read_text().strip() == expected.strip()


def test_as_many_runs_go_on_as_there_are_slots() -> None:
    choice = choose("cuda", per_gpu=2, find=lambda: [ONE, TWO])
    for workers, expected in ((8, 4), (3, 3)):
        executor = make_executor("processes", workers, computing=choice)
        assert executor.workers == expected
        executor.close()
    assert make_executor("processes", threads=10**6).workers == 1


# --- what is said of it


def test_the_driver_tells_the_processes_of_a_gpu() -> None:
    me = os.getpid()
    shared, other = FakeGpu("GPU-a", processes={me: 700, 1: 50}), FakeGpu("GPU-b", processes={9: 5})
    driver = FakeNvml(shared, other)
    assert compute_processes("GPU-a", driver) == [me, 1]
    assert process_bytes("GPU-a", driver) == 700
    assert process_bytes("GPU-b", driver) == 5  # alone: in a container it has another number
    assert compute_processes("GPU-c", driver) is None


@pytest.mark.parametrize(
    ("gpu", "ours", "reason"),
    [
        (FakeGpu("GPU-a"), 0, ""),
        (FakeGpu("GPU-a", processes={77: 1}), 1, ""),
        (FakeGpu("GPU-a", processes={77: 1}), 0, "is shared: processes 77 compute on it too"),
        (FakeGpu("GPU-a", processes={77: 1, 78: 1}), 1, "is shared: processes 77, 78"),
        (FakeGpu("GPU-a", mig=True), 0, r"divided \(MIG\)"),
    ],
)
def test_a_gpu_that_is_not_ours_alone_is_not_measured(gpu: FakeGpu, ours: int, reason: str) -> None:
    driver = FakeNvml(gpu)
    found = why_not_alone(list_gpus(driver, {})[0], ours, driver)
    assert re.search(reason, found) if reason else not found


def test_a_record_says_which_gpu_it_was() -> None:
    assert accelerator_facts("cpu") == {}
    facts = accelerator_facts("cuda", FakeNvml(FakeGpu("GPU-a")))["accelerator"]
    assert facts["gpu"] == "Made-up 9000"
    assert (facts["gpu_uuid"], facts["driver"]) == ("GPU-a", "590.1")
    assert (facts["power_limit_w"], facts["max_clock_mhz"]) == (300.0, 1980)


# --- the process that forks


def test_a_server_whose_imports_have_started_cuda_begins_anew_without_them(tmp_path: Path) -> None:
    """A child of it could not use CUDA."""
    tmp_path.joinpath("torch.py").write_text(
        "class cuda:\n    is_initialized = staticmethod(lambda: True)\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "bench.execute.fork_server", "torch"],
        input=b"", capture_output=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.count(b'{"ready": true}') == 1
