"""An executor that a plugin brings runs a suite from end to end."""

from __future__ import annotations

from pathlib import Path

TOY = Path(__file__).parent / "toy_executor.py"
OPTIONS = ("--plugin", str(TOY), "--executor", "toy", "--seeds", "0")


def test_its_records_are_those_of_the_local_processes(workplace):
    assert len(TOY.read_text().splitlines()) <= 32
    workplace.run("run", *OPTIONS, "--methods", "shot")
    workplace.run("run", "--seeds", "0", "--methods", "shot", "--store", "other")
    toy, local = workplace.records(), workplace.records("other")
    assert toy.keys() == local.keys()
    for key, record in toy.items():
        assert record.status == "ok"
        assert record.results.domains == local[key].results.domains
        assert (workplace.folder / "store" / record.log).is_file()
    again = workplace.run("run", *OPTIONS, "--methods", "shot")
    assert "nothing to run" in again.stderr


def test_devices_that_a_job_defers_get_their_own_run(workplace):
    suite = workplace.folder / "tiny.yaml"
    text = suite.read_text().replace("window_s: 60", "window_s: 0.02")
    suite.write_text(text.replace("[source-only, tent, shot]", "[{name: tent, epochs: 20}]"))
    workplace.run("run", *OPTIONS, "--device", "agx-orin", "--device", "jetson-tx2")
    records = workplace.records()
    assert {r.status for r in records.values()} == {"ok"}
    assert len({r.run for r in records.values()}) == 2


def test_it_honours_the_limit_that_it_declares_and_refuses_the_other(workplace):
    workplace.run("run", *OPTIONS, "--methods", "sleeps", "--timeout", "6", code=1)
    (record,) = workplace.records().values()
    assert record.status == "timeout"
    done = workplace.run("run", *OPTIONS, "--memory-limit", "1", "--methods", "tent", code=2)
    assert "executor 'toy': cannot enforce --memory-limit" in done.stderr


def test_an_unknown_one_is_named_with_the_nearest(workplace):
    done = workplace.run("run", *OPTIONS[:2], "--executor", "procesess", code=2)
    assert "unknown executor 'procesess': did you mean 'processes'?" in done.stderr
    assert done.stderr.count("\n") == 1
