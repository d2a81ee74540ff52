"""Same seed, same numbers: whatever the number of jobs, processes or devices."""

from __future__ import annotations

from bench.records.store import Store

INLINE = ("--executor", "inline")
"""Where what is asked is the same in processes of their own, as the first test shows."""


def accuracies(records):
    return {
        key: [(d.name, d.before, d.after, d.final, d.steps) for d in r.results.domains]
        for key, r in records.items()
    }


def test_one_job_and_two_jobs_and_inline_give_bit_equal_accuracies(workplace):
    suite = workplace.folder / "tiny.yaml"
    suite.write_text(
        suite.read_text().replace("[source-only, tent, shot]", "[tent, shot]")
        + "supervised_references: [ewc]\n"
    )
    workplace.run("run", "--jobs", "1", "--store", "one")
    workplace.run("run", "--jobs", "2", "--store", "two")
    workplace.run("run", *INLINE, "--store", "inline", "--seeds", "0", "--methods", "tent,shot")
    one = accuracies(workplace.records("one"))
    assert one == accuracies(workplace.records("two"))
    inline = accuracies(workplace.records("inline"))
    assert inline == {k: v for k, v in one.items() if k[1] == 0 and k[0] != "ewc"}
    assert len(one) == 6
    assert one[("tent", 0, "xavier-nx")] != one[("tent", 1, "xavier-nx")]


def test_every_global_generator_is_seeded(workplace):
    def drawn(store):
        workplace.run("run", "--methods", "draws", "--store", store)
        lines = {}
        for (_, seed, _), record in workplace.records(store).items():
            log = (workplace.folder / store / record.log).read_text()
            lines[seed] = [line for line in log.splitlines() if line.startswith("drew")]
        return lines

    first = drawn("first")
    assert first == drawn("second")
    for one, other in zip(*first.values(), strict=True):
        assert not set(one.split()[1:]) & set(other.split()[1:])


def test_devices_share_one_training_where_the_window_does_not_bind(workplace):
    devices = ("--device", "xavier-nx", "--device", "agx-orin", "--device", "jetson-tx2")
    plan = workplace.run("plan", "--methods", "shot", "--seeds", "0", *devices)
    assert "1 training instead of 3: devices share one" in plan.stdout
    workplace.run("run", "--methods", "shot", "--seeds", "0", *INLINE, *devices)
    records = workplace.records()
    assert len({r.run for r in records.values()}) == 1
    assert len(records) == 3
    results = list(accuracies(records).values())
    assert results[0] == results[1] == results[2]
    times = {d: r.results.costs.adaptation_time.value for (_, _, d), r in records.items()}
    assert times["agx-orin"] < times["xavier-nx"] < times["jetson-tx2"]


def test_where_the_window_binds_each_device_gets_what_it_would_alone(workplace):
    suite = workplace.folder / "tiny.yaml"
    suite.write_text(suite.read_text().replace("window_s: 60", "window_s: 0.02"))
    methods = ("--methods", "tent", "--seeds", "0", *INLINE)
    text = suite.read_text().replace("[source-only, tent, shot]", "[{name: tent, epochs: 20}]")
    suite.write_text(text)
    both = ("--device", "agx-orin", "--device", "jetson-tx2")
    workplace.run("run", *methods, *both)
    workplace.run("run", *methods, "--device", "jetson-tx2", "--store", "alone")
    together, alone = workplace.records(), workplace.records("alone")
    slow, fast = together[("tent", 0, "jetson-tx2")], together[("tent", 0, "agx-orin")]
    assert slow.run != fast.run, "the slower device must train for itself"
    assert slow.results.domains == alone[("tent", 0, "jetson-tx2")].results.domains
    for record in (slow, fast):
        assert all(d.window_closed for d in record.results.domains)
    for domain in slow.results.domains[1:]:
        assert domain.time_s <= 0.02
    assert fast.results.domains[1].steps > slow.results.domains[1].steps > 0


