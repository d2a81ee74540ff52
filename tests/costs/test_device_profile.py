"""Device profiles: complete, plausible, each number with its source; errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.costs.device_profile import (
    PROFILES,
    MeasuredDevice,
    ModelledDevice,
    device_names,
    load_device,
    profile_digest,
)
from bench.errors import BenchError
from bench.operators.operator_kinds import OPERATOR_CLASSES

SHIPPED = sorted(p.stem for p in PROFILES.glob("*.yaml"))
MODELLED = [n for n in SHIPPED if n != "host"]
VARIANTS = [n for n in device_names() if n.partition("@")[0] in MODELLED]


def content(name: str = "xavier-nx") -> dict[str, Any]:
    return yaml.safe_load((PROFILES / f"{name}.yaml").read_text())


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def to(thing: Any) -> str:
        path = tmp_path / "board.yaml"
        path.write_text(thing if isinstance(thing, str) else yaml.safe_dump(thing))
        return str(path)

    return to


def complaint(path: str) -> str:
    with pytest.raises(BenchError) as caught:
        load_device(path)
    text = str(caught.value)
    assert text.startswith(f"device profile {path}: ")
    assert "\n" not in text
    return text


def test_the_names_are_those_of_the_files() -> None:
    assert set(SHIPPED) <= set(device_names())
    assert set(MODELLED) == {
        "jetson-tx2", "xavier-nx", "agx-xavier", "agx-orin", "orin-nano",
        "raspberry-pi-4b", "raspberry-pi-5", "stm32f746",
    }  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_under_its_file_name(name: str) -> None:
    assert load_device(name).name == name


def test_the_host_is_measured() -> None:
    assert isinstance(load_device("host"), MeasuredDevice)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_shipped_profile_is_complete_and_plausible(name: str) -> None:
    device = load_device(name)
    assert isinstance(device, ModelledDevice)
    assert set(device.efficiency) == set(OPERATOR_CLASSES)
    assert all(
        0 < share.value <= 1
        for reach in device.efficiency.values()
        for share in (reach.flops, reach.bandwidth)
    )
    assert device.runtime_memory.value < device.memory_for_applications.value
    small = device.memory.value < 1e6  # a microcontroller, without an operating system
    assert device.memory_for_applications.value < device.memory.value or small
    assert device.power_idle.value < device.power_budget.value
    assert set(device.flops) == set(device.energy_per_flop)
    assert (1e8 if small else 4e10) < device.flops["float32"].value < 1e14
    assert (1e8 if small else 1e10) < device.bandwidth.value < 1e12
    assert (1e-7 if small else 1e-6) < device.launch_overhead.value < 1e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_no_class_of_operators_draws_more_than_the_budget(name: str) -> None:
    device = load_device(name)
    for dtype, peak in device.flops.items():
        for kind, reach in device.efficiency.items():
            watts = (
                device.power_idle.value
                + peak.value * reach.flops.value * device.energy_per_flop[dtype].value
                + device.bandwidth.value * reach.bandwidth.value * device.energy_per_byte.value
            )
            assert watts <= device.power_budget.value * 1.005, (dtype, kind)


@pytest.mark.parametrize("name", ["agx-orin", "agx-xavier", "jetson-tx2", "xavier-nx"])
def test_full_load_at_the_nominal_rates_is_the_budget(name: str) -> None:
    device = load_device(name)
    full_load = (
        device.power_idle.value
        + device.flops["float32"].value * device.energy_per_flop["float32"].value
        + device.bandwidth.value * device.energy_per_byte.value
    )
    assert full_load == pytest.approx(device.power_budget.value, rel=0.02)


def quantities(thing: Any) -> Iterator[dict[str, Any]]:
    if isinstance(thing, dict):
        if "value" in thing:
            yield thing
        else:
            for inner in thing.values():
                yield from quantities(inner)


@pytest.mark.parametrize("name", MODELLED)
def test_every_number_of_a_shipped_profile_has_a_source(name: str) -> None:
    found = list(quantities(content(name)))
    assert len(found) >= 10 + 2 * len(OPERATOR_CLASSES)
    assert all(len(q["source"]) > 20 and q["confidence"] for q in found)


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError) as caught:
        load_device("xaviernx")
    text = str(caught.value)
    assert text.startswith("unknown device 'xaviernx': did you mean 'xavier-nx'")
    assert "profile's .yaml file" in text


def test_a_profile_from_a_file_is_the_shipped_one_called_by_its_path(
    write: Callable[[Any], str],
) -> None:
    path = write(content())
    device, shipped = load_device(path), load_device("xavier-nx")
    assert device.name == path
    assert device.model_dump(exclude={"name"}) == shipped.model_dump(exclude={"name"})
    assert profile_digest(device) == profile_digest(shipped)


def test_a_missing_profile_file(tmp_path: Path) -> None:
    assert "No such file" in complaint(str(tmp_path / "no.yaml"))


def test_broken_yaml_is_one_line(write: Callable[[Any], str]) -> None:
    assert "not valid YAML" in complaint(write("name: [\nflops: }"))


def test_a_profile_that_is_no_mapping(write: Callable[[Any], str]) -> None:
    complaint(write("- a\n- b\n"))


def test_yaml_that_would_run_code_is_refused(write: Callable[[Any], str], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write(f"name: !!python/object/apply:os.mkdir ['{mark}']")
    with pytest.raises(BenchError, match="not valid YAML"):
        load_device(path)
    assert not mark.exists()


def test_a_missing_operator_class_lists_the_classes(write: Callable[[Any], str]) -> None:
    board = content()
    del board["efficiency"]["optimiser"]
    text = complaint(write(board))
    assert "efficiency must name exactly these classes" in text
    assert "'optimiser'" in text


def test_an_unknown_operator_class_is_refused(write: Callable[[Any], str]) -> None:
    board = content()
    board["efficiency"]["softmax"] = board["efficiency"]["matmul"]
    assert "efficiency must name exactly these classes" in complaint(write(board))


@pytest.mark.parametrize("key", ["flops", "energy_per_flop"])
def test_float32_is_needed(write: Callable[[Any], str], key: str) -> None:
    board = content()
    del board[key]["float32"]
    assert f"{key} needs float32" in complaint(write(board))


@pytest.mark.parametrize(
    ("value", "said"), [(0, "greater than 0"), (-1.0, "greater than 0"), ("fast", "valid number"),
                        (float("inf"), "finite"), (float("nan"), "greater than 0|finite")],
)  # fmt: skip
def test_a_bad_number_is_named_by_its_key(
    write: Callable[[Any], str], value: Any, said: str
) -> None:
    board = content()
    board["bandwidth"]["value"] = value
    text = complaint(write(board))
    assert "bandwidth.value" in text
    assert any(part in text for part in said.split("|"))


def test_a_number_without_a_source_is_refused(write: Callable[[Any], str]) -> None:
    board = content()
    del board["bandwidth"]["source"]
    assert "bandwidth.source" in complaint(write(board))


def test_an_unknown_key_is_refused(write: Callable[[Any], str]) -> None:
    assert "color" in complaint(write({**content(), "color": "green"}))


# --- digest ---------------------------------------------------------------------


def digest_with(write: Callable[[Any], str], change: Callable[[dict[str, Any]], Any]) -> str:
    board = content()
    change(board)
    return profile_digest(load_device(write(board)))


def test_sources_and_titles_do_not_change_the_digest(write: Callable[[Any], str]) -> None:
    def reword(board: dict[str, Any]) -> None:
        board["title"] = "another title"
        for quantity in quantities(board):
            quantity["source"] = "another source, with more words"
            quantity["confidence"] = "estimate"

    assert digest_with(write, reword) == profile_digest(load_device("xavier-nx"))


def paths(thing: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in thing.items():
        if isinstance(value, dict):
            yield from [(*at, key)] if "value" in value else paths(value, (*at, key))


def test_every_number_changes_the_digest(write: Callable[[Any], str]) -> None:
    seen = {profile_digest(load_device("xavier-nx"))}
    all_paths = [path for path in paths(content()) if path[0] != "modes"]
    from bench.costs.device_profile import ModelledDevice as Device

    board = load_device("xavier-nx").model_dump()
    for path in all_paths:
        quantity = board
        for key in path:
            quantity = quantity[key]
        quantity["value"] *= 1.05
        seen.add(profile_digest(Device.model_validate(board)))
        quantity["value"] /= 1.05
    assert len(all_paths) >= 12 + 2 * len(OPERATOR_CLASSES)
    assert len(seen) == len(all_paths) + 1


def test_no_two_shipped_profiles_have_one_digest() -> None:
    names = device_names()
    assert len({profile_digest(load_device(name)) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("agx-orin", "b638f85a6bb3c2c4359fb849e4cdaf8a9a529b2c76f5871f8d1ef2a98cd828f5"),
        ("agx-xavier", "bcb616e767786aaa4647f0a9a7cb6e1e612e4e0031bb0ecafbe6cb1f7cb1fb5c"),
        ("host", "3614483f16f086726814e24e1d1a274a0f8f0411747a55861208fce45cb3d4d3"),
        ("jetson-tx2", "deda20807f4f5d1b96dcef30885fead1f764116b0b75cf08e317285afc8e6a76"),
        ("xavier-nx", "96df7be9b79d8d0df223535cc1ae169b828300e58c40f016defc70d2238cd4c7"),
    ],
)
def test_records_of_the_first_profiles_keep_their_device(name: str, digest: str) -> None:
    assert profile_digest(load_device(name)) == digest


# --- what no board can do ---------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("memory_for_applications", 2e10, ["memory_for_applications 2e+10", "memory 1.7"]),
        ("runtime_memory", 1.6e10, ["runtime_memory 1.6e+10", "memory_for_applications 1.55"]),
        ("power_idle", 20.0, ["power_idle 20 is not below power_budget 20"]),
        ("efficiency.copy.bandwidth", 1.2, ["efficiency.copy.bandwidth.value: 1.2", "equal to 1"]),
        ("efficiency.copy.bandwidth", 0, ["efficiency.copy.bandwidth.value: 0", "than 0"]),
    ],
)
def test_an_impossible_number_is_named(
    write: Callable[[Any], str], path: str, value: float, parts: list[str]
) -> None:
    board = content()
    quantity = board
    for key in path.split("."):
        quantity = quantity[key]
    quantity["value"] = value
    text = complaint(write(board))
    assert all(part in text for part in parts), text


def test_all_memory_may_be_left_to_applications(write: Callable[[Any], str]) -> None:
    board = content()
    board["memory_for_applications"]["value"] = board["memory"]["value"]
    device = load_device(write(board))
    assert isinstance(device, ModelledDevice)
    assert device.memory_for_applications.value == device.memory.value


PARTS = ("stored", "step", "convolution", "added")
SOME = {"value": 1.5, "source": "made up for a test", "confidence": "estimate"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"cost": "guessed"}, ["key cost: 'guessed'", "'modelled'"]),
        ({"cost": None}, ["key cost"]),
        ({"bandwith": 1}, ["key bandwith is unknown", "did you mean 'bandwidth'"]),
        ({"bandwidth": 5}, ["key bandwidth: 5", "dictionary"]),
        (
            {"efficiency": {"matmul": {"bandwith": 1}}},
            ["efficiency.matmul.bandwith is unknown", "did you mean 'bandwidth'"],
        ),
        (
            {"resident_memory": {**dict.fromkeys(PARTS, SOME), "scratch": SOME}},
            ["resident_memory.scratch is unknown", "convolution"],
        ),
        ({"bandwidth": {"vaule": 1}}, ["bandwidth.vaule is unknown", "did you mean 'value'"]),
    ],
)
def test_a_complaint_names_key_value_and_cure(
    write: Callable[[Any], str], change: dict[str, Any], parts: list[str]
) -> None:
    text = complaint(write(_with(content(), change)))
    assert all(part in text for part in parts), text


def _with(board: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The board with a key more, or another value, at any depth."""
    for key, value in change.items():
        known = board.get(key)
        board[key] = (
            _with(known, value)
            if isinstance(known, dict) and known and isinstance(value, dict)
            else value
        )
    return board


