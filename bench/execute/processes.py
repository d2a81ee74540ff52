"""Each run in a process of its own: isolated, timed, limited in memory, killable."""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from bench import registry
from bench.accelerator.choice import Choice
from bench.accelerator.gpus import Gpu
from bench.accelerator.slots import Slots
from bench.costs.device_profile import load_device
from bench.execute.base import Ended, Executor, Limits, Stopwatch, collect, require_source
from bench.execute.launcher import Launcher
from bench.execute.preparation import Preparation, PreparationListener, needed, tell_advance
from bench.execute.process_tree import ActiveTime, ProcessTree, signal_name
from bench.io.run_output import last_line
from bench.records.cell import Cell
from bench.records.record import Status
from bench.records.store import Store
from bench.registry import register
from bench.study.job import Job

POLL_S = 0.1
START_LIMIT_S = 300.0
"""Longest that a launcher may take to import its modules and start a run."""
ANSWER_LIMIT_S = 10.0
"""Longest that a launcher may take to say how a process has ended."""
PRELOAD = (
    "torch", "torch._dynamo", "torch._subclasses.schema_check_mode", "torch.utils.flop_counter",
    "torch.utils.serialization", "bench.contracts.model", "bench.contracts.module_names",
    "bench.costs.factory", "bench.execute.work", "bench.run.expected_source",
    "bench.run.label_process", "bench.run.protocols.base",
)  # fmt: skip
"""Imported by every launcher: what all runs would import otherwise, some on their first step."""

Outcome = tuple[Status, str]
"""How a process ended: a status, and the reason where it is not ``ok``."""


@dataclass
class _Task:
    """Work in a child of a launcher: a run, or something that runs share.

    Attributes
    ----------
    name : names it to the launcher
    timeout_s, memory_bytes : its limits
    measured : it is timed on this machine
    alone : it was in a launcher that died, and has one of its own now
    active : time in which it could work, counted from its start
    unanswered : time since its process has ended without a word of the launcher
    killed : why it was killed
    left : files that it left in shared memory
    gpu : the GPU that it computes on
    """

    name: str
    work: dict[str, Any]
    log: Path
    preload: tuple[str, ...]
    timeout_s: float | None = None
    memory_bytes: float | None = None
    measured: bool = False
    alone: bool = False
    launcher: Launcher | None = None
    tree: ProcessTree | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    active: ActiveTime = field(default_factory=ActiveTime)
    unanswered: ActiveTime | None = None
    killed: Outcome | None = None
    left: tuple[str, ...] = ()
    gpu: Gpu | None = None


Ending = tuple[_Task, Outcome]


