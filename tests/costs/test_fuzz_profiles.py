"""Spoiled device profiles: an error in one line or finite costs, never a traceback or a hang."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from yaml_mutations import check_line, exit_code, spoiled

from bench.costs.device_profile import PROFILES, ModelledDevice, load_device, profile_digest
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError

QUIET = settings(suppress_health_check=list(HealthCheck), max_examples=40)
MANY = settings(QUIET, max_examples=1000)
CALL = ("mm.nn", "matmul", "float32", 1e6, 1e4)
TRACE = StepTrace(Counter({CALL[1:]: 10}), 30_000_000, 10_000_000, Counter({CALL: 10}))


def shipped(name: str) -> dict[str, Any]:
    """A profile that ships, with short sources."""
    text = (PROFILES / f"{name}.yaml").read_text()
    short = re.sub(r"source: >-\n( +).*\n(\1.*\n|\n)*", "source: made up for a test\n", text)
    content: dict[str, Any] = yaml.safe_load(short)
    return content


def whole() -> dict[str, Any]:
    """A profile with every key that a profile can have."""
    content = shipped("jetson-tx2")
    content.pop("modes", None)
    content.pop("default_mode", None)
    some = {"source": "made up for a test", "confidence": "estimate"}
    content["resident_memory"] = {
        part: {"value": 1.5, **some} for part in ("stored", "step", "convolution", "added")
    }
    points = {"float32": [[1e6, 1e4, 1e-3], [1e7, 1e5, 5e-3]]}
    content["curves"] = {
        "source": "made up for a test", "confidence": "measured",
        "kinds": {"mm.nn": {"of": "matmul", "points": points}},
    }  # fmt: skip
    return content | {"dispatch": "added", "accelerator": "cpu", "threads": 4}


MODES, HOST = shipped("xavier-nx"), shipped("host")


def check(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        started = time.process_time()
        try:
            device = load_device(str(path))
        except BenchError as error:
            check_line(str(error))
            return
        assert len(profile_digest(device)) == 64
        if isinstance(device, ModelledDevice):
            for each in [device, *map(device.in_mode, device.mode_names)]:
                cost = step_cost(TRACE, each)
                assert 0 < cost.time_s < math.inf
                assert 0 < cost.energy_j < math.inf
        assert time.process_time() - started < 20


@QUIET
@given(spoiled(whole()))
def test_spoiled_profiles(text: str) -> None:
    check(text)


@QUIET
@given(spoiled(MODES))
def test_spoiled_profiles_with_modes(text: str) -> None:
    check(text)


@pytest.mark.slow
@MANY
@given(spoiled(whole()) | spoiled(MODES) | spoiled(HOST))
def test_many_spoiled_profiles(text: str) -> None:
    check(text)


def test_untouched_profiles_are_valid() -> None:
    for content in (whole(), MODES, HOST):
        check(yaml.safe_dump(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.yaml"
        path.write_text(yaml.safe_dump(whole()))
        assert exit_code(["device", "validate", str(path)]) == 0
