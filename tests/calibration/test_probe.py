"""bench-probe: one file for old boards that measures what a calibration measures here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.calibration.calibrate import Settings, single_operators, traced
from bench.calibration.operators import SMALLEST, Sizes, convolutions, operators, optimizer_steps
from bench.calibration.probe_file import probe_text, table
from bench.costs.device_profile import ModelledDevice, load_device
from bench.meters.ina import boards
from bench.probe.main import to_case, to_text
from bench.probe.networks import DISPATCHES, Network
from bench.probe.sensors import find_sensor
from bench.probe.timing import Pool

TINY = Sizes((2,), (8,), (1,), ((4, 8),), (8, 4096), ((1, 2, 4, 8),), (8, 64))
NETS = tuple(Network("tokens", 64, depth, 2, how) for depth in (1, 2) for how in ("none", "all"))


def quiet(_: str) -> None:
    pass


def test_a_row_is_the_call_that_a_calibration_times_with_what_is_counted_of_it() -> None:
    found = json.loads(json.dumps(table(quiet, (TINY,), NETS[:1])))
    pool = Pool("cpu", 2**22, 1)
    cases = [*operators(TINY), *convolutions(TINY), *optimizer_steps(TINY)]
    with torch.no_grad():
        timed = [case for case, _ in single_operators(cases, pool, 1e9, quiet)]
        rows = {to_case(row).name: row for row in found["operators"]}
        assert rows.keys() == {case.name for case in timed}
        for case in timed:
            counted = traced(to_case(rows[case.name]), pool).details
            kind, of, dtype, flops, _, number = rows[case.name]["counted"]
            assert {call[:3] for call in counted} == {(kind, of, dtype)}
            total = sum(call[3] * n for call, n in counted.items())
            assert total == pytest.approx(flops * number, rel=1e-3)
            assert number == counted.total()
    assert [row["dispatch"] for row in found["dispatches"]] == [list(d) for d in DISPATCHES]
    assert found["boards"].keys() == {board.name for board in boards()}


def test_the_file_is_one_for_python_36(tmp_path: Path) -> None:
    text = probe_text(quiet, (TINY,), NETS[:1])
    ast.parse(text, feature_version=(3, 6))
    file = tmp_path / "bench-probe.py"
    file.write_text(text)
    oldest = ["-t=3.6-", "--no-tips", "--eval-annotations", str(file)]
    check = [sys.executable, "-c", "from vermin import main; main()", *oldest]
    done = subprocess.run(check, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    assert not {
        line for line in text.splitlines() if line.startswith(("from bench", "import bench"))
    }


@pytest.mark.slow
def test_the_file_writes_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "bench-probe.py"
    file.write_text(probe_text(quiet, (SMALLEST, TINY), NETS))
    root = jetson(tmp_path / "root")
    command = [sys.executable, str(file), "--name", "old", "--rounds", "1", "--accelerator", "cpu"]
    more = ["--seconds", "0.3", "--root", str(root)]
    done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    device = load_device(str(tmp_path / "old.yaml"))
    assert isinstance(device, ModelledDevice)
    assert device.curves is not None
    assert {"addmm.nt", "convolution.dense", "optimiser"} < set(device.curves.kinds)
    assert device.threads == Settings("old").threads
    assert "bench-probe" in device.bandwidth.source
    # Constant watts are no power above idle: said, and energy stays unknown.
    assert "5 W idle is not below" in done.stderr
    assert device.energy_unavailable
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, "old.yaml exists" in again.stderr) == (2, True)


def jetson(root: Path) -> Path:
    """A TX2 whose module takes 5 W."""
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_text("nvidia,p2771-0000\0nvidia,tegra186\0")
    (tree / "model").write_text("quill\0")
    sensor = root / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    sensor.mkdir(parents=True)
    (sensor / "rail_name_0").write_text("VDD_IN\n")
    (sensor / "in_power0_input").write_text("5000\n")
    (root / "sys/class/hwmon/hwmon3").mkdir(parents=True)
    (root / "sys/class/hwmon/hwmon3/name").write_text("meter\n")
    (root / "sys/class/hwmon/hwmon3/power1_input").write_text("7500000\n")
    return root


def test_power_is_that_of_the_boards_total_or_of_the_rails_that_are_named(tmp_path: Path) -> None:
    tables = {b.name: {"parts": b.parts, "models": b.models, "total": b.total, "covers": b.covers}
              for b in boards()}  # fmt: skip
    root = jetson(tmp_path)
    sensor, _ = find_sensor(tables, [], root)
    assert sensor is not None
    assert (sensor.watts(), sensor.covers.split(",")[0]) == (5.0, "jetson-tx2")
    named, _ = find_sensor(tables, ["VDD_IN", "meter.power1"], root)
    assert named is not None
    assert named.watts() == pytest.approx(12.5)
    none, why = find_sensor(tables, ["VDD_OUT"], root)
    assert none is None
    assert why == "no rail is called VDD_OUT; rails found: VDD_IN, meter.power1"
    (root / "proc/device-tree/compatible").write_text("other")
    (root / "proc/device-tree/model").write_text("other")
    none, why = find_sensor(tables, [], root)
    assert none is None
    assert "name --rails" in why


def test_numbers_are_written_so_that_yaml_reads_numbers(tmp_path: Path) -> None:
    import yaml

    content = {"a": 1e-7, "b": {"c": [(1.0, 2e12, 3e-9)], "d": "x: 'y'"}, "e": 3, "f": {}}
    assert yaml.safe_load(to_text(content)) == {**content, "b": {"c": [[1.0, 2e12, 3e-9]],
                                                                 "d": "x: 'y'"}}  # fmt: skip