@dataclass
class _Ahead:
    """What runs share and is not made yet.

    Attributes
    ----------
    waiting : what has not begun
    begun : what is worked on, by name, with how far its log was read
    refused : why some does not apply, by name
    """

    logs: Path
    listener: PreparationListener
    waiting: deque[Preparation]
    begun: dict[str, tuple[Preparation, int]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Of all of it."""
        return {*self.begun, *(each.name for each in self.waiting)}

    def log(self, each: Preparation) -> Path:
        """What the process that makes it writes to."""
        return self.logs / f"{each.kind}-{each.name}.log"

    def settle(self, ended: Sequence[Ending]) -> list[Ending]:
        """Tell how far all has come and what has ended; of ``ended`` the runs.

        BenchError if a source model failed.
        """
        for name, (each, position) in self.begun.items():
            position, reason = tell_advance(each, self.log(each), position, self.listener)
            self.begun[name] = each, position
            self.refused |= {name: reason} if reason else {}
        runs = []
        for task, (status, reason) in ended:
            if task.name not in self.begun:
                runs.append((task, (status, reason)))
                continue
            each, _ = self.begun.pop(task.name)
            if status == "ok" and task.name in self.refused:
                self.listener.preparation_does_not_apply(each, self.refused[task.name])
                continue
            error = "" if status == "ok" else reason
            self.listener.preparation_ends(each, error)
            require_source(each, error, task.log)
        return runs


@register("executor", "processes")
class ProcessExecutor(Executor):
    """Local processes, one torch thread each; a run is killed at its limits.

    A run may take 80 % of the machine's memory, divided by ``workers``, unless ``limits`` say
    otherwise. Time in which it, or the machine, stood still does not count. Where the process that
    starts runs dies, those that it had started are begun once more, each by itself.
    """

    enforces = ("timeout_s", "memory_bytes")

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(workers, limits)
        share = 0.8 * psutil.virtual_memory().total / workers
        self._memory_bytes = self.limits.memory_bytes or share
        self._slots = Slots(self.computing)
        self._launchers: dict[tuple[str, ...], Launcher] = {}
        self._running: dict[str, _Task] = {}
        self._jobs: dict[str, Job] = {}  # those that run, by their names
        self._alone: set[str] = set()  # runs that are timed on this machine
        self._known_left: set[str] = set()
        self._ahead = _Ahead(Path(), PreparationListener(), deque())
        self._needs: dict[str, set[str]] = {}  # of jobs that wait for what runs share

    def compute_on(self, choice: Choice) -> None:
        """Runs get slots of these GPUs: so many run at a time."""
        super().compute_on(choice)
        self._slots = Slots(choice)
        self.workers = min(self.workers, self._slots.number)

    def submit(self, job: Job) -> None:
        if any(load_device(cell.device).cost == "measured" for cell in job.cells):
            self._alone.add(job.run)
        super().submit(job)

    def wait(self) -> list[Ended]:
        self._begin_ahead()
        while (job := self._startable()) is not None:
            self.waiting.remove(job)
            self._jobs[job.run] = job
            limits = self.limits.timeout_s, self._memory_bytes
            work = {"do": "run", "job": job.model_dump(mode="json")}
            task = _Task(job.run, work, job.log, _preload(job.cells[0]), *limits)
            self._start(replace(task, measured=job.run in self._alone))
        ended = self._ahead.settle(self._poll(self._has_record))
        return [self._finish(task, *outcome) for task, outcome in ended]

    def cancel(self) -> list[Ended]:
        super().cancel()
        stopped = [task for name, task in self._running.items() if name in self._jobs]
        self._kill_running()
        reason = "stopped before its end (Ctrl-C or SIGTERM)"
        return [self._finish(task, "interrupted", reason) for task in stopped]

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        self._ahead = _Ahead(logs, listener, deque(preparations))
        try:
            self._begin_ahead()
            while self._ahead.waiting and len(self._running) >= self.workers:
                self._ahead.settle(self._poll())
                self._begin_ahead()
        except BaseException:
            self._kill_running()
            raise

    def close(self) -> None:
        """End all launchers and whatever still runs in them."""
        for launcher in self._launchers.values():
            launcher.close_input()
        for launcher in self._launchers.values():
            launcher.stop()
        self._launchers.clear()

    # -----------------------------------------------------------------------

    def _begin_ahead(self) -> None:
        """Begin what runs share, as far as there is room and its source model is made."""
        ahead, plugins = self._ahead, [str(path) for path in registry.plugins()]
        while ahead.waiting and len(self._running) < self.workers:
            unmade = ahead.names
            each = next((p for p in ahead.waiting if p.source not in unmade), None)
            if each is None or not self._slot(each.name, each.cell):
                return
            ahead.waiting.remove(each)
            log = ahead.log(each)
            log.unlink(missing_ok=True)
            cell = each.cell.model_dump(mode="json")
            work = {"do": each.kind, "cell": cell, "plugins": plugins}
            memory = None if each.kind == "source" else self._memory_bytes
            ahead.listener.preparation_begins(each)
            self._start(_Task(each.name, work, log, _preload(each.cell), None, memory))
            ahead.begun[each.name] = each, 0

    def _startable(self) -> Job | None:
        """The first job that waits for nothing that is still made, if there is room for it."""
        unmade = self._ahead.names
        job = next(
            (job for job in self.waiting if not (unmade and self._needed(job) & unmade)), None
        )
        if job is None or not self._may_start(job):
            return None
        has_slot = self._slot(job.run, job.cells[0], job.run in self._alone)
        return job if has_slot else None

    def _needed(self, job: Job) -> set[str]:
        """Names of what is made before a job can start; it is asked for often."""
        if job.run not in self._needs:
            self._needs[job.run] = needed(job.cells[0])
        return self._needs[job.run]

    def _may_start(self, job: Job) -> bool:
        """Whether there is room; a job that is timed on this machine runs alone."""
        if not self._running:
            return True
        alone = self._alone.intersection((job.run, *self._running))
        return len(self._running) < self.workers and not alone

    def _slot(self, name: str, cell: Cell, alone: bool = False) -> bool:
        """Whether work on a cell can begin: on a GPU it takes a slot, until it ends."""
        return cell.accelerator == "cpu" or self._slots.take(name, alone) is not None

    def _start(self, task: _Task) -> None:
        task.gpu = self._slots.gpu(task.name)
        key = _key(task)
        if key not in self._launchers:
            self._launchers[key] = Launcher(task.preload, task.gpu, task.measured)
        task.launcher = self._launchers[key]
        task.launcher.submit(task.name, task.work, task.log)
        task.watch, task.active, task.tree = Stopwatch(), ActiveTime(), None
        self._running[task.name] = task

    def _finish(self, task: _Task, status: Status, reason: str) -> Ended:
        job = self._jobs.pop(task.name)
        ended = collect(job, task.watch.started, task.watch.seconds, status, reason)
        new = tuple(file for file in task.left if file not in self._known_left)
        self._known_left.update(new)
        return replace(ended, left=new)

    def _has_record(self, task: _Task) -> bool:
        """Whether a run has written what it found out before its launcher died."""
        job = self._jobs.get(task.name)
        if job is None:
            return False
        found = [Store(job.store).get(cell.identity) for cell in job.cells]
        return any(record is not None and record.run == job.run for record in found)

    def _kill_running(self) -> None:
        for task in self._running.values():
            if task.tree is not None:
                task.tree.kill()
            self._slots.release(task.name)
        self._running.clear()

    def _poll(self, settled: Callable[[_Task], bool] = lambda _: False) -> list[Ending]:
        """Wait a moment; the tasks that have ended since the last call.

        ``settled``: whether a task has done its work, though its launcher died before saying so.
        """
        with selectors.DefaultSelector() as selector:
            for launcher in self._launchers.values():
                selector.register(launcher.output, selectors.EVENT_READ)
            selector.select(timeout=POLL_S)
        ended: list[Ending] = []
        for key, launcher in list(self._launchers.items()):
            answers = launcher.answers()
            if answers is None:
                del self._launchers[key]
                ended += self._after_death(launcher, settled)
                continue
            for answer in answers:
                task = self._running.get(answer.name)
                if task is None or task.launcher is not launcher:
                    continue
                if answer.pid is not None:
                    task.tree = ProcessTree(answer.pid)
                    task.watch, task.active = Stopwatch(), ActiveTime()
                elif answer.code is not None:
                    task.left = answer.left
                    ended.append((self._running.pop(task.name), _outcome(task, answer.code)))
        for task in list(self._running.values()):
            if self._lost(task):
                unheard: Outcome = ("failed", "it ended, and nothing was heard of how")
                outcome = task.killed or (("ok", "") if settled(task) else unheard)
                ended.append((self._running.pop(task.name), outcome))
        for task, _ in ended:
            self._slots.release(task.name)
            if task.alone and (own := self._launchers.pop(_key(task), None)) is not None:
                own.stop()
        return ended

    def _after_death(self, launcher: Launcher, settled: Callable[[_Task], bool]) -> list[Ending]:
        """End what a dead launcher had started, and begin it once more, each by itself."""
        said = launcher.last_error_line()
        launcher.stop()
        ended: list[Ending] = []
        for task in [task for task in self._running.values() if task.launcher is launcher]:
            if task.tree is not None:
                task.tree.kill_all()
            if task.killed is not None or settled(task) or task.alone:
                died: Outcome = ("failed", f"its launcher process died: {said}")
                done: Outcome = ("ok", "")
                outcome = task.killed or (done if settled(task) else died)
                ended.append((self._running.pop(task.name), outcome))
            else:
                task.alone = True
                self._start(task)
        return ended

    def _lost(self, task: _Task) -> bool:
        """Look at a task, kill it at its limits; whether it ended and its launcher keeps silent."""
        assert task.launcher is not None
        if task.tree is None:
            task.active.look(task.launcher.stopped)
            if task.active.seconds > START_LIMIT_S:
                task.launcher.kill()
            return False
        if task.tree.ended:
            task.unanswered = task.unanswered or ActiveTime()
            task.unanswered.look(task.launcher.stopped)
            return task.unanswered.seconds > ANSWER_LIMIT_S
        task.active.look(task.tree.stopped)
        task.tree.look()
        if task.killed is None:
            task.killed = _beyond_limits(task)
            if task.killed is not None:
                task.tree.kill()
        return False


def _key(task: _Task) -> tuple[str, ...]:
    """Of its launcher: tasks share one if they need the same modules, have the same GPU, and get
    memory alike.
    """
    on = (*task.preload, str(task.gpu), str(task.measured))
    return (*on, task.name) if task.alone else on


def _beyond_limits(task: _Task) -> Outcome | None:
    """Why a task is to be killed, or None."""
    if task.timeout_s is not None and task.active.seconds > task.timeout_s:
        return "timeout", f"no end after {task.timeout_s:g} s; killed"
    limit = task.memory_bytes
    assert task.tree is not None
    if limit is None or task.tree.resident_bytes() <= limit:
        return None
    if (resident := task.tree.resident_bytes(shared_once=True)) <= limit:
        return None
    return "oom", (
        f"resident memory of {resident / 2**30:.2f} GiB exceeds the limit of "
        f"{limit / 2**30:.2f} GiB; killed"
    )


def _preload(cell: Cell) -> tuple[str, ...]:
    """The slow imports that a cell's components declare; runs that share them share a launcher."""
    modules = list(PRELOAD)
    for kind in ("stream", "model", "method"):
        modules += registry.entry(kind, getattr(cell, kind).name).facts.get("preload", ())
    task = registry.entries("task").get(
        registry.entry("model", cell.model.name).facts.get("task", "")
    )
    modules += () if task is None else task.facts.get("preload", ())
    return tuple(dict.fromkeys(modules))


def _outcome(task: _Task, code: int) -> Outcome:
    if task.killed is not None:
        return task.killed
    if code == 0:
        return "ok", ""
    if code < 0:
        hint = "; perhaps the kernel's out-of-memory killer" if code == -signal.SIGKILL else ""
        return "failed", f"killed by {signal_name(-code)}{hint}"
    said = last_line(task.log).removeprefix("bench.errors.BenchError: ")
    return "failed", f"process ended with exit code {code}: {said}"
