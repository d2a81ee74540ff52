"""``bench device``: the list, the numbers of one device, and the check of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench.cli import app, main
from bench.costs.device_profile import PROFILES, device_names

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "device-profile.md"


def run(*given: str) -> list[str]:
    done = CliRunner().invoke(app, ["device", *given])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def refused(given: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["bench", "device", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_the_list_has_a_row_for_each_variant() -> None:
    lines = run("list")
    assert [line.split()[0] for line in lines[1:]] == device_names()
    row = next(line for line in lines if line.startswith("xavier-nx@10w"))
    assert "616.9 GFLOP/s  51.2 GB/s   15.52 GB          3.5 W  10 W" in row


def test_alone_it_prints_the_list() -> None:
    assert run()[:-2] == run("list")


def test_show_prints_numbers_with_units_confidence_and_source() -> None:
    lines = run("show", "xavier-nx")
    assert lines[0] == "xavier-nx: NVIDIA Jetson Xavier NX 16 GB, GPU, 20 W six-core mode"
    assert lines[1].startswith("digest 96df7be9b79d8d0d")
    assert lines[2] == "power mode 20w; others: xavier-nx@10w, xavier-nx@15w"
    assert lines[3] == "28 numbers: 2 datasheet, 5 derived, 21 estimate"
    rows = {line.split()[0]: line.split() for line in lines[5:]}
    assert rows["flops.float32"][1:4] == ["844.8", "GFLOP/s", "derived"]
    assert rows["flops.float32"][4:7] == ["384", "Volta", "cores"]
    assert rows["launch_overhead"][1:4] == ["50", "µs", "estimate"]
    assert rows["energy_per_flop.float32"][1:3] == ["12.95", "pJ/FLOP"]
    assert rows["efficiency.matmul.flops"][1:3] == ["0.75", "estimate"]
    assert len(rows) == 29  # the header too


def test_show_knows_modes_files_and_the_host(tmp_path: Path) -> None:
    assert "power mode 10w" in run("show", "xavier-nx@10w")
    path = tmp_path / "my.yaml"
    path.write_text((PROFILES / "orin-nano.yaml").read_text())
    assert run("show", str(path))[0] == f"{path}: NVIDIA Jetson Orin Nano 8 GB, GPU, 15 W mode"
    assert "costs are measured" in run("show", "host")[2]


def test_sources_are_given_in_full() -> None:
    text = " ".join(" ".join(run("show", "raspberry-pi-5", "--sources")).split())
    board = yaml.safe_load((PROFILES / "raspberry-pi-5.yaml").read_text())
    for key in ("bandwidth", "power_idle", "launch_overhead"):
        assert " ".join(board[key]["source"].split()) in text


def test_a_sound_file_is_ok_with_all_its_modes(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text((PROFILES / "orin-nano.yaml").read_text())
    lines = run("validate", str(path))
    assert lines[0] == f"ok  {path}: NVIDIA Jetson Orin Nano 8 GB, GPU, 15 W mode"
    assert [line.split()[0] for line in lines[2:5]] == [str(path), f"{path}@7w", f"{path}@25w"]
    assert lines[3].split()[1:4] == ["7w", "417.8", "GFLOP/s"]
    assert lines[-1] == f"next: bench run --device {path}"


@pytest.mark.parametrize("name", sorted(p.name for p in PROFILES.glob("*.yaml")))
def test_every_shipped_file_is_ok(name: str) -> None:
    assert run("validate", str(PROFILES / name))[0].startswith("ok ")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"power_idle": {"value": 30, "source": "for a test", "confidence": "estimate"}},
         ["power_idle 30 is not below power_budget 20: correct one"]),
        ({"bandwith": 1}, ["key bandwith is unknown: did you mean 'bandwidth'?"]),
        ({"modes": {"5w": {}}}, ["key modes.5w.title is missing: add it"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    change: dict[str, Any],
    parts: list[str],
) -> None:
    path = tmp_path / "my.yaml"
    board = yaml.safe_load((PROFILES / "xavier-nx.yaml").read_text())
    path.write_text(yaml.safe_dump({**board, **change}))
    line = refused(["validate", str(path)], monkeypatch, capfd)
    assert line.startswith(f"bench: device profile {path}: ")
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["validate", "xavier-nx"], "name a .yaml file"),
        (["validate", "no.yaml"], "No such file"),
        (["show", "xaviernx"], "did you mean 'xavier-nx'"),
        (["show", "xavier-nx@5w"], "unknown power mode '5w'"),
    ],
)
def test_bad_names_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, capfd: Any, given: list[str], part: str
) -> None:
    assert part in refused(given, monkeypatch, capfd)


def test_no_command_imports_a_heavy_library() -> None:
    file = PROFILES / "xavier-nx.yaml"
    code = f"""
import sys
from typer.testing import CliRunner
from bench.cli import app
for given in (["list"], ["show", "xavier-nx@10w"], ["validate", {str(file)!r}]):
    assert CliRunner().invoke(app, ["device", *given]).exit_code == 0
sys.exit(bool({{"torch", "numpy", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_page_shows_what_the_commands_print() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for given in (["list"], ["show", "xavier-nx@10w"]):
        block = "\n".join(line.rstrip() for line in run(*given))
        assert f"$ bench device {' '.join(given)}\n{block}\n" in page, given
