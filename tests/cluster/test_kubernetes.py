"""Manifests of runs: valid for Kubernetes' schema, and a pod that they describe does its cells."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

K8S = ("--executor", "k8s", "--dry-run")
VERSIONS = ("1.29", "1.37")


def manifests(text: str) -> list[dict]:
    found = list(yaml.safe_load_all(text))
    for each in found:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)
    return found


def test_a_dry_run_prints_one_indexed_job_and_a_pod_of_it_makes_the_records(workplace):
    workplace.run("run", "--store", "other", "--methods", "tent", "--seeds", "1")
    asked = ("--mem", "2G", "--minutes", "30", "--jobs", "3", "--image", "lab/bench:1")
    done = workplace.run("run", *K8S, *asked, "--methods", "source-only,tent", "--seeds", "0,1")
    (job,) = manifests(done.stdout)
    assert not list((workplace.folder / "store").glob("records/*"))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 3)
    assert (spec["backoffLimitPerIndex"], spec["activeDeadlineSeconds"]) == (2, 2 * 1800 * 3)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "lab/bench:1"
    assert container["resources"]["limits"] == {"cpu": "1", "memory": str(2 * 2**30)}
    paths = [volume["hostPath"]["path"] for volume in pod["volumes"]]
    assert paths == [mount["mountPath"] for mount in container["volumeMounts"]]
    cache = workplace.environment["BENCH_CACHE"]
    assert paths == [str(workplace.folder / "store"), cache, str(workplace.folder)]
    # What the kubelet would start.
    assert container["command"][0] == "python"
    given = {each["name"]: each["value"] for each in container["env"]}
    subprocess.run(
        [sys.executable, *container["command"][1:]],
        env={**os.environ, **given, "JOB_COMPLETION_INDEX": "3"},
        cwd=Path("/"), check=True, capture_output=True,
    )  # fmt: skip
    ((key, record),) = workplace.records().items()
    assert record.status == "ok"
    assert record.results.domains == workplace.records("other")[key].results.domains
    assert not list((workplace.folder / "store" / "claims").iterdir())


BROKEN = (
    (("spec", "completions"), "4"),
    (("spec", "retries"), 2),
    (("spec", "template", "spec", "containers", 0, "command"), "python"),
    (("spec", "template", "spec", "volumes", 0, "hostPath"), "/store"),
)


def test_a_broken_manifest_is_refused_by_that_schema(workplace):
    (job,) = manifests(workplace.run("run", *K8S, "--seeds", "0").stdout)
    for path, value in BROKEN:
        broken = inner = copy.deepcopy(job)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, VERSIONS[1], strict=True)


def test_it_submits_nothing_and_says_what_to_do(workplace):
    done = workplace.run("run", "--executor", "k8s", "--seeds", "0", code=2)
    assert "add --dry-run, and give what it prints to 'kubectl apply -f -'" in done.stderr
    done = workplace.run("run", *K8S, "--partition", "night", code=2)
    assert "--partition: executor 'k8s' knows no such thing" in done.stderr
    done = workplace.run("run", *K8S, "--device", "host", code=2)
    assert "take a modelled device" in done.stderr
