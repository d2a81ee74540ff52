"""Source models are trained once, by whoever comes first, and never read half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from bench import registry
registry.add_plugin("plugin.py")
from bench.contracts.model import weights_digest
from bench.study.plan import make_cells
from bench.run.source_model import source_model, source_path
from bench.study.suite import load_suite
cell = make_cells(*load_suite("tiny.yaml"))[0]
stream_class = registry.load("stream", cell.stream.name)
stream = stream_class(stream_class.Config.model_validate(cell.stream.config), 0)
model = source_model(cell, stream, lambda done, total: print("epoch", done, flush=True))
print("weights", weights_digest(model.module))
print("path", source_path(cell, stream))
"""


@pytest.fixture
def ask(workplace, tmp_path):
    (tmp_path / "ask.py").write_text(SCRIPT)
    workplace.environment["BENCH_CACHE"] = str(tmp_path / "cache")

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-P", "ask.py"], cwd=tmp_path, env=workplace.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


def said(process: subprocess.Popen) -> tuple[int, str, Path]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    facts = dict(line.split() for line in out.splitlines() if line.startswith(("weights", "path")))
    return out.count("epoch"), facts["weights"], Path(facts["path"])


def test_two_processes_train_once_and_get_equal_weights(ask):
    first, second = ask(), ask()
    (epochs, weights, path), (others, same, _) = said(first), said(second)
    assert sorted((epochs, others)) == [0, 8]
    assert weights == same
    assert path.is_file()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_a_damaged_file_is_trained_again_to_the_same_weights(ask):
    epochs, weights, path = said(ask())
    assert epochs == 8
    path.write_bytes(path.read_bytes()[:1000])
    again, same, _ = said(ask())
    assert (again, same) == (8, weights)
    third, same, _ = said(ask())
    assert (third, same) == (0, weights)
