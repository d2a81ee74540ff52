"""Manifests of a suite's runs for Kubernetes (K3s too): written, never submitted.

One indexed Job (batch/v1) for all runs that ask for the same; its tasks are pods, each of which
runs what its index says of a batch file in the store, as a task of a Slurm array does. Cells are
claimed by the pods themselves, so that a manifest may be applied twice, or beside ``bench run``.
The folders of the store and of cached weights are mounted where they are here: every node has them
under the same path. A pod that is lost is made again (``backoffLimitPerIndex``, Kubernetes 1.29);
a run that fails is a record, and its pod ends well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bench.cluster.batch import Batch, Task, alike, grouped, new_name, time_limit
from bench.cluster.settling import RETRIES
from bench.cluster.task import SHARE
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits
from bench.execute.preparation import Preparation, PreparationListener
from bench.io.weights_cache import cache_folder
from bench.records.cell import Cell
from bench.registry import register
from bench.study.job import Job
from bench.study.resources import Resources

IMAGE = "registry.local/edge-adaptation-bench:latest"
"""A placeholder, not a published image."""
AT_A_TIME = 10
MOST_TASKS = 10_000
"""Of an indexed Job; Kubernetes takes up to 100,000, with a limit of what they may report."""


@register("executor", "k8s")
class KubernetesExecutor(Executor):
    """Writes Jobs for ``kubectl apply``, with --dry-run alone; ``workers`` pods at a time."""

    enforces = ("timeout_s", "memory_bytes")
    elsewhere: ClassVar[bool] = True

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(workers, limits)
        self._resources = Resources()
        self._seconds: Callable[[Cell], float | None] = lambda _: None

    @classmethod
    def default_workers(cls, threads: int) -> int:
        """What a small cluster has."""
        return AT_A_TIME

    def use_resources(self, resources: Resources, given: Sequence[str] = ()) -> None:
        for option in ("--partition", "--sbatch", "--ray-address"):
            if option in given:
                raise BenchError(f"{option}: executor 'k8s' knows no such thing; leave it out")
        self._resources = resources

    def expect(self, seconds: Callable[[Cell], float | None]) -> None:
        self._seconds = seconds

    def dry_run(self, jobs: Sequence[Job], preparations: Sequence[Preparation]) -> list[str]:
        """The manifests as YAML documents; what their pods read is written into the store."""
        documents = []
        for (accelerator, threads, measured), group in alike(jobs).items():
            if measured:
                raise BenchError(
                    "executor 'k8s': costs that are measured need a node of their own; take a "
                    "modelled device"
                )
            tasks = grouped(group, self._seconds, self._resources.minutes)
            for first in range(0, len(tasks), MOST_TASKS):
                part = tasks[first : first + MOST_TASKS]
                batch = self._batch(Path(group[0].store), part)
                batch.write()
                made = self._manifest(batch, accelerator, threads, group[0].plugins)
                documents.append("---\n" + yaml.safe_dump(made, sort_keys=False).rstrip("\n"))
        return documents

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        raise BenchError(
            "executor 'k8s' writes manifests and submits none: add --dry-run, and give what it "
            "prints to 'kubectl apply -f -'"
        )

    def wait(self) -> list[Ended]:
        return []  # `prepare` has refused

    def _batch(self, store: Path, tasks: Sequence[Sequence[Job]]) -> Batch:
        given = self._resources.memory_bytes
        limits = [self.limits.memory_bytes, given and SHARE * given]
        return Batch(
            name=new_name(),
            store=str(store),
            token="",
            executor="",
            cluster="",
            minutes=self._resources.minutes
            or time_limit(tasks, self._seconds, self.limits.timeout_s),
            timeout_s=self.limits.timeout_s,
            memory_bytes=min((limit for limit in limits if limit), default=None),
            tasks=tuple(Task(jobs=tuple(task)) for task in tasks),
        )

    def _manifest(
        self, batch: Batch, accelerator: str, threads: int, plugins: Sequence[str]
    ) -> dict[str, Any]:
        asked = self._resources
        gpus = asked.gpus if asked.gpus is not None else int(accelerator == "cuda")
        needs: dict[str, Any] = {"cpu": str(threads)}
        needs |= {"memory": str(asked.memory_bytes)} if asked.mem else {}
        needs |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
        cache = str(cache_folder().resolve())
        folders = dict.fromkeys([batch.store, cache, *(str(Path(p).parent) for p in plugins)])
        names = {folder: f"folder-{i}" for i, folder in enumerate(folders)}
        container = {
            "name": "runs",
            "image": asked.image or IMAGE,
            "command": ["python", "-P", "-m", "bench.cluster.task", str(batch.path)],
            "env": [{"name": "BENCH_CACHE", "value": cache}],
            "resources": {"requests": needs, "limits": dict(needs)},
            "volumeMounts": [{"name": n, "mountPath": folder} for folder, n in names.items()],
        }
        # The cache may be made by the first pod; the store and the plugins are there.
        kind = {cache: "DirectoryOrCreate"}
        volumes = [
            {"name": n, "hostPath": {"path": folder, "type": kind.get(folder, "Directory")}}
            for folder, n in names.items()
        ]
        labels = {
            "app.kubernetes.io/name": batch.name,
            "app.kubernetes.io/part-of": "edge-adaptation-bench",
        }
        spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
        number = len(batch.tasks)
        at_a_time = min(self.workers, number)
        rounds = -(-number // at_a_time)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": batch.name, "labels": labels},
            "spec": {
                "completionMode": "Indexed",
                "completions": number,
                "parallelism": at_a_time,
                "backoffLimitPerIndex": RETRIES,
                "activeDeadlineSeconds": rounds * batch.minutes * 60 * (1 + RETRIES),
                "template": {"metadata": {"labels": dict(labels)}, "spec": spec},
            },
        }
