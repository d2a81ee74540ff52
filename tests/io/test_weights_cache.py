"""The cache of weights: made once for all processes, whole or not at all, one line if it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.errors import BenchError
from bench.io.weights_cache import Weights, cache_folder, cached, keep, read_cached

SCRIPT = """
import sys, time
import torch
from pathlib import Path
from bench.io.weights_cache import cached

def make():
    print("making", flush=True)
    time.sleep(1.0)
    return {"w": torch.arange(1000), "more": {"loss": [0.25, 0.5]}}

kept = cached(Path(sys.argv[1]), make)
print("got", int(kept["w"].sum()), kept["more"]["loss"][1])
"""


def counted() -> tuple[Callable[[], Weights], list[int]]:
    """Something to keep, and a list that grows by one each time that it is made."""
    made: list[int] = []

    def make() -> Weights:
        made.append(1)
        return {"w": torch.arange(6.0).view(2, 3), "steps": [len(made)]}

    return make, made


def test_two_processes_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "new" / "x.pt")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(text.count("making") for text in said) == [0, 1]
    assert [text.splitlines()[-1] for text in said] == ["got 499500 0.5"] * 2
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"x.pt", "x.pt.lock"}


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    make, made = counted()
    first, again = (cached(tmp_path / "x.pt", make) for _ in range(2))
    assert len(made) == 1
    assert torch.equal(first["w"], again["w"])
    assert first["steps"] == again["steps"] == [1]


@pytest.mark.parametrize("damage", [b"", b"not weights", None])
def test_a_damaged_file_is_made_again_and_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None
) -> None:
    path = tmp_path / "x.pt"
    make, made = counted()
    cached(path, make)
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    assert cached(path, make)["steps"] == [2]
    assert cached(path, make)["steps"] == [2]
    lines = set(capsys.readouterr().err.splitlines())  # seen before and behind the lock
    assert len(lines) == 1
    assert str(path) in lines.pop()
    assert len(made) == 2


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_one_wrong_bit_is_found(tmp_path: Path, part: float) -> None:
    """Which torch.load would not notice: the numbers would be others."""
    path = tmp_path / "x.pt"
    first = cached(path, lambda: {"w": torch.randn(10_000), "made": 1})
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 1
    path.write_bytes(content)
    assert read_cached(path) is None
    again = cached(path, lambda: {"w": first["w"], "made": 2})
    assert again["made"] == 2
    assert torch.equal(cached(path, dict)["w"], first["w"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_neither_kept_nor_read(tmp_path: Path, value: float) -> None:
    diverged = {"kb": {"head.bias": torch.tensor([0.5, value])}, "steps": 3}
    with pytest.raises(BenchError, match=r"the weights 'kb\.head\.bias' are not finite"):
        cached(tmp_path / "new" / "x.pt", lambda: diverged)
    assert not (tmp_path / "new" / "x.pt").exists()
    keep(tmp_path / "old.pt", diverged)  # by an earlier version
    good, made = counted()
    assert cached(tmp_path / "old.pt", good)["steps"] == [1]
    assert len(made) == 1


def test_a_mask_of_infinities_is_what_it_should_be(tmp_path: Path) -> None:
    mask = torch.triu(torch.full((4, 4), -torch.inf), diagonal=1)
    cached(tmp_path / "x.pt", lambda: {"attention.mask": mask})
    assert torch.equal(cached(tmp_path / "x.pt", dict)["attention.mask"], mask)
    with pytest.raises(BenchError, match="'scale'"):
        cached(tmp_path / "y.pt", lambda: {"scale": torch.tensor(torch.inf)})


def test_a_file_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Evil(), tmp_path / "x.pt")
    make, _ = counted()
    assert cached(tmp_path / "x.pt", make)["steps"] == [1]
    assert not (tmp_path / "ran").exists()


def test_a_failure_of_the_making_keeps_nothing_and_stays_what_it_is(tmp_path: Path) -> None:
    """A data file that is not there must not read as a cache that cannot be written."""

    def make() -> Weights:
        raise FileNotFoundError(2, "No such file or directory", "weights.safetensors")

    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        cached(tmp_path / "x.pt", make)
    assert not (tmp_path / "x.pt").exists()
    good, made = counted()
    cached(tmp_path / "x.pt", good)  # and the lock is free
    assert len(made) == 1


@pytest.mark.parametrize("way", ["a file in its place", "a name too long"])
def test_a_folder_that_cannot_be_written_names_the_variable(tmp_path: Path, way: str) -> None:
    root = tmp_path / ("x" if way == "a file in its place" else "x" * 300)
    if way == "a file in its place":
        root.write_text("in the way")
    make, made = counted()
    with pytest.raises(BenchError) as caught:
        cached(root / "models" / "x.pt", make)
    text = str(caught.value)
    assert text.startswith(f"cache folder {root / 'models'}: ")
    assert "set BENCH_CACHE to a folder that can be written" in text
    assert "None" not in text
    assert made == []


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("BENCH_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "edge-adaptation-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "edge-adaptation-bench"
