"""RAPL: what is added and what is not, turns of the counter, and counters one may not read."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from bench.meters.base import MeterError
from bench.meters.rapl import RaplMeter


def meter(machine: Any, clock: Any, lock: Any) -> RaplMeter:
    return RaplMeter(machine.root, clock=clock, ticker=clock.ticker, lock=lock)


def complaint(machine: Any) -> str:
    with pytest.raises(MeterError) as caught:
        RaplMeter(machine.root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def add(zone: Any, microjoules: int) -> None:
    file = zone / "energy_uj"
    file.write_text(str(int(file.read_text()) + microjoules))


def test_packages_and_memory_are_added_and_nothing_twice(
    machine: Any, clock: Any, lock: Any
) -> None:
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:0:2": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    folders = {zone: machine.rapl(zone, name, 7_000_000) for zone, name in zones.items()}
    (machine.root / "sys/class/powercap/intel-rapl").mkdir()
    rapl = meter(machine, clock, lock)
    assert rapl.scope == (
        "processor packages and memory: package-0 + dram of package-0 + package-1 + "
        "dram of package-1"
    )
    rapl.begin()
    clock.sleep(2.5)
    for i, folder in enumerate(folders.values()):
        add(folder, 10**i * 1000)
    # 10^0, 10^3, 10^4 and 10^5 mJ: package-0, its dram, package-1, its dram
    assert rapl.end().joules == pytest.approx((1 + 1_000 + 10_000 + 100_000) * 1e-3)


def test_a_package_without_memory(machine: Any, clock: Any, lock: Any) -> None:
    machine.rapl("intel-rapl:0", "package-0", 0)
    machine.rapl("intel-rapl:0:0", "core", 0)
    assert meter(machine, clock, lock).scope == "processor packages: package-0"


def test_a_counter_that_begins_again(machine: Any, clock: Any, lock: Any) -> None:
    zone = machine.rapl("intel-rapl:0", "package-0", 262_143_000_000)
    rapl = meter(machine, clock, lock)
    rapl.begin()
    clock.sleep(2.0)
    (zone / "energy_uj").write_text("30000000")
    assert rapl.end().joules == pytest.approx(0.32885 + 30.0)


def test_a_machine_without_rapl(machine: Any) -> None:
    text = complaint(machine)
    assert "no RAPL package among no zones in" in text
    assert "load the kernel module intel_rapl_msr" in text


def test_a_platform_counter_alone_is_no_package(machine: Any) -> None:
    machine.rapl("intel-rapl:0", "psys", 5)
    assert "no RAPL package among intel-rapl:0 in" in complaint(machine)


def test_a_user_who_may_not_read_the_counter(machine: Any, refuse: Any) -> None:
    file = machine.rapl("intel-rapl:0", "package-0", 5) / "energy_uj"
    refuse(file, PermissionError(errno.EACCES, "Permission denied"))
    assert complaint(machine) == (
        f"{file} may not be read by this user; run as root or grant read permission to it"
    )


def test_a_counter_that_shows_nonsense(machine: Any) -> None:
    file = machine.rapl("intel-rapl:0", "package-0", 5) / "energy_uj"
    file.write_text("many")
    assert f"{file} holds 'many', not a number" in complaint(machine)
    file.write_text("300000000000")
    assert "counter package-0 reads 300000 J, outside 0 to 262143 J" in complaint(machine)


def test_a_counter_that_stands_still(machine: Any, clock: Any, lock: Any) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5)
    rapl = meter(machine, clock, lock)
    rapl.begin()
    clock.sleep(2.0)
    with pytest.raises(MeterError, match="did not move in 2 s; it is stuck, or nothing counts"):
        rapl.end()
