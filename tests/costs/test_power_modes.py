"""Power modes: each is its own variant, the default one is the profile, and errors name it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.costs.device_profile import (
    PROFILES,
    ModelledDevice,
    device_names,
    load_device,
    profile_digest,
)
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError

MODES = {
    "jetson-tx2": ["maxn", "maxq", "maxp-core-all", "maxp-core-arm"],
    "xavier-nx": ["20w", "10w", "15w"],
    "agx-xavier": ["30w", "10w", "15w"],
    "agx-orin": ["40w", "15w", "30w"],
    "orin-nano": ["15w", "7w", "25w"],
    "raspberry-pi-4b": [],
    "raspberry-pi-5": [],
    "stm32f746": ["216mhz", "128mhz", "64mhz"],
}
OTHERS = [f"{name}@{mode}" for name, modes in MODES.items() for mode in modes[1:]]


def modelled(name: str) -> ModelledDevice:
    device = load_device(name)
    assert isinstance(device, ModelledDevice)
    return device


def content(name: str = "xavier-nx") -> dict[str, Any]:
    return yaml.safe_load((PROFILES / f"{name}.yaml").read_text())


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def to(thing: Any) -> str:
        path = tmp_path / "board.yaml"
        path.write_text(yaml.safe_dump(thing))
        return str(path)

    return to


@pytest.mark.parametrize("name", MODES)
def test_the_modes_of_a_shipped_profile(name: str) -> None:
    assert modelled(name).mode_names == MODES[name]


def test_the_names_hold_each_further_mode_once() -> None:
    shipped = [n for n in device_names() if "@" in n and n.partition("@")[0] in MODES]
    assert sorted(shipped) == sorted(OTHERS)


def test_a_mode_replaces_what_it_names_and_nothing_else() -> None:
    base, low = modelled("xavier-nx"), modelled("xavier-nx@10w")
    assert low.name == "xavier-nx@10w"
    assert low.title == "NVIDIA Jetson Xavier NX 16 GB, GPU, 10 W four-core mode"
    # 384 cores x 2 FLOP x 803.25 MHz, 16 byte x 2 x 1600 MHz
    assert low.flops["float32"].value == pytest.approx(384 * 2 * 803.25e6)
    assert low.bandwidth.value == pytest.approx(51.2e9)
    assert low.power_budget.value == 10
    assert low.launch_overhead.value == pytest.approx(50e-6 * 1420.8 / 1190.4, rel=1e-3)
    assert low.memory == base.memory
    assert low.runtime_memory == base.runtime_memory
    assert low.energy_per_byte == base.energy_per_byte
    assert low.efficiency == base.efficiency
    assert low.mode_names == ["10w"]
    assert profile_digest(low) != profile_digest(base)


@pytest.mark.parametrize("name", [n for n, modes in MODES.items() if modes])
def test_the_default_mode_is_the_profile(name: str) -> None:
    base = modelled(name)
    same = modelled(f"{name}@{MODES[name][0]}")
    assert same.name == f"{name}@{MODES[name][0]}"
    assert same.title == base.title
    assert same.flops == base.flops
    assert profile_digest(same) == profile_digest(base)


def test_a_file_takes_a_mode_too(write: Callable[[Any], str]) -> None:
    path = write(content())
    device = modelled(f"{path}@15w")
    assert device.name == f"{path}@15w"
    assert profile_digest(device) == profile_digest(load_device("xavier-nx@15w"))


def test_a_folder_may_have_the_sign_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "boards@home"
    folder.mkdir()
    (folder / "my@15w.yaml").write_text(yaml.safe_dump(content()))
    path = str(folder / "my@15w.yaml")
    assert modelled(path).default_mode == "20w"
    assert modelled(f"{path}@15w").default_mode == "15w"


def test_modes_do_not_enter_the_digest(write: Callable[[Any], str]) -> None:
    board = content()
    del board["modes"], board["default_mode"]
    assert profile_digest(load_device(write(board))) == profile_digest(load_device("xavier-nx"))


@pytest.mark.parametrize("name", OTHERS)
def test_a_lower_clock_needs_no_more_energy_for_an_operation(name: str) -> None:
    base, mode = modelled(name.partition("@")[0]), modelled(name)
    for dtype, peak in mode.flops.items():
        if peak.value <= base.flops[dtype].value:
            assert mode.energy_per_flop[dtype].value <= base.energy_per_flop[dtype].value
        else:
            assert mode.power_budget.value > base.power_budget.value
    assert mode.power_budget.value <= base.power_budget.value or name == "orin-nano@25w"


def test_a_step_takes_longer_in_a_lower_mode() -> None:
    trace = StepTrace()
    trace.operations[("matmul", "float32", 1e9, 1e6)] = 3
    costs = {m: step_cost(trace, modelled(f"xavier-nx@{m}")) for m in ("20w", "10w")}
    # three times 1e9 FLOP at 0.75 of the peak
    assert costs["20w"].time_s == pytest.approx(3e9 / (0.75 * 384 * 2 * 1.1e9))
    assert costs["10w"].time_s == pytest.approx(3e9 / (0.75 * 384 * 2 * 0.80325e9))


# --- errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("xavier-nx@15", ["unknown power mode '15'", "'xavier-nx'", "'15w'", "20w, 10w, 15w"]),
        ("xavier-nx@15W", ["unknown power mode '15W'", "did you mean '15w'"]),
        ("xavier-nx@", ["unknown power mode ''", "known: 10w, 15w, 20w"]),
        (
            "jetson-tx2@maxp",
            ["unknown power mode 'maxp'", "(known: maxn, maxq, maxp-core-all, maxp-core-arm)"],
        ),
        ("raspberry-pi-5@15w", ["'raspberry-pi-5' has no power modes", "leave '@15w' out"]),
        ("host@15w", ["'host' has no power modes"]),
        ("xavier-n@15w", ["unknown device 'xavier-n@15w'", "did you mean 'xavier-nx'"]),
    ],
)
def test_an_unknown_mode_is_answered_with_the_known_ones(name: str, parts: list[str]) -> None:
    with pytest.raises(BenchError) as caught:
        load_device(name)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_mode_that_the_device_is_not_in_is_not_known_to_a_variant() -> None:
    with pytest.raises(BenchError, match="unknown power mode '15w'"):
        modelled("xavier-nx@10w").in_mode("15w")


def why(value: float) -> dict[str, Any]:
    return {"value": value, "source": "a number for a test", "confidence": "estimate"}


@pytest.mark.parametrize(
    ("modes", "parts"),
    [
        ({"20w": {"title": "t"}}, ["modes.20w is the default_mode", "rename"]),
        ({"5w": {"title": "t", "power_budget": why(4)}},
         ["modes.5w: power_idle 5 is not below power_budget 4"]),
        ({"5w": {"title": "t", "flops": {"float23": why(1e9)}}},
         ["modes.5w.flops.float23", "did you mean 'float32'"]),
        ({"5w": {"title": "t", "efficiency": {"softmax": {
            "flops": why(0.1), "bandwidth": why(0.1)}}}},
         ["modes.5w: efficiency must name exactly these classes"]),
        ({"5w": {"title": "t", "bandwidth": why(-1)}}, ["modes.5w.bandwidth.value: -1", "than 0"]),
        ({"5w": {"title": "t", "memory": why(1)}}, ["modes.5w.memory is unknown"]),
        ({"5w": {}}, ["modes.5w.title is missing"]),
        ({"5 W": {"title": "t"}}, ["modes.5 W", "small letters, numbers and dashes, as 15w"]),
    ],
)  # fmt: skip
def test_a_bad_mode_is_named(
    write: Callable[[Any], str], modes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(BenchError) as caught:
        load_device(write({**content(), "modes": modes}))
    text = str(caught.value)
    assert text.startswith("device profile ")
    assert all(part in text for part in parts), text


def test_modes_need_the_name_of_the_default_one(write: Callable[[Any], str]) -> None:
    board = content()
    del board["default_mode"]
    with pytest.raises(BenchError, match="default_mode is missing"):
        load_device(write(board))