def test_unknown_energy_is_another_device_whatever_the_words(write: Callable[[Any], str]) -> None:
    def digest(**more: str) -> str:
        return profile_digest(load_device(write({**content(), **more})))

    plain = profile_digest(load_device("xavier-nx"))
    assert digest(energy_unavailable="") == plain
    assert digest(energy_unavailable="no watts") == digest(energy_unavailable="none given") != plain


@pytest.mark.parametrize("key", ["cost", "bandwidth", "title"])
def test_a_missing_key_is_named(write: Callable[[Any], str], key: str) -> None:
    board = content()
    del board[key]
    assert f"key {key} is missing" in complaint(write(board))


# --- units ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("flops.float32", 844.8, ["844.8 FLOP/s", "in GFLOP/s, write 8.448e+11"]),
        ("flops.float16", 6.7584, ["in TFLOP/s, write 6.758e+12"]),
        ("bandwidth", 59.7, ["59.7 bytes/s", "in GB/s, write 5.97e+10"]),
        ("bandwidth", 59700, ["in MB/s, write 5.97e+10"]),
        ("memory", 16, ["16 bytes", "in GB, write 1.6e+10"]),
        ("memory_for_applications", 14800, ["in MB, write 1.48e+10"]),
        ("runtime_memory", 1.4e6, ["in kB, write 1.4e+09"]),
        ("memory", 1.6e7, ["in kB, write 1.6e+10"]),
        (
            "memory",
            327680,
            ["memory_for_applications: 1.55189e+10 bytes is outside 10000 to 4e+06"],
        ),
        ("launch_overhead", 50, ["50 s is outside 1e-08 to 0.005 s", "in us, write 5e-05"]),
        ("launch_overhead", 0.05, ["in ms, write 5e-05"]),
        ("power_idle", 5000, ["5000 W", "in mW, write 5"]),
        ("power_budget", 20000, ["in mW, write 20"]),
        ("power_budget", 0.02, ["in kW, write 20"]),
        ("energy_per_flop.float32", 12.95, ["12.95 J", "in pJ, write 1.295e-11"]),
        ("energy_per_flop.float32", 0.01295, ["in nJ, write 1.295e-11"]),
        ("energy_per_flop.float32", 1.295e-8, ["would draw 1.09e+04 W", "power_budget is 20 W"]),
        ("energy_per_byte", 68, ["in pJ, write 6.8e-11"]),
        ("energy_per_byte", 0.068, ["in nJ, write 6.8e-11"]),
        ("efficiency.copy.flops", 50, ["less than or equal to 1"]),
        ("efficiency.copy.flops", 1e-320, ["outside 1e-06 to "]),
        ("bandwidth", 1e308, ["1e+308 bytes/s is outside"]),
        ("bandwidth", 1e-320, ["is outside 1e+08 to 1e+14 bytes/s"]),
        ("bandwidth", True, ["bandwidth.value: True", "valid number"]),
        ("memory", [1e10], ["memory.value", "valid number"]),
        ("memory", "16 GB", ["'16 GB'", "valid number"]),
        ("memory", 10**400, ["memory.value"]),
    ],
)
def test_a_number_in_another_unit_is_named_with_its_unit(
    write: Callable[[Any], str], path: str, value: Any, parts: list[str]
) -> None:
    board = content()
    quantity = board
    for key in path.split("."):
        quantity = quantity[key]
    quantity["value"] = value
    text = complaint(write(board))
    assert path in text
    assert all(part in text for part in parts), text
    assert len(text) < 400


