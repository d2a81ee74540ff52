"""The energy counters of x86 processors (RAPL), read through the kernel's powercap files.

Under ``/sys/class/powercap``, ``intel-rapl:N`` is a processor package (AMD's too), or the platform
(``psys``), and ``intel-rapl:N:M`` a part of it. Packages and their ``dram`` are added: cores and
graphics are inside the package, the platform holds the packages, ``intel-rapl-mmio`` shows the same
package again, and memory stands beside them (Intel SDM volume 3, section 14.9, and Intel community
thread 1143474; Linux, Documentation/power/powercap). Since Linux 5.10 only root may read the
counters (CVE-2020-8694).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Unpack

from bench.meters.base import MeterError, Options, read_number, read_text
from bench.meters.counter import Counter, CounterMeter

PACKAGE_W = 1000.0
"""No processor package draws as much, nor its memory; a counter that rises faster was reset."""


class RaplMeter(CounterMeter):
    """Energy of the processor packages and of the memory that RAPL sees; not of the whole machine.

    Raises MeterError if there are no counters or this user may not read them.
    """

    def __init__(self, root: Path = Path("/"), **options: Unpack[Options]) -> None:
        counters = _counters(root / "sys/class/powercap")
        packages = [c for c in counters if c.name.startswith("package")]
        memory = " and memory" if len(counters) > len(packages) else ""
        scope = f"processor packages{memory}: {' + '.join(c.name for c in counters)}"
        super().__init__("RAPL", scope, counters, ceiling_w=PACKAGE_W, **options)


def _counters(folder: Path) -> list[Counter]:
    zones = sorted(
        z for z in folder.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl(:\d+){1,2}", z.name)
    )
    named = {zone: read_text(zone / "name") for zone in zones}
    chosen: list[tuple[Path, str]] = []
    for package in (z for z in zones if z.name.count(":") == 1 and named[z].startswith("package")):
        drams = [z for z in zones if z.name.startswith(f"{package.name}:") and named[z] == "dram"]
        chosen.append((package, named[package]))
        chosen += [(dram, f"dram of {named[package]}") for dram in drams]
    if not chosen:
        raise MeterError(
            f"no RAPL package among {', '.join(z.name for z in zones) or 'no zones'} in {folder}; "
            "load the kernel module intel_rapl_msr (virtual machines and ARM have no RAPL)"
        )
    return [
        Counter(name, partial(_joules, zone / "energy_uj"), _joules(zone / "max_energy_range_uj"))
        for zone, name in chosen
    ]


def _joules(file: Path) -> float:
    return read_number(file) * 1e-6
