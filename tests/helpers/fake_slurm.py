"""A Slurm that runs jobs as local processes: ``sbatch``, ``squeue``, ``sacct``, ``scontrol``,
``scancel``, and a controller that starts tasks and notices how they end.

Its state is a JSON file in ``$FAKE_SLURM``. `FakeSlurm` installs the commands and starts the
controller; as a script this file is any of them. Tasks are children of a process that has imported
the heavy libraries, and do their runs inline; with ``cold`` they are what a node would start.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from functools import cache
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
IMPORTS = (
    "torch", "torch._dynamo", "sklearn.datasets", "bench.cluster.task", "bench.execute.inline",
    "bench.run.run_cell", "bench.run.protocols.base",
)  # fmt: skip
PR_SET_PDEATHSIG = 1
EMPTY = {"next": 100, "tasks": {}, "slots": 2, "max_submit": 10_000, "accounting": True}


class FakeSlurm:
    """Install the commands in a folder; ``environment`` finds them. Close it."""

    def __init__(self, folder: Path, cold: bool = False) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in COMMANDS:
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} {name} "$@"\n')
            script.chmod(0o755)
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"FAKE_SLURM": str(folder), "PATH": path}
        self.set(**EMPTY, cold=cold)
        server = _server()
        server.stdin.write(f"{folder}\n")
        server.stdin.flush()
        self.controller = int(server.stdout.readline())

    def close(self) -> None:
        """End everything."""
        os.kill(self.controller, signal.SIGKILL)
        for task in self.tasks().values():
            _kill(task, signal.SIGKILL)

    def set(self, **facts) -> None:
        """Change the state: ``slots``, ``max_submit``, ``accounting``, ``down``."""
        with _state(self.folder) as state:
            state.update(facts)

    def tasks(self) -> dict[str, dict]:
        """All tasks so far, by JOB_INDEX."""
        with _state(self.folder) as state:
            return state["tasks"]

    def running(self) -> dict[str, dict]:
        """Those that run."""
        return {k: t for k, t in self.tasks().items() if t["state"] == "RUNNING"}

    def end(self, key: str, state_name: str) -> None:
        """Let a running task end as the controller may end it: as NODE_FAIL, PREEMPTED, ..."""
        with _state(self.folder) as state:
            task = state["tasks"][key]
            _kill(task, signal.SIGKILL)
            task.update(state=state_name, code="0:9" if state_name == "FAILED" else "0:0")

    def forget(self, key: str) -> None:
        """Let nobody know of a task any more."""
        with _state(self.folder) as state:
            _kill(state["tasks"].pop(key), signal.SIGKILL)


@cache
def _server() -> subprocess.Popen:
    """Starts controllers, each a child of its own; that of this session."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(process.communicate)
    return process


def serve() -> None:
    """Start a controller for each folder that standard input names."""
    for name in IMPORTS:
        importlib.import_module(name)
    importlib.import_module("bench.registry.discovery").scan_project()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            controller(Path(line.strip()))
        print(pid, flush=True)


@contextlib.contextmanager
def _state(folder: Path):
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / "state.json"
        state = json.loads(file.read_text()) if file.exists() else {}
        yield state
        file.with_suffix(".new").write_text(json.dumps(state))
        os.replace(file.with_suffix(".new"), file)


