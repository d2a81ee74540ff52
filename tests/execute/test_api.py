"""The Python API, as a notebook uses it: run a suite, load its results, write a report."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from workplace import Workplace

import bench
from bench import registry
from bench.errors import BenchError
from bench.records.export import CELL, DOMAIN, WHOLE


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("BENCH_CACHE", workplace.environment["BENCH_CACHE"])
    monkeypatch.delenv("BENCH_STORE", raising=False)
    with registry.isolated():
        yield workplace


def run(**options: object) -> bench.SuiteResults:
    given = {"executor": "inline", "seeds": 1, "methods": ["source-only", "shot"], **options}
    return bench.run_suite("tiny.yaml", plugins="plugin.py", **given)  # type: ignore[arg-type]


WHEN = ("before", "after", "final")
FURTHER = ("macro_f1", "calibration_error", "commonest_class")


def test_a_suite_is_run_and_its_results_are_one_tidy_table(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bench")
    found = run(methods=["source-only", "shot", "raises"])
    assert found.store == place.folder / "bench-results"
    assert sorted(r.status for r in found.records) == ["failed", "ok", "ok"]
    assert "3 cells to run" in caplog.text
    assert "raises · tiny · xavier-nx · seed 0: RuntimeError: this method is" in caplog.text
    caplog.clear()
    again = run(methods=["source-only", "shot"], seeds=[0])
    assert "0 cells to run" in caplog.text
    assert [r.run for r in again.records] == [
        r.run for r in found.records if r.cell.method.name != "raises"
    ]

    table = bench.load_results(found.store)
    further = {f"{n}_{w}" for n in FURTHER for w in WHEN}
    assert set(list(table)[len([*CELL, *DOMAIN]) : -len(WHOLE)]) == further
    assert [name for name in table if name not in further] == [*CELL, *DOMAIN, *WHOLE]
    assert len(table) == 2 * 2 + 1
    shot = next(r for r in found.records if r.cell.method.name == "shot")
    rows = table[table.method == "shot"]
    for (_, row), domain in zip(rows.iterrows(), shot.results.domains, strict=True):
        assert (row.domain, row.before, row.after) == (domain.name, domain.before, domain.after)
        assert (row.steps, row.time_s, row.energy_j) == (
            domain.steps, domain.time_s, domain.energy_j,
        )  # fmt: skip
        assert row.peak_memory_bytes == shot.results.costs.peak_memory.value
        assert row.score == shot.results.score
        assert (row.variant, row.protocol, row.costs_are) == ("full", "periodic", "modelled")
    assert table.groupby("method").after.mean()["shot"] == pytest.approx(shot.results.mean("after"))
    (failed,) = table[table.status == "failed"].to_dict("records")
    assert failed["method"] == "raises"
    assert pd.isna(failed["domain"])
    assert pd.isna(failed["after"])
    for column in ["identity", "suite", "stream", "reason", "domain", "adaptation_time_s", "flops"]:
        assert column in str(bench.load_results.__doc__)

    files = bench.report(found.store, out="out", suite="tiny.yaml")
    assert Path("out/report.html") in files
    assert all(file.is_file() for file in files)


def test_runs_in_processes_give_what_inline_gives_also_from_another_thread(
    place: Workplace,
) -> None:
    inline = run(methods="shot", store="inline")
    results: list[bench.SuiteResults] = []
    thread = threading.Thread(
        target=lambda: results.append(run(methods="shot", executor="processes", store="other"))
    )
    thread.start()  # where no signal handler can be set
    thread.join()
    (there,), (here,) = results[0].records, inline.records
    assert there.results.domains == here.results.domains


def test_a_class_of_this_session_runs_inline_and_is_refused_where_it_cannot_be_found(
    place: Workplace,
) -> None:
    @bench.register("method", "mine")
    class Mine(bench.Method):
        """Written in a notebook's cell."""

        def adapt(self, domain: bench.DomainView, window: bench.Window) -> None:
            for batch in window.steps(domain.batches()):
                batch.x.sum()

    (record,) = run(methods="mine").records
    assert record.status == "ok"
    with pytest.raises(bench.BenchError) as caught:
        run(methods="mine", executor="processes", store="other")
    assert str(caught.value) == (
        "method 'mine' is registered in this session alone, and the processes of the runs cannot "
        "find it: write it to a file and name that in plugins, or take executor='inline'"
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"methods": "tnet"}, "did you mean 'tent'"),
        ({"methods": ["", ","]}, "unknown method"),
        ({"executor": "procesess"}, "did you mean 'processes'"),
        ({"timeout_s": 5}, "executor 'inline': cannot enforce --timeout"),
        ({"retry": ["faild"]}, "did you mean 'failed'"),
        ({"seeds": [0, 0]}, "give distinct seeds"),
        ({"variants": "compresed:8"}, "did you mean 'compressed'"),
        ({"store": "plugin.py"}, "is a file; name a folder"),
    ],
)
def test_a_mistake_is_one_line(place: Workplace, options: dict[str, object], part: str) -> None:
    with pytest.raises(bench.BenchError) as caught:
        run(**options)
    assert part in str(caught.value)
    assert not Path("bench-results").exists()


def test_no_store_is_an_error_and_a_damaged_record_a_warning(place: Workplace) -> None:
    with pytest.raises(bench.BenchError, match="no records there"):
        bench.load_results("nothing")
    folder = place.folder / "store" / "records"
    folder.mkdir(parents=True)
    (folder / "0.json").write_text("{")
    with pytest.warns(UserWarning, match=r"0\.json cannot be read"):
        table = bench.load_results("store")
    assert table.empty
    assert list(table) == [*CELL, *DOMAIN, *WHOLE]


def test_a_job_is_a_command_and_the_store_says_what_became_of_it(place: Workplace) -> None:
    from bench.study.selection import Selection

    selection = Selection(
        "tiny.yaml", methods=("source-only",), seeds=(0,), plugins=(Path("plugin.py"),)
    )
    plan, store = selection.plan()
    store.logs.mkdir(parents=True)
    (job,) = plan.jobs(store)
    command = bench.job_command(job)
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    options = {"cwd": elsewhere, "env": place.environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    (record,) = store
    assert (record.run, record.status) == (job.run, "ok")
    bad = elsewhere / "bad.json"
    bad.write_text(json.dumps({"run": "x"}))
    done = subprocess.run([sys.executable, "-m", "bench.execute.work", str(bad)], **options)
    assert done.returncode == 2
    assert done.stderr == f"bench: job {bad}: is no job: key 'suite': missing; add it\n"


def test_what_is_no_job_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    from bench.execute.work import main

    bad = tmp_path / "bad.json"
    for content, part in (
        ("{", "is no job: key '(whole)': "),
        ('{"run": 1}', "is no job: key 'run': 1 is not allowed: input should be a valid string"),
        (None, "cannot be read: No such file"),
    ):
        bad.unlink(missing_ok=True)
        if content is not None:
            bad.write_text(content)
        with pytest.raises(BenchError, match=re.escape(f"job {bad}: {part}")):
            main([str(bad)])
    with pytest.raises(BenchError, match="usage"):
        main([])
