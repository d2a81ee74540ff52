"""--device host measures on this machine and models nothing."""

from __future__ import annotations

import pytest

from bench.execute.launcher import HUGE_PAGES

TELLS = '''
import os
from bench import Method, register


@register("method", "tells")
class Tells(Method):
    """Says how its process gets memory."""

    def adapt(self, domain, window):
        print("memory:", os.environ.get("GLIBC_TUNABLES", "as usual"), flush=True)
'''


def test_host_measures_time_and_memory_and_knows_no_energy(workplace):
    done = workplace.run(
        "run", "--methods", "source-only,shot", "--seeds", "0",
        "--device", "host", "--device", "xavier-nx",
    )  # fmt: skip
    records = workplace.records()
    assert {r.status for r in records.values()} == {"ok"}
    costs = records[("shot", 0, "host")].results.costs
    assert costs.adaptation_time.kind == "measured"
    assert 0 < costs.adaptation_time.value < records[("shot", 0, "host")].wall_s
    assert costs.inference_time.value > 0
    assert (costs.adaptation_energy.kind, costs.adaptation_energy.value) == ("unavailable", None)
    assert "no energy meter" in costs.adaptation_energy.how
    assert costs.peak_memory.kind == "measured"
    assert costs.peak_memory.value > 1e6
    assert costs.flops is None
    modelled = records[("shot", 0, "xavier-nx")]
    assert modelled.run != records[("shot", 0, "host")].run, "counting would slow what is timed"
    assert [d.after for d in modelled.results.domains] == [
        d.after for d in records[("shot", 0, "host")].results.domains
    ]
    assert "unavailable" in done.stdout
    assert "(costs measured)" in done.stdout
    assert "(costs modelled)" in done.stdout


@pytest.mark.parametrize("own", ["", "glibc.malloc.top_pad=131072"])
def test_only_what_is_not_measured_gets_huge_pages_and_a_users_choice_stands(workplace, own):
    (workplace.folder / "tells.py").write_text(TELLS)
    workplace.environment.pop("GLIBC_TUNABLES", None)
    if own:
        workplace.environment["GLIBC_TUNABLES"] = own
    workplace.run(
        "run", "--plugin", "tells.py", "--methods", "tells", "--seeds", "0",
        "--device", "host", "--device", "xavier-nx",
    )  # fmt: skip
    told = {}
    for (_, _, device), record in workplace.records().items():
        assert record.status == "ok"
        log = (workplace.folder / "store" / record.log).read_text()
        told[device] = log.split("memory: ")[1].splitlines()[0]
    assert told["host"] == (own or "as usual")
    assert told["xavier-nx"] == (own or HUGE_PAGES["GLIBC_TUNABLES"])
