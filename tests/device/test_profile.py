"""Device profiles: complete, plausible, each number with its source; errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.device.profile import (
    OPERATOR_CLASSES,
    PROFILES,
    MeasuredDevice,
    ModelledDevice,
    device_names,
    load_device,
    profile_digest,
)
from bench.errors import BenchError

SHIPPED = sorted(p.stem for p in PROFILES.glob("*.yaml"))
MODELLED = [n for n in SHIPPED if n != "host"]


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
    assert len(MODELLED) >= 4


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_under_its_file_name(name: str) -> None:
    assert load_device(name).name == name


def test_the_host_is_measured() -> None:
    assert isinstance(load_device("host"), MeasuredDevice)


@pytest.mark.parametrize("name", MODELLED)
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
    assert device.memory_for_applications.value < device.memory.value
    assert device.power_idle.value < device.power_budget.value
    assert set(device.flops) == set(device.energy_per_flop)
    assert 1e11 < device.flops["float32"].value < 1e14
    assert 1e10 < device.bandwidth.value < 1e12
    assert 1e-6 < device.launch_overhead.value < 1e-3
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
    assert len(found) >= 12 + 2 * len(OPERATOR_CLASSES)
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
    assert "colour" in complaint(write({**content(), "colour": "green"}))


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
    all_paths = list(paths(content()))
    from bench.device.profile import ModelledDevice as Device

    board = load_device("xavier-nx").model_dump()
    for path in all_paths:
        quantity = board
        for key in path:
            quantity = quantity[key]
        quantity["value"] *= 1.5
        seen.add(profile_digest(Device.model_validate(board)))
        quantity["value"] /= 1.5
    assert len(all_paths) >= 12 + 2 * len(OPERATOR_CLASSES)
    assert len(seen) == len(all_paths) + 1


def test_no_two_shipped_profiles_have_one_digest() -> None:
    assert len({profile_digest(load_device(name)) for name in SHIPPED}) == len(SHIPPED)