def test_a_window_shorter_than_a_step_is_recorded_as_unsupported(workplace):
    suite = workplace.folder / "tiny.yaml"
    suite.write_text(suite.read_text().replace("window_s: 60", "window_s: 0.0001"))
    workplace.run("run", "--methods", "tent", "--seeds", "0", *INLINE)
    record = workplace.records()[("tent", 0, "xavier-nx")]
    assert record.status == "unsupported"
    assert "longer than the whole window of 0.0001 s" in record.reason


def test_a_calibrated_device_records_what_the_process_takes_and_no_made_up_energy(workplace):
    from bench.costs.device_profile import PROFILES

    text = (PROFILES / "jetson-tx2.yaml").read_text() + "energy_unavailable: no watts were given\n"
    text += "resident_memory:\n"
    for part, value in {"stored": 2, "step": 3, "convolution": 1, "added": 5e6}.items():
        text += (
            f"  {part}: {{value: {value!r}, source: made up for a test, confidence: estimate}}\n"
        )
    (workplace.folder / "mine.yaml").write_text(text)
    workplace.run(
        "run", "--methods", "shot", "--seeds", "0", *INLINE,
        "--device", "mine.yaml", "--device", "jetson-tx2",
    )  # fmt: skip
    records = workplace.records()
    mine, plain = (records[("shot", 0, d)].results for d in ("mine.yaml", "jetson-tx2"))
    assert mine.costs.peak_memory.value == plain.costs.peak_memory.value
    low, high = (f * mine.costs.peak_memory.value + 5e6 for f in (2, 3))
    assert low < mine.costs.resident_memory.value < high
    assert mine.costs.resident_memory.kind == "modelled"
    assert mine.costs.resident_memory.how.endswith("; memory that the process takes")
    assert plain.costs.resident_memory.kind == "unavailable"
    for amount in (mine.costs.adaptation_energy, mine.costs.inference_energy):
        assert (amount.value, amount.how) == (None, "no watts were given")
    assert {d.energy_j for d in mine.domains} == {None}
    assert all(d.energy_j > 0 for d in plain.domains)


def test_a_device_without_the_memory_is_recorded_as_oom_and_the_others_go_on(workplace):
    from bench.costs.device_profile import PROFILES

    text = (PROFILES / "jetson-tx2.yaml").read_text()
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("memory_for_applications"))
    lines[at + 1] = "  value: 1.2005e+9"
    (workplace.folder / "small.yaml").write_text("\n".join(lines))
    workplace.run(
        "run", "--methods", "shot", "--seeds", "0", *INLINE,
        "--device", "small.yaml", "--device", "xavier-nx",
    )  # fmt: skip
    records = workplace.records()
    assert records[("shot", 0, "xavier-nx")].status == "ok"
    small = records[("shot", 0, "small.yaml")]
    assert (small.status, small.oom_on) == ("oom", "device")
    assert "leaves 1200.5 MB to applications" in small.reason


def test_a_stream_that_does_not_wait_runs_on_each_device_and_at_other_speeds(workplace):
    suite = workplace.folder / "tiny.yaml"
    timed = "{name: online-timed, interval_s: 10, batch_size: 10, samples: 100}"
    suite.write_text(
        suite.read_text().replace("{window_s: 60, batch_size: 50, samples: 100}", timed)
    )
    options = ("--methods", "source-only,tent", "--seeds", "0")
    options += ("--device", "xavier-nx", "--device", "jetson-tx2")
    workplace.run("run", *options, *INLINE)
    calm = workplace.records()
    assert len({r.run for r in calm.values()}) == 4
    for (method, _, _), record in calm.items():
        assert record.results.adapted == (0.0 if method == "source-only" else 1.0)
    # A step of tent takes 1.5 ms on the one and 1.7 ms on the other device.
    fast = (*options, "--interval", "0.001")
    assert "4 to run" in workplace.run("plan", *fast).stdout
    assert "adapted on" in workplace.run("run", *fast, *INLINE).stdout
    stored = list(Store(workplace.folder / "store"))
    assert len(stored) == 8
    shares = {
        r.cell.device: r.results.adapted
        for r in stored
        if r.cell.method.name == "tent" and r.cell.protocol["interval_s"] == 0.001
    }
    assert shares == {"xavier-nx": 0.5, "jetson-tx2": 0.35}
    assert "nothing to run" in workplace.run("run", *fast).stderr
