"""What a run does to its process, to its neighbours and to the machine: none of it is lost."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from bench.execute.processes import START_LIMIT_S

PLUGIN = '''
import os, signal, sys, tempfile, time
from bench import Method, register


def grandchild(work):
    """A process that is started twice removed, in a session of its own."""
    sys.stdout.flush()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print("grandchild", os.getpid(), flush=True)
            work()
        os._exit(0)


@register("method", "moves-away")
class MovesAway(Method):
    """Changes to a folder that is then removed."""
    def adapt(self, domain, window):
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)

@register("method", "moves-up")
class MovesUp(Method):
    """Changes to another folder."""
    def prepare(self, model, source):
        super().prepare(model, source)
        os.chdir("/")

@register("method", "masks")
class Masks(Method):
    """Lets nobody read what it writes."""
    def adapt(self, domain, window):
        os.umask(0o777)

@register("method", "masks-others")
class MasksOthers(Method):
    """Lets no other user read what it writes, and fails."""
    def adapt(self, domain, window):
        os.umask(0o077)
        raise ValueError("on purpose")

@register("method", "signal-35")
class Signal35(Method):
    """Dies of a real-time signal."""
    def adapt(self, domain, window):
        os.kill(os.getpid(), 35)

@register("method", "signal-63")
class Signal63(Method):
    """Dies of another one."""
    def adapt(self, domain, window):
        os.kill(os.getpid(), 63)

@register("method", "scribbles")
class Scribbles(Method):
    """Writes into every pipe of the process that started it."""
    def adapt(self, domain, window):
        folder = f"/proc/{os.getppid()}/fd"
        rubbish = b'no JSON\\n[1]\\nnull\\n{"id": 3, "code": 0}\\n\\xff{"id": "x", "code": "y"}'
        for name in os.listdir(folder):
            file = f"{folder}/{name}"
            if os.readlink(file).startswith("pipe:"):
                try:
                    os.write(os.open(file, os.O_WRONLY | os.O_NONBLOCK), rubbish)
                    print("scribbled", flush=True)
                except OSError:
                    pass

@register("method", "quits")
class Quits(Method):
    """Ends Python as if all were well."""
    def adapt(self, domain, window):
        sys.exit(0)

@register("method", "odd")
class Odd(Method):
    """Raises what is no Exception."""
    def adapt(self, domain, window):
        class Odd(BaseException):
            pass
        raise Odd("no Exception")

@register("method", "mute")
class Mute(Method):
    """Raises an exception that cannot be printed."""
    def adapt(self, domain, window):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError
        raise Mute

@register("method", "shouts")
class Shouts(Method):
    """Raises an endless text with a terminal's control sequences in it."""
    def adapt(self, domain, window):
        signs = "\\x1b]0;title\\x07\\x1b[31mred\\x1b[0m\\x00\\u202e and \\ud800 "
        raise RuntimeError(signs + "long " * 10_000_000)

@register("method", "mutters")
class Mutters(Method):
    """The same on its last line of output."""
    def adapt(self, domain, window):
        print("\\x1b[2J\\x07cleared" + " and long" * 1_000_000, flush=True)
        os._exit(3)

@register("method", "forks-away")
class ForksAway(Method):
    """Starts a process twice removed and forgets it."""
    def adapt(self, domain, window):
        grandchild(lambda: time.sleep(7777))

@register("method", "hoards-away")
class HoardsAway(Method):
    """Lets a process twice removed take the memory."""
    def adapt(self, domain, window):
        def hoard():
            kept = bytearray(3 * 2**30)
            for i in range(0, len(kept), 4096):
                kept[i] = 1
            time.sleep(7777)
        grandchild(hoard)
        time.sleep(7777)

@register("method", "shares")
class Shares(Method):
    """Leaves shared memory to Python's helper, and a file that nobody knows of."""
    def adapt(self, domain, window):
        from multiprocessing.shared_memory import SharedMemory
        self.kept = SharedMemory(create=True, size=1000)
        print("shared", self.kept.name, flush=True)
        with open(f"/dev/shm/bench-test-{os.getpid()}", "w") as file:
            file.write("left")
        os._exit(0)

@register("method", "kills-launcher")
class KillsLauncher(Method):
    """Kills the process that started it."""
    def adapt(self, domain, window):
        time.sleep(1)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(7777)

@register("method", "long")
class Long(Method):
    """Takes its time."""
    def adapt(self, domain, window):
        time.sleep(3)

