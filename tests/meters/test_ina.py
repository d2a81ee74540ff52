"""Jetson boards made of files: the right total, and missing, unreadable and nonsensical sensors."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from bench.meters.base import MeterError
from bench.meters.ina import Board, InaMeter, boards, find_rails, recognise

XAVIER_NX = ("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194")
AGX_ORIN = ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234")


def xavier_nx(machine: Any) -> Path:
    machine.device_tree(XAVIER_NX, "NVIDIA Jetson Xavier NX Developer Kit")
    return machine.ina3221(
        "7-0040", ("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 5000, 600), ("VDD_SOC", 5000, 300)
    )


def xavier_nx_on_l4t_32(machine: Any) -> Path:
    machine.device_tree(XAVIER_NX, "NVIDIA Jetson Xavier NX Developer Kit")
    return machine.ina3221x("7-0040", ("VDD_IN", 7500), ("VDD_CPU_GPU_CV", 3000), ("VDD_SOC", 1500))


def tx2(machine: Any) -> None:
    machine.device_tree(("nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"), "quill")
    machine.ina3221x("0-0040", ("VDD_SYS_GPU", 1200), ("VDD_SYS_SOC", 900), ("VDD_4V0_WIFI", 38))
    machine.ina3221x("0-0041", ("VDD_IN", 5250), ("VDD_SYS_CPU", 1500), ("VDD_SYS_DDR", 700))
    machine.ina3221x("0-0042", ("VDD_MUX", 6000), ("VDD_5V0_IO_SYS", 2000), ("VDD_3V3_SYS", 500))


def agx_xavier(machine: Any) -> None:
    machine.device_tree(("nvidia,p2822-0000+p2888-0001", "nvidia,tegra194"), "Jetson-AGX")
    machine.ina3221("1-0040", ("GPU", 19000, 500), ("CPU", 19000, 100), ("SOC", 19000, 100))
    machine.ina3221("1-0041", ("CV", 19000, 0), ("VDDRQ", 19000, 50), ("SYS5V", 5000, 400))


def agx_orin(machine: Any) -> Path:
    machine.device_tree(AGX_ORIN, "Jetson AGX Orin")
    chip = machine.ina3221(
        "1-0040",
        ("VDD_GPU_SOC", 20000, 400),
        ("VDD_CPU_CV", 20000, 100),
        ("VIN_SYS_5V0", 5000, 1000),
    )
    machine.ina3221("1-0041", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0))
    return chip


def orin_nano(machine: Any) -> None:
    machine.device_tree(
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    )
    machine.ina3221(
        "1-0040", ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)
    )


def agx_thor(machine: Any) -> None:
    machine.device_tree(
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        "NVIDIA Jetson AGX Thor Developer Kit",
    )
    machine.ina3221(
        "2-0040", ("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 200), ("VIN_SYS_5V0", 5000, 9)
    )
    machine.ina238("2-0044", "VIN", 23_500_000)


RIGHT = [
    (tx2, "jetson-tx2", 5.25, "VDD_IN"),
    (xavier_nx, "jetson-xavier-nx", 7.5, "VDD_IN"),
    (xavier_nx_on_l4t_32, "jetson-xavier-nx", 7.5, "VDD_IN"),
    (
        agx_xavier,
        "jetson-agx-xavier",
        19 * (0.5 + 0.1 + 0.1 + 0 + 0.05) + 2.0,
        "GPU + CPU + SOC + CV + VDDRQ + SYS5V",
    ),
    # 8 + 2 + 5 W; the 1 W of VDDQ_VDD2_1V8AO are part of VIN_SYS_5V0
    (agx_orin, "jetson-agx-orin", 15.0, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
    (orin_nano, "jetson-orin-nano-or-nx", 6.0, "VDD_IN"),
    (agx_thor, "jetson-agx-thor", 23.5, "VIN"),
]


def complaint(machine: Any, **options: Any) -> str:
    with pytest.raises(MeterError) as caught:
        InaMeter(machine.root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- right -------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "board", "watts", "total"), RIGHT)
def test_a_board_measures_its_total_and_says_what_it_covers(
    machine: Any,
    clock: Any,
    sampling: Any,
    lock: Any,
    build: Any,
    board: str,
    watts: float,
    total: str,
) -> None:
    build(machine)
    meter = InaMeter(machine.root, sampling=sampling, lock=lock)
    meter.begin()
    clock.sleep(2.0)
    energy = meter.end()
    assert energy.joules == pytest.approx(2 * watts, rel=1e-9)
    covers = "module and carrier board" if "thor" in board else "module, without its carrier board"
    assert meter.scope == f"{covers}: {total}"
    assert energy.how.startswith(f"{board}'s power sensor ({meter.scope}), 8 samples/s")


def test_a_window_follows_what_the_files_show(
    machine: Any, clock: Any, sampling: Any, lock: Any
) -> None:
    chip = xavier_nx(machine)
    meter = InaMeter(machine.root, sampling=sampling, lock=lock)
    meter.begin()
    clock.sleep(1.0)
    (chip / "curr1_input").write_text("3500\n")
    clock.sleep(1.0)
    # 7.5 W for 1 s, 17.5 W for 1 s, and the step between two readings an eighth apart
    energy = meter.end()
    assert energy.watts == (7.5,) * 8 + (17.5,) * 8
    assert energy.joules == pytest.approx(7.5 + 17.5, abs=(17.5 - 7.5) / 8)


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
def test_a_rail_table_is_consistent(board: Board) -> None:
    assert set(board.total) <= set(board.rails)
    assert len(set(board.total)) == len(board.total)
    assert board.budget_w >= 10


def test_rails_that_hold_several_parts_say_so() -> None:
    rails = {name: feeds for board in boards() for name, feeds in board.rails.items()}
    assert "GPU" in rails["VDD_CPU_GPU_CV"]
    assert "fed by VIN_SYS_5V0" in rails["VDDQ_VDD2_1V8AO"]


def test_no_part_or_model_belongs_to_two_boards() -> None:
    for kind in ("parts", "models"):
        texts = [text for board in boards() for text in getattr(board, kind)]
        assert not [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :] if a in b or b in a]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Jetson AGX Orin", "jetson-agx-orin"),
        ("NVIDIA Orin Nano Developer Kit", "jetson-orin-nano-or-nx"),
        ("quill", "jetson-tx2"),
        ("Jetson-AGX", "jetson-agx-xavier"),
    ],
)
def test_a_renamed_module_is_recognised_by_its_model(machine: Any, model: str, name: str) -> None:
    machine.device_tree(("somebody,carrier",), model)
    assert recognise(machine.root).name == name


def test_sums_of_shunts_and_unconnected_channels_are_no_rails_of_the_total(machine: Any) -> None:
    agx_orin(machine)
    rails, failed = find_rails(machine.root)
    names = [rail.name for rail in rails]
    assert not failed
    assert sorted(names) == sorted(
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "NC", "VDDQ_VDD2_1V8AO", "NC"]
    )


# --- missing -----------------------------------------------------------------------


def test_a_machine_without_device_tree_is_no_jetson(machine: Any) -> None:
    assert "this machine has no device tree, so it is no Jetson" in complaint(machine)


def test_an_unknown_board_is_named_with_the_cure(machine: Any) -> None:
    machine.device_tree(("raspberrypi,5-model-b", "brcm,bcm2712"), "Raspberry Pi 5 Model B Rev 1.0")
    text = complaint(machine)
    assert "board 'Raspberry Pi 5 Model B Rev 1.0' (raspberrypi,5-model-b brcm,bcm2712)" in text
    assert "known: jetson-tx2, " in text
    assert "add it to bench/meters/boards.yaml" in text


def test_a_board_whose_driver_is_not_loaded(machine: Any) -> None:
    machine.device_tree(AGX_ORIN, "Jetson AGX Orin")
    assert "jetson-agx-orin: no INA3221 or INA238 with named rails under" in complaint(machine)


def test_a_missing_rail_makes_no_smaller_total(machine: Any) -> None:
    machine.device_tree(AGX_ORIN, "Jetson AGX Orin")
    machine.ina3221("1-0040", ("VDD_GPU_SOC", 20000, 400), ("VDD_CPU_CV", 20000, 100))
    text = complaint(machine)
    assert "0 rails are called VIN_SYS_5V0" in text
    assert "found VDD_CPU_CV, VDD_GPU_SOC, expected VDD_GPU_SOC" in text


def test_a_rail_that_appears_twice_is_not_added_twice(machine: Any) -> None:
    xavier_nx(machine)
    machine.ina3221("7-0041", ("VDD_IN", 5000, 1500))
    assert "2 rails are called VDD_IN, of which its total needs one" in complaint(machine)


@pytest.mark.parametrize("name", ["in1_input", "curr1_input"])
def test_a_rail_without_its_value(machine: Any, name: str) -> None:
    file = xavier_nx(machine) / name
    file.unlink()
    assert complaint(machine) == f"{file} cannot be read: No such file or directory"


# --- unreadable --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in1_label", "in1_input", "curr1_input"])
def test_a_file_that_the_user_may_not_read(machine: Any, refuse: Any, name: str) -> None:
    file = xavier_nx(machine) / name
    refuse(file, PermissionError(errno.EACCES, "Permission denied"))
    assert complaint(machine) == (
        f"{file} may not be read by this user; run as root or grant read permission to it"
    )


def test_other_channels_that_cannot_be_read_do_not_matter(
    machine: Any, lock: Any, refuse: Any
) -> None:
    chip = agx_orin(machine).parents[2] / "1-0041/hwmon/hwmon1"
    for name in ("in1_label", "in2_input", "curr3_input"):  # as on a real board: alumet issue 212
        assert (chip / name).is_file()
        refuse(chip / name, OSError(errno.ENODATA, "No data available"))
    assert InaMeter(machine.root, lock=lock).scope.endswith("VIN_SYS_5V0")


def test_a_channel_that_is_switched_off(machine: Any, refuse: Any) -> None:
    file = xavier_nx(machine) / "curr1_input"
    refuse(file, OSError(errno.ENODATA, "No data available"))
    assert complaint(machine) == f"{file} cannot be read: No data available"


def test_a_sensor_that_stops_in_a_window(
    machine: Any, clock: Any, sampling: Any, lock: Any, refuse: Any
) -> None:
    file = xavier_nx(machine) / "curr1_input"
    meter = InaMeter(machine.root, sampling=sampling, lock=lock)
    meter.begin()
    clock.sleep(1.0)
    refuse(file, OSError(errno.EIO, "Input/output error"))
    clock.sleep(1.0)
    with pytest.raises(MeterError, match="curr1_input cannot be read: Input/output error"):
        meter.end()


# --- nonsensical -------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "error", "nan", "inf", "12 34"])
def test_a_value_that_is_no_number(machine: Any, text: str) -> None:
    file = xavier_nx(machine) / "curr1_input"
    file.write_text(text)
    assert f"{file} holds {text!r}, not a number" in complaint(machine)


@pytest.mark.parametrize(
    ("milliamperes", "why"),
    [
        (0, "VDD_IN reads 0 W; a running device draws more than 0"),
        (-100, "VDD_IN reads -0.5 W; a running device draws more than 0"),
        (-1500, "rail VDD_IN reads -7.5 W"),
        (1_500_000, "VDD_IN reads 7500 W, above 200 W"),
    ],
)
def test_a_total_that_no_board_draws(machine: Any, milliamperes: int, why: str) -> None:
    (xavier_nx(machine) / "curr1_input").write_text(str(milliamperes))
    assert why in complaint(machine)


def test_a_rail_at_rest_may_read_a_little_below_zero(machine: Any, lock: Any) -> None:
    chip = agx_orin(machine)
    (chip / "curr2_input").write_text("-40")  # the sensor's offset: 80 uV over 2 mOhm
    meter = InaMeter(machine.root, lock=lock)
    # not clipped: that would add the offset of rails at rest and not take it from the others
    assert sum(rail.watts() for rail in meter.rails) == pytest.approx(8.0 - 0.8 + 5.0)


def test_a_rail_far_below_zero_spoils_the_sum(machine: Any) -> None:
    (agx_orin(machine) / "curr2_input").write_text("-400")
    assert "rail VDD_CPU_CV reads -8 W" in complaint(machine)
