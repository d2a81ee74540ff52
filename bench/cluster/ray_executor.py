"""Runs as tasks of a Ray cluster, an existing one or one on this machine, over a shared store.

Ray decides where and when a task runs, by the cores, GPUs and memory that it asks for. What a task
does is the command that the queue of a batch system would get too, and its result is what it leaves
in the store: nothing but an exit code travels through Ray. Ray makes no task again (``max_retries``
is 0): what becomes of a worker that died is for the store, see `bench.cluster.settling`. Tasks end
with the command that submitted them, as Ray has it.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cluster.batch import MOST_JOBS, Batch, Task, alike, grouped, making
from bench.cluster.batch_executor import BatchExecutor, Submitted
from bench.cluster.slurm_queue import Final
from bench.cluster.task import SHARE
from bench.errors import BenchError
from bench.execute.base import Ended, Limits, available_cores
from bench.execute.claims import process_lives, process_name
from bench.execute.preparation import Preparation, PreparationListener, in_stages
from bench.io.one_line import one_line
from bench.io.weights_cache import cache_folder
from bench.registry import register
from bench.study.job import Job

POLL_S = 0.5
ANSWER_S = 10.0
"""How long the head of a cluster may take to answer."""
STOP_S = 30.0
"""How long a task that is cancelled may take to record it."""
MOST = 1000
"""Tasks that are handed to Ray at a time, where the user names no number."""
ROUNDS = 4
"""Tasks for each core of the cluster that short runs are put into, at least: so all stay busy."""
ENDLESS_MINUTES = 365 * 24 * 60
"""Ray ends no task because of its time."""


@dataclass
class _Task(Submitted):
    """A task with what it needs of Ray."""

    needs: dict[str, Any] = field(default_factory=dict)


@register("executor", "ray")
class RayExecutor(BatchExecutor):
    """Tasks of Ray: of the cluster at ``--ray-address``, else of this machine for this command.

    All runs wait in Ray at once, or ``workers`` of them.
    """

    refused = ("--partition", "--sbatch", "--image")

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(workers, MOST, limits)
        self._ray = _ray()
        self._queued: deque[_Task] = deque()
        self._tasks: dict[Any, _Task] = {}  # in Ray, by their references
        self._connected = False

    @classmethod
    def default_workers(cls, threads: int) -> int:
        """As many as the cluster has room for."""
        return MOST

    @classmethod
    def knows(cls, ticket: str) -> bool | None:
        """A ticket is PROCESS:NAME_INDEX: tasks live as long as the command that submitted them."""
        return process_lives(ticket.rpartition(":")[0])

    def dry_run(self, jobs: Sequence[Job], preparations: Sequence[Preparation]) -> list[str]:
        """How many runs ask Ray for what; no cluster is looked at."""
        lines = []
        for (accelerator, threads, measured), group in alike(jobs).items():
            needs = self._needs(accelerator, threads)
            asked = ", ".join(f"{name}={value}" for name, value in needs.items())
            alone = ", alone on a node" if measured else ""
            lines.append(f"{len(group)} runs in tasks of Ray, each with {asked}{alone}")
        return lines

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        """Tasks of Ray too; they have ended when this returns."""
        self._listener = listener
        for stage in in_stages(preparations):
            contents, threads = making(stage, logs)
            batch = self._made(contents, logs.parent.resolve())
            needs = self._needs(stage[0].cell.accelerator, threads)
            for index, each in enumerate(stage):
                listener.preparation_begins(each)
                Path(contents[index].log).unlink(missing_ok=True)
                self._queued.append(_Task(batch, index, each, needs=needs))
            self._write(batch)
            while self._queued or self._tasks:
                for task, final in self._poll():
                    self._end(task, final)
                for task in self._tasks.values():
                    task.advance(listener)

    def wait(self) -> list[Ended]:
        tasks = self._of(list(self.waiting))
        self.waiting.clear()
        for batch in {task.batch.name: task.batch for task in tasks}.values():
            self._write(batch)
            self._hand_over(batch)
        self._queued.extend(tasks)
        return [ended for task, final in self._poll() for ended in self._end(task, final)]

    def cancel(self) -> list[Ended]:
        """Forget what waits, and stop what runs, which records it."""
        super().cancel()
        self._queued.clear()
        tasks, self._tasks = self._tasks, {}
        try:
            for reference in tasks:
                self._ray.cancel(reference, force=False)
            if tasks:
                self._ray.wait(list(tasks), num_returns=len(tasks), timeout=STOP_S)
        except self._lost() as error:
            raise _unreachable(error) from error
        stopped = Final("CANCELLED")
        each = [ended for task in tasks.values() for ended in self._end(task, stopped)]
        return [ended for ended in each if ended.records]

    def close(self) -> None:
        """End what still runs, by leaving the cluster; one of this command's own ends too."""
        self._queued.clear()
        self._tasks.clear()
        if self._connected:
            self._ray.shutdown()
            self._connected = False
        super().close()

    # -----------------------------------------------------------------------

    def _poll(self) -> list[tuple[_Task, Final]]:
        """Hand over what there is room for, wait a moment; the tasks that have ended."""
        self._connect()
        try:
            while self._queued and len(self._tasks) < self._at_a_time:
                task = self._queued.popleft()
                self._tasks[self._start(task)] = task
            if not self._tasks:
                return []
            # One that has ended is enough to begin the next.
            known = list(self._tasks)
            ended, _ = self._ray.wait(known, num_returns=1, timeout=POLL_S)
            if ended:
                ended, _ = self._ray.wait(known, num_returns=len(known), timeout=0)
            return [(self._tasks.pop(reference), self._final(reference)) for reference in ended]
        except self._lost() as error:
            raise _unreachable(error) from error

    def _start(self, task: _Task) -> Any:
        options = {"name": task.name, "max_retries": 0, **task.needs}
        run = self._ray.remote(_by_value()).options(**options)
        given = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
        given["BENCH_CACHE"] = str(cache_folder().resolve())
        return run.remote(str(task.batch.path), task.index, str(task.log), given, STOP_S)

    def _final(self, reference: Any) -> Final:
        """How a task ended, by its exit code or by Ray's error."""
        errors = self._ray.exceptions
        try:
            code = int(self._ray.get(reference))
        except errors.TaskCancelledError:
            return Final("CANCELLED")
        except errors.OutOfMemoryError as error:
            return Final("OUT_OF_MEMORY", why=_told(error))
        except errors.NodeDiedError as error:
            return Final("NODE_FAIL", why=_told(error))
        except errors.RayTaskError as error:  # it could not be begun, as without the project there
            return Final("FAILED", 1, why=_told(error))
        except errors.RayError as error:  # the worker died, or what it ran on
            return Final("LOST", why=_told(error))
        if code < 0:
            return Final("FAILED", 0, -code)
        return Final("FAILED", code) if code else Final("COMPLETED")

    def _of(self, jobs: Sequence[Job]) -> list[_Task]:
        """Jobs as tasks."""
        found = []
        for (accelerator, threads, measured), group in alike(jobs).items():
            needs = self._needs(accelerator, threads, measured)
            most = min(max(int(len(group) / (ROUNDS * self._cores())), 1), MOST_JOBS)
            tasks = grouped(group, self._seconds, self._resources.minutes, most)
            batch = self._made([Task(jobs=tuple(task)) for task in tasks], Path(group[0].store))
            found += [_Task(batch, index, needs=needs) for index in range(len(tasks))]
        return found

    def _needs(self, accelerator: str, threads: int, alone: bool = False) -> dict[str, Any]:
        """What a task asks Ray for; one that is timed has all cores of a node."""
        asked = self._resources
        gpus = asked.gpus if asked.gpus is not None else int(accelerator == "cuda")
        needs: dict[str, Any] = {"num_cpus": self._cores_of_a_node() if alone else threads}
        needs |= {"num_gpus": gpus} if gpus else {}
        return needs | ({"memory": asked.memory_bytes} if asked.mem else {})

    def _made(self, tasks: Sequence[Task], store: Path) -> Batch:
        limits = [self.limits.memory_bytes]
        limits += [SHARE * self._resources.memory_bytes] if self._resources.memory_bytes else []
        least = min((limit for limit in limits if limit), default=None)
        minutes = self._resources.minutes or ENDLESS_MINUTES
        return self._batch(store, tasks, process_name(), minutes, least)

    def _cores(self) -> int:
        self._connect()
        return max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _cores_of_a_node(self) -> int:
        self._connect()
        nodes = (node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"])
        return max(int(max(nodes, default=1)), 1)

    def _lost(self) -> tuple[type[Exception], ...]:
        """What Ray raises where the cluster cannot be reached."""
        return (self._ray.exceptions.RaySystemError, ConnectionError, TimeoutError)

    def _connect(self) -> None:
        """Join the cluster, or start one on this machine for as long as this process lives."""
        if self._connected:
            return
        address = self._resources.ray_address or os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {"num_cpus": min(self._at_a_time, available_cores())}
        own["include_dashboard"] = False
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        errors: tuple[type[Exception], ...] = (
            OSError,
            ValueError,
            RuntimeError,
            *self._lost(),
        )
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM) if main else None
        try:
            _require_answer(address)
            self._ray.init(address=address, **({} if address else own), **quiet)
        except errors as error:
            at = f"--ray-address {address}" if address else "executor 'ray'"
            raise BenchError(f"{at}: no cluster can be used: {_told(error)}") from error
        finally:
            if main:
                signal.signal(signal.SIGTERM, handler)  # Ray has set its own, which records nothing
        self._connected = True


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BenchError(
            f"executor 'ray': Ray cannot be imported ({one_line(str(error))}): pip install "
            "'edge-adaptation-bench[ray]'"
        ) from error


def _require_answer(address: str | None) -> None:
    """OSError if nobody listens there: Ray itself would try for many minutes."""
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def _unreachable(error: Exception) -> BenchError:
    return BenchError(
        f"executor 'ray': the cluster cannot be reached any more: {_told(error)}; the same command "
        "goes on with what is not recorded"
    )


def _told(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {str(error).strip() or 'no reason given'}", 300)


def _by_value() -> Callable[..., int]:
    """What a worker does. Ray sends the code along, so that no path of the worker's matters."""

    def run(batch: str, index: int, log: str, given: dict[str, str], stop_s: float) -> int:
        import os
        import subprocess
        import sys

        command = [sys.executable, "-P", "-m", "bench.cluster.task", batch, str(index)]
        with open(log, "ab") as output:
            task = subprocess.Popen(
                [*command, str(os.getpid())],  # it ends with this process
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **given},
                start_new_session=True,
            )
        try:
            return task.wait()
        except KeyboardInterrupt:  # cancelled
            task.terminate()
            return task.wait(stop_s)
        finally:
            if task.poll() is None:
                task.kill()

    return run
