"""Source models are trained once, by whoever comes first, and never read half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from warm_bench import program

SCRIPT = """
import sys, time
from pathlib import Path
from bench import registry
registry.add_plugin("plugin.py")
from bench.contracts.model import weights_digest
from bench.io.progress import listening
from bench.study.plan import make_cells
from bench.run.source_model import source_model, source_path
from bench.study.suite import load_suite
cell = make_cells(*load_suite("tiny.yaml"))[0]
stream_class = registry.load("stream", cell.stream.name)
stream = stream_class(stream_class.Config.model_validate(cell.stream.config), 0)
from bench.run import source_model as training
training.SAVING_SHARE = 1e9  # after each epoch

def tell(done, total):
    if done:
        print("epoch", done, flush=True)
        time.sleep(float(sys.argv[1]))

with listening(tell):
    model = source_model(cell, stream)
print("weights", weights_digest(model.module))
print("path", source_path(cell, stream))
"""


@pytest.fixture
def ask(workplace, tmp_path):
    (tmp_path / "ask.py").write_text(SCRIPT)
    workplace.environment["BENCH_CACHE"] = str(tmp_path / "cache")

    def start(pause: str = "0") -> subprocess.Popen:
        return program(
            [sys.executable, "-P", "ask.py", pause], cwd=tmp_path, env=workplace.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


def said(process: subprocess.Popen) -> tuple[int, str, Path]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    facts = dict(line.split() for line in out.splitlines() if line.startswith(("weights", "path")))
    return out.count("\nepoch ") + out.startswith("epoch "), facts["weights"], Path(facts["path"])


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


def test_training_that_was_killed_goes_on_from_its_last_epoch_to_the_same_weights(ask, tmp_path):
    plugin = tmp_path / "plugin.py"
    drawn = (
        "    def augment(self, x):\n        return x + 0.1 * torch.rand_like(x)\n\n    def blocks("
    )
    plugin.write_text(plugin.read_text().replace("    def blocks(", drawn))
    _, undisturbed, path = said(ask())
    path.unlink()
    checkpoint = path.with_suffix(".checkpoint")
    for epoch in (2, 5):
        process = ask("0.5")
        for line in process.stdout:
            if line == f"epoch {epoch}\n":
                process.kill()
                break
        process.communicate()
        assert checkpoint.is_file()
        assert not path.exists()
    epochs, weights, again = said(ask())
    assert epochs == 3
    assert (weights, again) == (undisturbed, path)
    assert not checkpoint.exists()


def test_a_damaged_checkpoint_costs_only_the_time(ask):
    _, weights, path = said(ask())
    path.unlink()
    path.with_suffix(".checkpoint").write_bytes(b"PK half a file")
    epochs, again, _ = said(ask())
    assert (epochs, again) == (8, weights)
    assert not path.with_suffix(".checkpoint").exists()


@pytest.mark.parametrize("rate", ["1e30", pytest.param("1e6", marks=pytest.mark.slow)])
def test_a_source_model_that_diverges_is_an_error_and_is_not_cached(workplace, tmp_path, rate):
    workplace.environment["BENCH_CACHE"] = str(tmp_path / "cache")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(plugin.read_text().replace("learning_rate=3e-3", f"learning_rate={rate}"))
    done = workplace.run("run", "--methods", "source-only", "--seeds", "0", code=2)
    last = done.stderr.strip().splitlines()[-1]
    assert "source model tiny: the weights '" in last
    assert "of 8 epochs: its training diverged; lower learning_rate" in last
    assert not list((tmp_path / "cache").rglob("*.pt"))
    assert not list((tmp_path / "cache").rglob("*.checkpoint"))