def _kill(task: dict, number: int) -> None:
    if task.get("pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(task["pid"], number)
        for pid in _descendants(task["pid"]):  # what made sessions of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        found = [int(child) for child in children.read_text().split()]
        return [*found, *(each for child in found for each in _descendants(child))]
    return []


def controller(folder: Path) -> None:
    """Start what may start, and notice what has ended; forever."""
    processes: set[str] = set()
    while True:
        with _state(folder) as state:
            if not state.get("down"):
                _tick(state, processes)
        time.sleep(0.05)


def _tick(state: dict, processes: set[str]) -> None:
    tasks = state["tasks"]
    for key in list(processes):
        task = tasks.get(key)
        if task is None:
            processes.discard(key)
            continue
        pid, code = os.waitpid(task["pid"], os.WNOHANG)
        if not pid:
            continue
        processes.discard(key)
        code = os.waitstatus_to_exitcode(code)
        if task["state"] in ("RUNNING", "COMPLETING"):
            cancelled = task["state"] == "COMPLETING"
            ended = "CANCELLED" if cancelled else "FAILED" if code else "COMPLETED"
            task.update(state=ended, code=f"0:{-code}" if code < 0 else f"{code}:0")
    running = [t for t in tasks.values() if t["state"] in ("RUNNING", "COMPLETING")]
    for key, task in tasks.items():
        if task["state"] != "PENDING" or len(running) >= state["slots"]:
            continue
        ready = _ready(task, tasks)
        if ready is None:
            task.update(state="CANCELLED", code="0:0")
        elif ready and sum(t["job"] == task["job"] for t in running) < task["at_a_time"]:
            task.update(state="RUNNING", pid=_start(task, state["cold"]))
            processes.add(key)
            running.append(task)


def _ready(task: dict, tasks: dict) -> bool | None:
    """Whether what it depends on has ended; None if that never will, or not well."""
    ready = True
    for kind, job in re.findall(r"(\w+):(\d+)", task["dependency"]):
        states = {t["state"] for t in tasks.values() if t["job"] == int(job)}
        if states & {"PENDING", "RUNNING", "COMPLETING"}:
            ready = False
        elif kind == "afterok" and states != {"COMPLETED"}:
            return None
    return ready


def _start(task: dict, cold: bool) -> int:
    output = task["output"].replace("%a", str(task["index"]))
    own = {"SLURM_ARRAY_TASK_ID": str(task["index"]), "SLURM_JOB_ID": str(task["job"])}
    own |= {"SLURM_MEM_PER_NODE": task["mem"]} if task["mem"] else {}
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.closerange(3, 1000)  # the lock is held as long as anybody has it open
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"] | own)
    writes = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(writes, 1)
    os.dup2(writes, 2)
    if cold:
        os.execv("/bin/sh", ["/bin/sh", "-c", task["wrap"]])
    code = 1
    try:
        _inline(shlex.split(task["wrap"])[-1])
        code = 0
    except KeyboardInterrupt:
        code = 143
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _inline(batch: str) -> None:
    from bench.cluster import task
    from bench.execute.inline import InlineExecutor

    task.make_executor = lambda *_: InlineExecutor()
    task.main([batch])


def sbatch(folder: Path, arguments: list[str]) -> int:
    given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
    first, last, most = re.fullmatch(r"(\d+)-(\d+)%(\d+)", given["array"]).groups()
    with _state(folder) as state:
        (folder / "sbatch.log").open("a").write(shlex.join(arguments) + "\n")
        if given.get("partition", "debug") != "debug":
            print(
                "sbatch: error: invalid partition specified: " + given["partition"], file=sys.stderr
            )
            print("sbatch: error: Batch job submission failed: Invalid partition name specified",
                  file=sys.stderr)  # fmt: skip
            return 1
        waiting = sum(t["state"] in ("PENDING", "RUNNING") for t in state["tasks"].values())
        if waiting + int(last) + 1 > state["max_submit"]:
            print("sbatch: error: QOSMaxSubmitJobPerUserLimit", file=sys.stderr)
            why = "Job violates accounting/QOS policy (job submit limit, user's size and/or limits)"
            print(f"sbatch: error: Batch job submission failed: {why}", file=sys.stderr)
            return 1
        job = state["next"]
        state["next"] += 1
        for index in range(int(first), int(last) + 1):
            state["tasks"][f"{job}_{index}"] = {
                "job": job, "index": index, "name": given["job-name"], "state": "PENDING",
                "code": "0:0", "pid": 0, "output": given["output"], "wrap": given["wrap"],
                "dependency": given.get("dependency", ""), "at_a_time": int(most),
                "mem": given.get("mem", ""), "cwd": os.getcwd(), "env": dict(os.environ),
            }  # fmt: skip
    if state.get("die_after_sbatch"):  # the submitting command is killed before it hears of it
        os.kill(state["die_after_sbatch"] if state["die_after_sbatch"] > 1 else os.getppid(), 9)
    print(job)
    return 0


def squeue(folder: Path, arguments: list[str]) -> int:
    named = [a.partition("=")[2].split(",") for a in arguments if a.startswith("--name=")]
    with _state(folder) as state:
        if state.get("down"):
            print("slurm_load_jobs error: Unable to contact slurm controller", file=sys.stderr)
            return 1
        for task in state["tasks"].values():
            active = task["state"] in ("PENDING", "RUNNING", "COMPLETING")
            if active and (not named or task["name"] in named[0]):
                reason = "Priority" if task["state"] == "PENDING" else "None"
                print(f"{task['name']}|{task['index']}|{task['state']}|{reason}")
    return 0


def sacct(folder: Path, arguments: list[str]) -> int:
    given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
    with _state(folder) as state:
        if not state["accounting"] or state.get("down"):
            print("Slurm accounting storage is disabled", file=sys.stderr)
            return 1
        for task in state["tasks"].values():
            if given.get("jobs") == str(task["job"]) or given.get("name") == task["name"]:
                by = " by 0" if task["state"] == "CANCELLED" else ""
                print(f"{task['job']}_{task['index']}|{task['state']}{by}|{task['code']}")
    return 0


def scontrol(folder: Path, arguments: list[str]) -> int:
    if arguments == ["show", "config"]:
        print("ClusterName             = fake\nMaxArraySize            = 1001")
        return 0
    with _state(folder) as state:
        if state.get("down"):
            return 1
        for task in state["tasks"].values():
            if task["job"] == int(arguments[-1]):
                print(f"JobId={task['job']} ArrayJobId={task['job']} ArrayTaskId={task['index']} "
                      f"JobState={task['state']} Reason=None ExitCode={task['code']}")  # fmt: skip
    return 0


def scancel(folder: Path, arguments: list[str]) -> int:
    (name,) = [a.partition("=")[2] for a in arguments if a.startswith("--name=")]
    with _state(folder) as state:
        for task in state["tasks"].values():
            if task["name"] == name and task["state"] == "PENDING":
                task.update(state="CANCELLED")
            elif task["name"] == name and task["state"] == "RUNNING":
                task.update(state="COMPLETING")
                _kill(task, signal.SIGTERM)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        sys.exit(serve())
    command, *given = sys.argv[1:]
    sys.exit(globals()[command](Path(os.environ["FAKE_SLURM"]), given))
