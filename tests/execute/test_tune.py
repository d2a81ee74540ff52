"""``bench tune`` from end to end: stopped, resumed, and what a run makes of what it found."""

from __future__ import annotations

import os
import re
import signal
import textwrap
import time

import psutil
import pytest
import yaml

from bench.tuning.choosing import score_of

PLUGIN = '''
import time
import torch
from bench import Method, MethodConfig, register
from bench.contracts.method import tunable

class JoltsConfig(MethodConfig):
    """The default is wrong on purpose."""
    strength: float = tunable(2.0, 0.0, 2.0)

@register("method", "jolts")
class Jolts(Method):
    """Turns the head round if it is strong, and takes its time."""
    Config = JoltsConfig

    def prepare(self, model, source):
        self.model = model
        with torch.no_grad():
            for p in model.head.parameters():
                p *= 1 - self.config.strength

    def adapt(self, domain, window):
        time.sleep(0.3)

@register("method", "calm")
class Calm(Jolts):
    """The same, with another seed of its search."""
'''

METHODS = ("--plugin", "jolts.py", "--methods", "source-only,jolts,calm")
TUNE = (
    "tune", *METHODS, "--trials", "3", "--seeds", "0,1", "--jobs", "2", "--store", "trials",
    "--figure", "search.png",
)  # fmt: skip


@pytest.fixture
def tuning(workplace):
    (workplace.folder / "jolts.py").write_text(textwrap.dedent(PLUGIN))
    return workplace


def files(workplace, store="trials"):
    return {p.name: p.read_bytes() for p in (workplace.folder / store / "records").glob("*.json")}


def trials_of(workplace):
    from bench.records.store import Store

    return list(Store(workplace.folder / "trials"))


def test_tuning_stops_goes_on_and_its_file_is_what_the_suite_then_uses(tuning):
    process = tuning.start(*TUNE)
    deadline = time.monotonic() + 120
    while len(files(tuning)) < 7:  # source-only, the defaults, and a run after them
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "bench: stopped; the same command goes on from here" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "no trial may outlive the command"
    file = tuning.folder / "tiny.tuned.yaml"
    assert not file.exists()

    finished = {f"{r.identity}.json" for r in trials_of(tuning) if r.status == "ok"}
    before = files(tuning)
    assert 6 <= len(finished) < 10
    resumed = tuning.run(*TUNE)
    after = files(tuning)
    assert 2 + 2 * (2 + 1 + 1) <= len(after) <= 2 + 2 * (2 + 2 + 2)  # source-only's too
    assert {n: after[n] for n in finished} == {n: before[n] for n in finished}, "trials ran again"
    records = trials_of(tuning)
    assert {r.status for r in records} == {"ok"}
    assert {r.cell.stream.config["part"] for r in records} == {"validation"}
    yardstick = [r for r in records if r.cell.method.name == "source-only"]
    assert len(yardstick) == 2
    without = sum(score_of(record) for record in yardstick) / 2
    assert f"source-only: {without:.1%} without adaptation" in resumed.stdout
    records = [r for r in records if r not in yardstick]
    assert {r.cell.method.name for r in records} == {"jolts", "calm"}

    assert "source-only: not tuned: it has no setting to search" in resumed.stderr
    for name in ("jolts", "calm"):
        for trial in (1, 2, 3):
            assert f"{name} {trial}/3: " in resumed.stderr
    assert resumed.stderr.count("% in 2 runs with its defaults") == 2
    assert re.search(r"with its defaults; about \d+ s left", resumed.stderr)
    assert "written: tiny.tuned.yaml" in resumed.stdout
    assert resumed.stdout.endswith(
        "next: bench run --suite tiny.yaml --plugin plugin.py "
        "--plugin jolts.py --methods source-only,jolts,calm\n"
    )

    tuned = yaml.safe_load(file.read_text())
    assert tuned["command"].startswith("bench tune --suite tiny.yaml")
    assert tuned["command"] in file.read_text().splitlines()[0]
    assert (tuned["suite"], tuned["trials"], tuned["seeds"], tuned["oracle"]) == (
        "tiny", 3, [0, 1], False,
    )  # fmt: skip
    assert tuned["validation"]["part"] == "validation"
    assert set(tuned["methods"]) == {"jolts", "calm"}
    trials = {}
    for record in sorted(records, key=lambda record: record.cell.seed):
        strengths = trials.setdefault(record.cell.method.name, {})
        strengths.setdefault(record.cell.method.config["strength"], []).append(score_of(record))
    for name, found in tuned["methods"].items():
        whole = {k: sum(s) / 2 for k, s in trials[name].items() if len(s) == 2}
        assert (found["trials"], found["failed"]) == (3, 0)
        assert found["runs"] == sum(map(len, trials[name].values()))
        assert found["default_score"] == pytest.approx(whole[2.0], abs=1e-6)
        assert found["score"] == pytest.approx(max(whole.values()), abs=1e-6)
        assert found["gain"] > found["standard_error"]  # the file says something
        assert whole[found["settings"]["strength"]] == max(whole.values())
    assert (tuning.folder / "search.png").read_bytes().startswith(b"\x89PNG")

    done = tuning.run("run", *METHODS, "--seeds", "0")
    ran = {name: r for (name, _, _), r in tuning.records().items()}
    for name in ("jolts", "calm"):
        assert ran[name].cell.settings_origin == ran[name].method.settings_origin == "tuned"
        assert ran[name].cell.method.config == tuned["methods"][name]["settings"]
        assert ran[name].cell.stream.config["part"] == "test"
    assert (ran["source-only"].cell.settings_origin, ran["source-only"].method.settings_origin) == (
        "default", "none",
    )  # fmt: skip
    assert "tuned" in done.stdout.split("records:")[0]  # the table says so


def test_an_oracle_is_loud_when_it_is_made_and_whenever_it_is_used(tuning):
    oracle = ("--plugin", "jolts.py", "--methods", "jolts")
    made = tuning.run(
        "tune", *oracle, "--seeds", "0,1", "--trials", "1", "--oracle", "--store", "trials",
        "--out", "best.yaml",
    )  # fmt: skip
    assert "ORACLE: settings are selected with the labels of the test stream" in made.stderr
    assert made.stdout.endswith(
        "next: bench run --suite tiny.yaml --plugin plugin.py --plugin jolts.py "
        "--methods jolts --tuned best.yaml\n"
    )
    assert "# Selected on: ORACLE" in (tuning.folder / "best.yaml").read_text()
    records = [r for r in trials_of(tuning) if r.cell.method.name == "jolts"]
    assert [r.cell.stream.config["part"] for r in records] == ["test", "test"]
    used = tuning.run("plan", *oracle, "--tuned", "best.yaml")
    assert "bench: warning: ORACLE: best.yaml was selected with the labels" in used.stderr