@register("method", "tells")
class Tells(Method):
    """Says what its process was given."""
    def adapt(self, domain, window):
        print("policy", os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"], flush=True)
'''


@pytest.fixture
def place(workplace):
    (workplace.folder / "faults.py").write_text(PLUGIN)
    return workplace


def run(place, methods: str, *options: str, code: int = 1):
    names = ("--plugin", "faults.py", "--methods", methods)
    return place.run("run", *names, "--seeds", "0", *options, code=code, timeout=600)


def by_method(place) -> dict:
    return {name: record for (name, _, _), record in place.records().items()}


def log_of(place, record) -> str:
    return (place.folder / "store" / record.log).read_text(errors="replace")


def test_what_a_run_does_to_its_process_loses_no_record(place):
    names = (
        "moves-away,moves-up,masks,masks-others,signal-35,signal-63,scribbles,quits,odd,mute,"
        "shouts,mutters,tells,source-only"
    )
    done = run(place, names)
    records = by_method(place)
    plain = records["source-only"]
    for name in ("moves-away", "moves-up", "masks", "scribbles", "tells"):
        assert (records[name].status, records[name].reason) == ("ok", "")
        assert records[name].results.score == plain.results.score
    for path in (place.folder / "store" / "records").glob("*.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o666 & ~umask() & 0o444
    assert "scribbled" in log_of(place, records["scribbles"])
    assert "policy PASSIVE 0" in log_of(place, records["tells"])
    reasons = {name: record.reason for name, record in records.items() if record.status != "ok"}
    assert reasons["masks-others"] == "ValueError: on purpose"
    assert reasons["signal-35"] == "killed by SIGRTMIN+1"
    assert reasons["signal-63"] == "killed by SIGRTMIN+29"
    assert reasons["quits"] == "sys.exit(0) was called: what runs here returns or raises"
    assert reasons["odd"] == "Odd: no Exception"
    assert reasons["mute"] == "Mute: (its message cannot be read: RuntimeError)"
    assert reasons["shouts"].startswith("RuntimeError: red and \N{REPLACEMENT CHARACTER} long long")
    assert reasons["shouts"].endswith("characters in all)")
    assert 2_000 < len(log_of(place, records["shouts"])) < 50_000
    assert reasons["mutters"].startswith("process ended with exit code 3: ")
    for text in (*reasons.values(), done.stdout, done.stderr):
        assert text.replace("\n", "").isprintable()
    assert all(len(text) <= 2000 for text in reasons.values())
    assert len(done.stdout) + len(done.stderr) < 50_000
    began = sorted(datetime.fromisoformat(record.started) for record in records.values())
    assert (began[-1] - began[0]).total_seconds() < START_LIMIT_S / 2  # no request was lost
    again = run(place, names)  # and nothing of it stops the next command
    assert "nothing to run" in again.stderr


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_no_process_escapes_its_run_and_what_stays_in_shared_memory_is_said(place):
    before = set(Path("/dev/shm").glob("bench-test-*"))
    done = run(place, "forks-away,hoards-away,shares", "--memory-limit", "2", "--timeout", "120")
    records = by_method(place)
    assert {name: record.status for name, record in records.items()} == {
        "forks-away": "ok",
        "hoards-away": "oom",
        "shares": "failed",
    }
    assert "exceeds the limit of 2.00 GiB" in records["hoards-away"].reason
    for name, count in (("forks-away", 2), ("hoards-away", 1)):
        said = log_of(place, records[name]).split()
        pids = [int(pid) for word, pid in itertools.pairwise(said) if word == "grandchild"]
        assert len(pids) == count
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
    said = log_of(place, records["shares"]).split()
    assert not Path("/dev/shm", said[said.index("shared") + 1]).exists()
    (left,) = set(Path("/dev/shm").glob("bench-test-*")) - before
    left.unlink()
    assert f"left in shared memory, and unused: {left}; remove it" in done.stderr


def test_who_kills_the_launcher_fails_and_its_neighbours_do_not(place):
    run(place, "kills-launcher,long,source-only", "--jobs", "3")
    records = by_method(place)
    assert {name: record.status for name, record in records.items()} == {
        "kills-launcher": "failed",
        "long": "ok",
        "source-only": "ok",
    }
    assert "its launcher process died" in records["kills-launcher"].reason


@pytest.mark.parametrize(
    "stopped", ["the run", pytest.param("the command", marks=pytest.mark.slow)]
)
def test_time_in_which_a_run_or_the_command_stands_still_is_no_timeout(place, stopped):
    names = ("--plugin", "faults.py", "--plugin", "plugin.py", "--methods", "sleeps")
    process = place.start("run", *names, "--seeds", "0", "--timeout", "6")
    logs, records = (place.folder / "store" / name for name in ("logs", "records"))
    child = wait_for(lambda: run_process(process.pid, logs), process)
    victim = child.pid if stopped == "the run" else process.pid
    os.kill(victim, signal.SIGSTOP)
    time.sleep(8)
    assert not list(records.glob("*.json"))
    assert child.is_running()
    os.kill(victim, signal.SIGCONT)
    if stopped == "the command":
        time.sleep(1)
        assert not list(records.glob("*.json")), "the seconds of the command's sleep counted"
    process.communicate(timeout=120)
    (record,) = by_method(place).values()
    assert (record.status, record.reason) == ("timeout", "no end after 6 s; killed")
    assert record.wall_s > 12


def run_process(pid: int, logs: Path) -> psutil.Process | None:
    """The process of the only run, once it writes its log."""
    if not [path for path in logs.glob("*.log") if not path.name.startswith("source")]:
        return None
    for launcher in psutil.Process(pid).children():
        for child in launcher.children():
            return child
    return None


def wait_for(found, process):
    deadline = time.monotonic() + 120
    while (value := found()) is None:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return value


@pytest.mark.parametrize(
    "end", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_what_was_forked_away_ends_with_a_command_that_is_killed(place, end):
    plugin = place.folder / "faults.py"
    waits = "        grandchild(lambda: time.sleep(7777))\n        time.sleep(7777)\n"
    text = plugin.read_text().replace("        grandchild(lambda: time.sleep(7777))\n", waits)
    plugin.write_text(text)
    names = ("--plugin", "faults.py", "--methods", "forks-away", "--seeds", "0")
    process = place.start("run", *names)
    logs = place.folder / "store" / "logs"

    def grandchild() -> psutil.Process | None:
        for path in logs.glob("*.log"):
            said = path.read_text().split()
            if "grandchild" in said[:-1]:
                return psutil.Process(int(said[said.index("grandchild") + 1]))
        return None

    escaped = wait_for(grandchild, process)
    os.kill(process.pid, end)
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs([escaped], timeout=20)
    assert not alive
