"""Boards with power sensors of their own: how each is recognised and which rails make its total.

Rails that overlap must not be added, and a rail's name is not always what it feeds. Sources:

[G]  NVIDIA Jetson Linux Developer Guide, "Software-Based Power Consumption Modeling": the INA3221
     channels of each module (L4T 32.6 and 32.7 for TX2 and Xavier; r34.1, r35 and r36 for Orin), as
     [E] gives them.
[E]  energymon (UCHIC), jetson/JetsonPowerRails.md: the names in L4T's device trees where the
     guide has others, and which rails feed which.
[K]  Linux, "arm64: tegra: Add power-sensors for Tegra234 boards" (J. Hunter, NVIDIA, 2023):
     labels and shunts of p3701 (AGX Orin) and p3767 (Orin NX and Nano).
[NX] NVIDIA developer forum 200883: VDD_IN is the module's total; VDD_CPU_GPU_CV holds the
     accelerators too, and DDR and interfaces are in VDD_IN alone.
[N]  NVIDIA developer forum 73608 (quoted in jetson_stats issue 51): POM_5V_IN is the total input.
[AX] NVIDIA developer forum 81016 (in [E]), and Jetson AGX Xavier Product Design Guide DG-09840
     sections 5.2 and 5.6.2: no rail of the whole; six supplies side by side.
[AO] NVIDIA developer forum 223111 (in [E]): SYS_VIN_HV feeds GPU, SOC, CPU and CV; VIN_SYS_5V0 is
     the other input and feeds VDDQ_VDD2_1V8AO, which would be counted twice.
[T]  NVIDIA developer forum 366461: Thor's INA238 measures the whole input, carrier board
     included; jetson_stats pull request 900 takes its rail VIN as the total.
[P]  Module numbers: jetson_stats, jetson_variables.py, and issues 514, 711 and 864 (real boards).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.meters.errors import MeterError, ReadFailed
from bench.meters.sysfs import read_text


@dataclass(frozen=True)
class Board:
    """A board's power rails.

    Attributes
    ----------
    parts : module numbers in the device tree's ``compatible``
    models : what the device tree's ``model`` may contain instead
    total : rails that overlap nowhere; their sum is the board's power
    covers : what that sum is the power of
    rails : every rail of the module's own sensors, with what it feeds
    budget_w : watts of the highest power mode; readings above 10 times this are nonsense
    """

    name: str
    parts: tuple[str, ...]
    models: tuple[str, ...]
    total: tuple[str, ...]
    covers: str
    rails: Mapping[str, str]
    budget_w: float


_MODULE = "module, without its carrier board"

_ONE_SENSOR = {
    "VDD_IN": "the whole module",
    "VDD_CPU_GPU_CV": "CPU, GPU and vision accelerators together",
    "VDD_SOC": "the rest of the chip",
}

BOARDS: tuple[Board, ...] = (
    Board(  # [G] [E]; p2771 is the developer kit, as Linux names it; TX2i has no VDD_4V0_WIFI
        name="jetson-tx2",
        parts=("p3310", "p3489", "p2771"),
        models=("quill", "Jetson TX2 Developer"),
        total=("VDD_IN",),
        covers=_MODULE,
        rails={
            "VDD_IN": "the whole module",
            "VDD_SYS_GPU": "GPU",
            "VDD_SYS_SOC": "the rest of the chip",
            "VDD_SYS_CPU": "CPU",
            "VDD_SYS_DDR": "memory",
            "VDD_4V0_WIFI": "wireless network",
        },
        budget_w=15.0,
    ),
    Board(  # [E]
        name="jetson-tx2-nx",
        parts=("p3636",),
        models=("TX2 NX",),
        total=("VDD_IN",),
        covers=_MODULE,
        rails={
            "VDD_IN": "the whole module",
            "VDD_CPU_GPU": "CPU and GPU together",
            "VDD_SOC": "the rest of the chip",
        },
        budget_w=15.0,
    ),
    Board(  # [E] [N]; the 2 GB variant has no sensor
        name="jetson-nano",
        parts=("p3448",),
        models=("Jetson Nano",),
        total=("POM_5V_IN",),
        covers=_MODULE,
        rails={"POM_5V_IN": "the whole module", "POM_5V_GPU": "GPU", "POM_5V_CPU": "CPU"},
        budget_w=10.0,
    ),
    Board(  # [G] [E] [NX]
        name="jetson-xavier-nx",
        parts=("p3668",),
        models=("Xavier NX",),
        total=("VDD_IN",),
        covers=_MODULE,
        rails=_ONE_SENSOR,
        budget_w=20.0,
    ),
    Board(  # [G] [E] [AX]; p2972 is the developer kit, as Linux names it
        name="jetson-agx-xavier",
        parts=("p2888", "p2972"),
        models=("Jetson-AGX", "AGX Xavier"),
        total=("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        covers=_MODULE,
        rails={
            "GPU": "GPU",
            "CPU": "CPU",
            "SOC": "the rest of the chip",
            "CV": "deep-learning and vision accelerators",
            "VDDRQ": "memory",
            "SYS5V": "the module's 5 V input: regulators and interfaces",
        },
        budget_w=30.0,
    ),
    Board(  # [G] [E] [K] [AO]; forum 323456: 40 W with 32 GB, 60 W with 64 GB, 75 W industrial
        name="jetson-agx-orin",
        parts=("p3701",),
        models=("AGX Orin",),
        total=("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        covers=_MODULE,
        rails={
            "VDD_GPU_SOC": "GPU and the rest of the chip",
            "VDD_CPU_CV": "CPU and vision accelerators",
            "VIN_SYS_5V0": "the module's 5 V input: memory, regulators and interfaces",
            "VDDQ_VDD2_1V8AO": "memory; fed by VIN_SYS_5V0 and so counted there",
        },
        budget_w=75.0,
    ),
    Board(  # [G] [K]; one part number with Orin NX, the same sensor; NX: 40 W in its highest mode
        name="jetson-orin-nano-or-nx",
        parts=("p3767",),
        models=("Orin Nano", "Orin NX"),
        total=("VDD_IN",),
        covers=_MODULE,
        rails=_ONE_SENSOR,
        budget_w=40.0,
    ),
    Board(  # [T]; the limit of the input, 168 W
        name="jetson-agx-thor",
        parts=("p3834",),
        models=("AGX Thor",),
        total=("VIN",),
        covers="module and carrier board",
        rails={
            "VIN": "the whole input, carrier board included",
            "VDD_GPU": "GPU",
            "VDD_CPU_SOC_MSS": "CPU, SOC and MSS together",
            "VIN_SYS_5V0": "the 5 V input",
        },
        budget_w=168.0,
    ),
)


def recognise(root: Path = Path("/")) -> Board:
    """The board whose device tree lies under ``root``.

    Raises MeterError if it is none of ``BOARDS``.
    """
    compatible, model = _property(root, "compatible"), _property(root, "model")
    if not compatible and not model:
        raise MeterError(
            f"{root / 'proc/device-tree'} names no board; this machine has no device tree, so it "
            "is no Jetson"
        )
    for board in BOARDS:
        if any(part in compatible for part in board.parts):
            return board
    for board in BOARDS:  # other makers' carrier boards may have renamed the module
        if any(text in model for text in board.models):
            return board
    known = ", ".join(board.name for board in BOARDS)
    raise MeterError(
        f"board {model!r} ({compatible.replace(chr(0), ' ')}) has no rail table; known: {known}; "
        "add it to bench/meters/boards.py with a source"
    )


def _property(root: Path, name: str) -> str:
    try:
        return read_text(root / "proc/device-tree" / name)
    except ReadFailed:
        return ""
