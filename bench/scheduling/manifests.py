"""Kubernetes manifests of a plan: one batch/v1 Job for each application.

The share of the GPU stands on the pod template in annotations of KubeShare 1 (Yeh et al., HPDC
2020), memory in bytes. KubeShare reads them on its own SharePods: without a controller that makes
these of such pods, the share is ignored. The image's entry point must take the arguments below.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any

import yaml

from bench.errors import BenchError
from bench.scheduling.problem import Assignment, Plan

DEFAULT_IMAGE = "registry.local/edge-adaptation-bench:latest"
"""A placeholder, not a published image."""

_LONGEST = 63
_DIGITS = 4


def manifests(
    plan: Plan,
    window_s: float,
    *,
    runtime_bytes: float = 0.0,
    cpus: float = 1.0,
    image: str = DEFAULT_IMAGE,
) -> dict[str, dict[str, Any]]:
    """The Jobs of a plan by their names.

    Kubernetes ends a Job after ``window_s``, rounded up. A process takes ``runtime_bytes`` besides
    its working memory; CPU and GPU share memory, so that both limits are the sum. ``cpus``: cores,
    divided as the GPU. Raises BenchError if two Jobs would get one name, or the image has none.
    """
    if not image or image != "".join(image.split()):
        raise BenchError(f"image {image!r}: give an image's name without blanks")
    if not 0 < cpus <= 1024:
        raise BenchError(f"cpus {cpus:g}: give the cores of the device, above 0")
    names = job_names(a.name for a in plan.assignments)
    return {
        name: _job(name, given, window_s, runtime_bytes, cpus, image)
        for name, given in zip(names, plan.assignments, strict=True)
    }


def to_yaml(manifest: dict[str, Any]) -> str:
    """A manifest as a YAML document."""
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)


def job_names(applications: Iterable[str]) -> list[str]:
    """Names of Kubernetes objects for applications' names, in their order.

    A name that is a DNS-1123 label stays. Any other is made one, and ends with a part of its own
    digest, so that no two become the same. Raises BenchError if two do all the same.
    """
    taken: dict[str, str] = {}
    for application in applications:
        name = _dns_label(application)
        if name in taken:
            raise BenchError(
                f"applications {taken[name]!r} and {application!r} would both be the Kubernetes "
                f"Job {name!r}; rename one"
            )
        taken[name] = application
    return list(taken)


def _dns_label(name: str) -> str:
    if len(name) <= _LONGEST and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"
    return f"{plain[: _LONGEST - 9].rstrip('-')}-{digest}"


def _job(
    name: str, given: Assignment, window_s: float, runtime_bytes: float, cpus: float, image: str
) -> dict[str, Any]:
    memory, share = str(math.ceil(given.memory_bytes + runtime_bytes)), _share(given.share)
    resources = {"cpu": f"{max(int(1000 * given.share * cpus), 1)}m", "memory": memory}
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "edge-adaptation-bench"}
    gpu = {"gpu_request": share, "gpu_limit": share, "gpu_mem": memory}
    arguments = {"application": given.name, "sparsity": given.sparsity}
    arguments |= {"iterations": given.iterations, "share": share}
    container = {
        "name": "retraining",
        "image": image,
        "args": [f"--{key}={value}" for key, value in arguments.items()],
        "resources": {"requests": resources, "limits": dict(resources)},
    }
    pod = {
        "metadata": {
            "labels": dict(labels),
            "annotations": {f"kubeshare/{key}": value for key, value in gpu.items()},
        },
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    annotations = {"edge-adaptation-bench/application": given.name}
    # No second try: it would start in a window that has partly passed.
    spec = {"activeDeadlineSeconds": math.ceil(window_s), "backoffLimit": 0, "template": pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def _share(share: float) -> str:
    """Rounded down, so that the shares of a device never sum to more than one."""
    scale = 10**_DIGITS
    return f"{math.floor(share * scale + 1e-6) / scale:.{_DIGITS}f}"
