"""Every foundation model for texts at its base size, with random weights.

One adaptation step of each method. ``pytest -m slow -s`` prints seconds and peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
SCRIPT = """
import base_size_steps as steps
more = {"train_head": False, "widen_head": False}  # a language model's is tied to the embedding
steps.SETTINGS["edgeta-supervised"] = {**steps.SETTINGS["edgeta"], **more}
steps.main()
"""
METHODS = ("tent", "shot", "feature-alignment", "edgeta", "fine-tune", "ewc", "gem", "lora")
CLASSES = {
    "bert-base": 2, "bert-base-tokens": 17, "roberta-base": 2, "roberta-base-tokens": 17,
    "gpt-neo": 50257, "opt": 50272, "t5": 32128, "bloom": 250880,
}  # fmt: skip
UNLABELLED = {"tent", "shot", "feature-alignment", "edgeta"}
"""Methods that look at inputs alone, which hold the answers where texts are generated."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_one_step_of_each_method(name: str, tmp_path: Path) -> None:
    generates = CLASSES[name] > 100
    methods = (*METHODS, "edgeta-supervised") if generates else METHODS
    if name == "bloom":
        methods = tuple(method for method in methods if method != "ewc")  # more than 20 GB
    command = [sys.executable, "-P", "-c", SCRIPT, name, "{}", str(CLASSES[name]), *methods]
    paths = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    more = {"BENCH_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        command, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True, check=True
    )
    built, *steps = map(json.loads, done.stdout.splitlines())
    print(f"\n{name}: {built}")
    for each in steps:
        print(f"  {each}")
    assert [each["method"] for each in steps] == list(methods)
    refused = {each["method"] for each in steps if "refused" in each}
    without_blocks = {"lora", "edgeta-supervised"} if name == "bloom" else set()
    assert refused == (UNLABELLED if generates else set()) | without_blocks
    assert built["blocks"] == {"t5": 24, "bloom": 0}.get(name, 12)
    assert all(each["finite"] for each in steps if "refused" not in each)
