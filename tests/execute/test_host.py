"""--device host measures on this machine and models nothing."""

from __future__ import annotations


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
