"""Manifests: valid for Kubernetes' own schema, faithful to the plan, safely named."""

from __future__ import annotations

import copy
import re

import kubernetes_validate
import pytest
import yaml

from bench.errors import BenchError
from bench.scheduling.manifests import DEFAULT_IMAGE, job_names, manifests, to_yaml
from bench.scheduling.solvers import solve

VERSIONS = ("1.25", "1.37")


def valid(manifest) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_manifest_keeps_kubernetes_schema(random_problem):
    for seed in range(5):
        problem = random_problem(seed)
        for solver in ("exact", "uniform"):
            jobs = manifests(solve(problem, solver), 60.0, runtime_bytes=1.4e9, cpus=6)
            assert list(jobs) == [f"app{i}" for i in range(6)]
            for job in jobs.values():
                valid(yaml.safe_load(to_yaml(job)))
            total = sum(
                float(job["spec"]["template"]["metadata"]["annotations"]["kubeshare/gpu_request"])
                for job in jobs.values()
            )
            assert 0.99 < total <= 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimit"), "none"),
        (("spec", "activeDeadlineSeconds"), 59.5),
        (("spec", "restarts"), 3),
        (("spec", "template", "spec", "containers"), None),
        (("spec", "template", "metadata", "annotations", "kubeshare/gpu_limit"), 0.5),
        (("spec", "template", "spec", "containers", 0, "args"), [0.5]),
        (("spec", "template", "spec", "containers", 0, "resources"), {"limit": {"cpu": "1"}}),
    ],
)
def test_a_broken_manifest_is_refused_by_that_schema(random_problem, path, value):
    (job,) = manifests(solve(random_problem(0, 1), "uniform"), 60.0).values()
    valid(job)
    broken = inner = copy.deepcopy(job)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    for version in VERSIONS:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, version, strict=True)


def test_a_manifest_says_what_the_plan_says(make_application):
    from bench.scheduling.problem import Problem

    pair = (make_application(name="Lane Detection"), make_application(name="b"))
    plan = solve(Problem(pair, 59.2, 3e9), "uniform")
    first, second = manifests(plan, 59.2, runtime_bytes=0.5e9, cpus=3, image="me/it:1").values()
    assert first["metadata"]["name"] == job_names(["Lane Detection"])[0]
    assert first["metadata"]["annotations"]["edge-adaptation-bench/application"] == "Lane Detection"
    assert second["metadata"]["name"] == "b"
    assert first["spec"]["activeDeadlineSeconds"] == 60
    assert first["spec"]["template"]["metadata"]["annotations"] == {
        "kubeshare/gpu_request": "0.5000",
        "kubeshare/gpu_limit": "0.5000",
        "kubeshare/gpu_mem": "1500000000",
    }
    (container,) = first["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "me/it:1"
    assert container["args"] == [
        "--application=Lane Detection", "--sparsity=0.5", "--iterations=296", "--share=0.5000",
    ]  # fmt: skip
    expected = {"cpu": "1500m", "memory": "1500000000"}
    assert container["resources"] == {"requests": expected, "limits": expected}
    (plain, _) = manifests(plan, 60.0).values()
    assert plain["spec"]["template"]["spec"]["containers"][0]["image"] == DEFAULT_IMAGE


def test_names_are_dns_labels_and_do_not_collide():
    given = ["a", "A", "a b", "a_b", "a-b", "ä", "ö", "-", "x" * 64, "x" * 65, "9-z", "a.b"]
    names = job_names(given)
    assert len(set(names)) == len(given)
    assert names == job_names(given)
    assert (names[0], names[4], names[10]) == ("a", "a-b", "9-z")
    for name in names:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name
    taken = job_names(["A"])[0]
    with pytest.raises(BenchError, match=f"would both be the Kubernetes Job '{taken}'; rename one"):
        job_names([taken, "A"])


@pytest.mark.parametrize(
    ("options", "part"),
    [({"image": ""}, "image ''"), ({"image": "a b"}, "without blanks"), ({"cpus": 0}, "cpus 0")],
)
def test_a_bad_option_is_refused(random_problem, options, part):
    with pytest.raises(BenchError, match=part):
        manifests(solve(random_problem(0, 1), "uniform"), 60.0, **options)
