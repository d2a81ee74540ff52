"""A module ``ray`` whose tasks run in this process, one a look, and end as they are told to.

What a node would start, ``bench.cluster.task``, is called here, with its runs inline.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ERRORS = ("OutOfMemoryError", "NodeDiedError", "WorkerCrashedError", "TaskCancelledError",
          "RaySystemError", "RayTaskError")  # fmt: skip


@dataclass(eq=False)
class Task:
    """What was handed to Ray; ``outcome``: an exit code, or an error."""

    options: dict[str, Any]
    arguments: tuple[Any, ...]
    outcome: int | Exception | None = None


@dataclass
class FakeRay:
    """Put it in the place of the module by `module`.

    ``endings``: of the next tasks: None runs them; an exit code or an exception's name kills them
    when they have begun, "early NAME" before.
    """

    endings: deque[Any] = field(default_factory=deque)
    tasks: list[Task] = field(default_factory=list)
    started: list[dict[str, Any]] = field(default_factory=list)
    open: bool = False

    def module(self) -> ModuleType:
        """As ``import ray`` gives it."""
        made = ModuleType("ray")
        base = type("RayError", (Exception,), {})
        errors = {name: type(name, (base,), {}) for name in ERRORS}
        made.exceptions = SimpleNamespace(RayError=base, **errors)
        self.errors = errors
        for name in ("init", "shutdown", "remote", "wait", "get", "cancel"):
            setattr(made, name, getattr(self, name))
        made.cluster_resources = lambda: {"CPU": 2.0}
        made.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}]
        return made

    def init(self, **options: Any) -> None:
        self.open = True
        self.started.append(options)

    def shutdown(self) -> None:
        self.open = False

    def remote(self, function: Any) -> Any:
        def options(**given: Any) -> Any:
            def remote(*arguments: Any) -> Task:
                assert self.open
                self.tasks.append(Task(given, arguments))
                return self.tasks[-1]

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(options=options)

    def wait(self, tasks: list[Task], num_returns: int, timeout: float) -> Any:
        if timeout and all(task.outcome is None for task in tasks):
            self._run(tasks[0])
        ended = [task for task in tasks if task.outcome is not None]
        return ended, [task for task in tasks if task.outcome is None]

    def get(self, task: Task) -> int:
        if isinstance(task.outcome, Exception):
            raise task.outcome
        assert task.outcome is not None
        return task.outcome

    def cancel(self, task: Task, force: bool) -> None:
        task.outcome = task.outcome or self.errors["TaskCancelledError"]("cancelled")

    def _run(self, task: Task) -> None:
        from bench.cluster import task as node
        from bench.cluster.batch import Batch
        from bench.execute.claims import Claims
        from bench.execute.inline import InlineExecutor
        from bench.records.store import Store

        path, index = task.arguments[:2]
        ending = self.endings.popleft() if self.endings else None
        if ending is None:
            make, node.make_executor = node.make_executor, lambda *_: InlineExecutor()
            try:
                node.run_task(Batch.model_validate_json(Path(path).read_bytes()), index)
            finally:
                node.make_executor = make
            task.outcome = 0
            return
        batch = Batch.model_validate_json(Path(path).read_bytes())
        if not str(ending).startswith("early"):
            claims = Claims(Store(batch.store), batch.token, batch.ticket(index))
            claims.take([cell for job in batch.tasks[index].jobs for cell in job.cells])
            claims._closed.set()  # it dies, and gives nothing back
        if isinstance(ending, int):
            task.outcome = ending
        else:
            task.outcome = self.errors[ending.split()[-1]]("it was so in a test")
