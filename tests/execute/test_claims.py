"""Commands on one store share its cells; a claim outlives neither its process nor its touches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warm_bench import warm_bench

from bench.execute import claims as module
from bench.execute.claims import Claims, folder, read_claim, seen_claims
from bench.records.cell import Cell
from bench.records.store import Store

INLINE = ("--executor", "inline")


@pytest.fixture
def cells(make_cell: Callable[..., Cell]) -> list[Cell]:
    return [make_cell(seed=seed) for seed in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def other(store: Store, cells: list[Cell]) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the first cell."""
    code = (
        "import sys, time; from bench.execute.claims import Claims; from bench.records.cell import "
        "Cell; from bench.records.store import Store; claims = Claims(Store(sys.argv[1])); "
        "print(claims.take([Cell.model_validate_json(sys.argv[2])]) != [], flush=True); "
        "time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(store.root), cells[0].model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_cell_is_claimed_once_until_it_is_given_back(store: Store, cells: list[Cell]) -> None:
    with Claims(store) as one, Claims(store) as two:
        assert one.take(cells[:2]) == cells[:2]
        assert one.take(cells[:2]) == cells[:2]  # its own stay its own
        assert two.take(cells) == cells[2:]
        assert one.take(cells) == cells[:2]
        assert {c.title for _, c, state, _ in seen_claims(store) if state == "running"} == {
            cell.title for cell in cells
        }
        two.release(cells)  # gives back its own alone
        one.release(cells[:1])
        assert two.take(cells) == [cells[0], cells[2]]
    assert list(folder(store).iterdir()) == []


def test_a_killed_command_loses_its_claim_at_once_and_a_live_one_keeps_it(
    store: Store, cells: list[Cell], other: subprocess.Popen[str]
) -> None:
    with Claims(store) as mine:
        assert mine.take(cells) == cells[1:]
        (seen,) = (each for each in seen_claims(store) if each[0] == cells[0].identity)
        assert (seen[1].pid, seen[2]) == (other.pid, "running")
        other.kill()  # and not waited for: a process that has ended, and is still listed
        deadline = time.monotonic() + 10
        while not mine.take(cells[:1]):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_number_of_a_dead_process_that_another_got_is_not_taken_for_it(
    store: Store, cells: list[Cell], other: subprocess.Popen[str]
) -> None:
    path = folder(store) / f"{cells[0].identity}.json"
    claim = json.loads(path.read_text())
    path.write_text(json.dumps(claim | {"began": claim["began"] - 3600}))
    with Claims(store) as mine:
        assert mine.take(cells[:1]) == cells[:1]


def test_a_claim_of_another_machine_expires_when_nobody_touches_it(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRES_S", 0.4)
    monkeypatch.setattr(module, "TOUCH_S", 0.1)
    with Claims(store) as there:
        assert there.take(cells[:2]) == cells[:2]
        for cell in cells[:2]:
            path = folder(store) / f"{cell.identity}.json"
            claim = json.loads(path.read_text())
            # What is left of it if the second one's machine has died, and its clock was wrong.
            token = {"token": "gone"} if cell == cells[1] else {}
            path.write_text(json.dumps(claim | token | {"machine": "another", "pid": 1}))
            os.utime(path, (2e9, 2e9))
        with Claims(store) as here:
            taken, deadline = [], time.monotonic() + 10
            while not taken:
                assert time.monotonic() < deadline
                time.sleep(0.05)
                taken = here.take(cells[:2])
            assert taken == [cells[1]]
            assert here.take(cells[:1]) == []


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_a_clock_that_is_an_hour_off_takes_no_live_claim(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """Its touches are an hour old, or to come; that they go on is all that counts."""
    monkeypatch.setattr(module, "EXPIRES_S", 0.5)
    (folder(store)).mkdir(parents=True)
    path = folder(store) / f"{cells[0].identity}.json"
    mine = module.new_claim("another", cells[0].title)
    path.write_text(mine.model_copy(update={"machine": "another", "pid": 1}).model_dump_json())
    with Claims(store) as here:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            os.utime(path, (time.time() + ahead_s,) * 2)
            module.remove_dead_claims(store)
            assert here.take(cells[:1]) == []
            time.sleep(0.1)
        ((_, _, state, untouched_s),) = seen_claims(store)
        assert (state, round(untouched_s / 3600)) == ("running", -round(ahead_s / 3600))
        while not here.take(cells[:1]):  # nobody touches it now
            assert time.monotonic() < until + 10
            time.sleep(0.1)


def test_a_ticket_in_a_queue_outlives_the_command_and_a_task_takes_its_own_alone(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: set[str] | None = {"q:1"}
    monkeypatch.setattr(module, "queue_knows", lambda ticket: known and ticket in known)
    submitted = Claims(store)
    submitted.take(cells[:2])
    submitted.hand_over([("q:1", cells[:1]), ("q:2", cells[1:2])])
    submitted._closed.set()  # as if it were killed
    path = folder(store) / f"{cells[1].identity}.json"
    for claim in folder(store).glob("*.json"):
        content = json.loads(claim.read_text())
        claim.write_text(json.dumps(content | {"began": content["began"] - 3600}))
    with Claims(store) as other:
        module.remove_dead_claims(store)
        assert path.exists() is False  # its task is in no queue, its command has ended
        assert other.take(cells) == cells[1:]
        assert [s for *_, s, _ in seen_claims(store)].count("queued") == 1
        one, late = (Claims(store, submitted.token, ticket) for ticket in ("q:1", "q:2"))
        assert late.take(cells) == []
        assert one.take(cells) == cells[:1]
        assert other.take(cells) == cells[1:]
        known = {"q:3"}
        assert other.take(cells) == cells  # the queue lost it while it ran
        known = None


@pytest.mark.parametrize("content", ["", '{"token": "cut o', "[]", '{"pid": "x"}'])
def test_a_file_that_is_no_claim_holds_a_cell_for_a_while_alone(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """It may be one that is being written."""
    monkeypatch.setattr(module, "EXPIRES_S", 0.2)
    folder(store).mkdir(parents=True)
    path = folder(store) / f"{cells[0].identity}.json"
    path.write_text(content)
    with Claims(store) as mine:
        assert mine.take(cells[:1]) == []
        time.sleep(0.3)
        assert mine.take(cells[:1]) == cells[:1]
        assert read_claim(path) is not None


# --- commands ----------------------------------------------------------------------


def status(workplace) -> str:
    """What ``bench status`` says."""
    command = ["status", "--store", "store"]
    done = warm_bench().run(command, workplace.folder, workplace.environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_commands_on_one_store_run_each_cell_once(workplace):
    methods = ("--methods", "source-only,tent,slow,shot", "--jobs", "1")
    processes = [workplace.start("run", *methods) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    records = workplace.records()
    assert len(records) == 8
    assert {(r.status, r.attempt) for r in records.values()} == {("ok", 1)}
    logs = {p.stem for p in (workplace.folder / "store" / "logs").glob("*.log")}
    assert {log for log in logs if not log.startswith("source")} == {
        record.run for record in records.values()
    }
    for text in said:  # both tell of all cells
        assert "[8/8]" in text
    assert not list((workplace.folder / "store" / "claims").iterdir())
    again = workplace.run("run", *methods)
    assert "nothing to run" in again.stderr


def test_a_command_waits_for_another_ones_cell_and_takes_it_over_when_that_dies(workplace):
    methods = ("--methods", "slow,tent", "--seeds", "0")
    first = workplace.start("run", "--methods", "sleeps", "--seeds", "0")
    claims = workplace.folder / "store" / "claims"
    deadline = time.monotonic() + 120
    while not any("sleeps" in p.read_text() for p in claims.glob("*.json")):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    done = workplace.run("run", *methods)  # not held up by what it does not want
    assert "being run" not in done.stderr
    assert "running: sleeps" in status(workplace)

    second = workplace.start("run", "--methods", "sleeps", "--seeds", "0", "--timeout", "3")
    waiting = "1 cell is being run by another command on this store; waiting"
    for line in second.stderr:
        if waiting in line:
            break
    else:
        pytest.fail("it did not wait")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 1
    assert "timeout" in said
    assert workplace.records()[("sleeps", 0, "xavier-nx")].status == "timeout"
    assert not list(claims.iterdir())


VANDALS = '''
import pathlib, shutil, sys
from bench import Method, register

STORE = pathlib.Path(FOLDER) / "store"

@register("method", "removes-records")
class RemovesRecords(Method):
    """Removes the records that there are."""
    def adapt(self, domain, window):
        for path in (STORE / "records").glob("*.json"):
            path.unlink()

@register("method", "removes-the-store")
class RemovesTheStore(Method):
    """Removes all of the store."""
    def adapt(self, domain, window):
        shutil.rmtree(STORE, ignore_errors=True)

@register("method", "overwrites-records")
class OverwritesRecords(Method):
    """Writes something else into the records that there are."""
    def adapt(self, domain, window):
        for path in (STORE / "records").glob("*.json"):
            path.write_text("{}")
'''


@pytest.mark.parametrize(
    ("vandal", "why"),
    [
        ("removes-records", "it was removed while the command ran"),
        pytest.param(
            "removes-the-store", "it was removed while the command ran", marks=pytest.mark.slow
        ),
        ("overwrites-records", "schema version None"),
    ],
)
def test_a_cell_whose_record_vanished_is_named_and_the_command_fails(workplace, vandal, why):
    plugin = workplace.folder / "vandals.py"
    plugin.write_text(VANDALS.replace("FOLDER", repr(str(workplace.folder))))
    workplace.run("run", "--methods", "source-only", "--seeds", "0", *INLINE)
    methods = ("--methods", f"source-only,{vandal}", "--seeds", "0", "--plugin", "vandals.py")
    done = workplace.run("run", *methods, code=1)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("missing: ")]
    assert line.startswith("missing: source-only · tiny · xavier-nx · seed 0: no record store/")
    assert why in line
    assert "Traceback" not in done.stderr
    left = Store(workplace.folder / "store")
    assert [record.cell.method.name for record in left] == [vandal]


def test_what_killed_writers_left_long_ago_is_removed(workplace):
    from bench.io.atomic_write import STALE_S

    cache = Path(workplace.environment["BENCH_CACHE"])
    workplace.run("run", "--methods", "source-only", "--seeds", "0", *INLINE)
    folders = [workplace.folder / "store" / "records", workplace.folder / "store" / "logs"]
    folders += [cache, cache / "source-models"]
    names = [f".{'a' * 20}.json.{'0' * 32}", f".{'b' * 20}.pt.{'f' * 32}"]
    now = time.time()
    for at in folders:
        for name, age in zip(names, (STALE_S + 60, STALE_S - 600), strict=True):
            (at / name).write_text("half a rec")
            os.utime(at / name, (now - age, now - age))
        for name in ("notes", ".notes", f"notes.{'0' * 32}"):
            (at / name).write_text("of the user")
            os.utime(at / name, (1, 1))
    status(workplace)
    assert all((at / names[0]).exists() for at in folders)  # a look changes nothing
    workplace.run("run", "--methods", "source-only", "--seeds", "0", *INLINE)
    for at in folders:
        assert not (at / names[0]).exists()
        assert (at / names[1]).exists()
        assert all((at / n).exists() for n in ("notes", ".notes", f"notes.{'0' * 32}"))
        for name in (names[1], "notes", ".notes", f"notes.{'0' * 32}"):
            (at / name).unlink()
