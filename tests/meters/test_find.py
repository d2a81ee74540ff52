"""Which meter is taken, in which order, and every reason where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.meters.base import Unavailable
from bench.meters.external import ExternalMeter
from bench.meters.find import find_meter, require_meter
from bench.meters.ina import InaMeter
from bench.meters.rapl import RaplMeter


@pytest.fixture(autouse=True)
def _no_gpu_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pynvml", "zeus", "zeus.monitor"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text("time_s,power_w\n1.0,5.0\n2.0,5.0\n3.0,5.0\n")
    return path


def orin(machine: Any) -> None:
    machine.device_tree(("nvidia,p3768-0000+p3767-0003",), "NVIDIA Orin Nano Developer Kit")
    machine.ina3221("1-0040", ("VDD_IN", 5000, 1200))


def test_a_named_log_comes_first_then_the_board_then_the_processor(machine: Any, log: Path) -> None:
    orin(machine)
    machine.rapl("intel-rapl:0", "package-0", 5)
    assert isinstance(find_meter(f"csv:{log}", root=machine.root), ExternalMeter)
    assert isinstance(find_meter(root=machine.root), InaMeter)
    assert isinstance(find_meter(root=machine.root, processor="gpu"), InaMeter)
    assert isinstance(find_meter("rapl", root=machine.root), RaplMeter)


def test_a_workstation_without_board_sensors_counts_its_processor(machine: Any) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5)
    assert isinstance(find_meter(root=machine.root), RaplMeter)


def test_work_on_a_gpu_is_not_measured_at_the_processor(machine: Any) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5)
    found = find_meter(root=machine.root, processor="gpu")
    assert isinstance(found, Unavailable)
    assert list(found.tried) == ["ina", "nvml"]
    assert found.tried["nvml"].startswith("package nvidia-ml-py is not installed")


def test_no_meter_gives_every_reason_in_one_line(machine: Any) -> None:
    found = find_meter(root=machine.root)
    assert isinstance(found, Unavailable)
    assert found.reason == (
        f"no energy meter can be used (ina: {found.tried['ina']}; rapl: {found.tried['rapl']})"
    )
    assert "no device tree" in found.tried["ina"]
    assert "no RAPL package" in found.tried["rapl"]
    assert "\n" not in found.reason


def test_a_board_whose_sensor_fails_says_so(machine: Any) -> None:
    machine.device_tree(("nvidia,p3768-0000+p3767-0003",), "NVIDIA Orin Nano Developer Kit")
    machine.ina3221("1-0040", ("VDD_IN", 5000, 0))
    found = find_meter(root=machine.root)
    assert isinstance(found, Unavailable)
    assert "VDD_IN reads 0 W" in found.tried["ina"]


def test_a_log_that_cannot_be_used_is_not_replaced(machine: Any, tmp_path: Path) -> None:
    orin(machine)
    found = find_meter(f"csv:{tmp_path / 'none.csv'}", root=machine.root)
    assert isinstance(found, Unavailable)
    assert list(found.tried) == [f"csv:{tmp_path / 'none.csv'}"]


@pytest.mark.parametrize("name", ["csv:none.csv", "ina", "nvml", "rapl", "zeus"])
def test_a_meter_asked_for_by_name_is_tried_alone(machine: Any, name: str) -> None:
    found = find_meter(name, root=machine.root)
    assert isinstance(found, Unavailable)
    assert list(found.tried) == [name]


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(BenchError, match="unknown energy meter 'rpl': did you mean 'rapl'"):
        find_meter("rpl")


def test_a_named_meter_that_cannot_be_used_is_a_mistake_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"^--meter nvml: package .* pip install nvidia-ml-py$"):
        require_meter("nvml")
    with pytest.raises(BenchError, match=r"^--meter csv:/.*none\.csv: .*start its logger before"):
        require_meter(f"csv:{tmp_path / 'none.csv'}")
    with pytest.raises(BenchError, match="names no file; give it as csv:FILE"):
        require_meter("csv:")
    with pytest.raises(BenchError, match="unknown energy meter 'zues': did you mean 'zeus'"):
        require_meter("zues")


def test_a_log_is_named_for_any_working_folder(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log.parent)
    assert require_meter("csv:log.csv") == f"csv:{log.resolve()}"
    assert require_meter("auto") == "auto"