def test_a_mode_in_another_unit_is_named(write: Callable[[Any], str]) -> None:
    board = content()
    board["modes"]["10w"]["launch_overhead"]["value"] = 59.7
    assert "key modes.10w.launch_overhead: 59.7 s is outside" in complaint(write(board))


def test_points_of_curves_in_another_unit_are_named(write: Callable[[Any], str]) -> None:
    def with_points(*points: list[Any]) -> str:
        curve = {"of": "matmul", "points": {"float32": list(points)}}
        source = {"source": "made up for this test", "confidence": "measured"}
        curves = {**source, "kinds": {"mm.nn": curve}}
        return write({**content(), "modes": {}, "curves": curves})

    load_device(with_points([1e6, 1e4, 1e-3], [0, 4, 1e-5]))
    at = "curves.kinds.mm.nn.points.float32.0"
    assert f"{at}: 1e+06 s is outside" in complaint(with_points([1e6, 1e4, 1e6]))
    assert f"{at}: 1e+20 operations are above" in complaint(with_points([1e20, 1e4, 1.0]))
    assert f"{at}.2: True" in complaint(with_points([1e6, 1e4, True]))
    many = [[1e6, 1e4, 1e-3]] * 5001
    assert "5001 points are more than 5000" in complaint(with_points(*many))


@pytest.mark.parametrize("text", ["5.97e10", "59700000000", "5.97E+10"])
def test_a_number_that_yaml_takes_for_text_is_one(write: Callable[[Any], str], text: str) -> None:
    board = content()
    board["bandwidth"]["value"] = text
    assert load_device(write(board)).bandwidth.value == 5.97e10
