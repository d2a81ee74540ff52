"""What runs share is made before them, once, outside their limits, and verified."""

from __future__ import annotations

import pytest

PLUGIN = '''
import os, time
import torch
from bench import BenchError, Method, MethodConfig, Unsupported, register
from bench.io.progress import advance
from bench.io.weights_cache import cache_folder, cached


class AheadConfig(MethodConfig):
    width: int = 1
    rate: float = 0.1


@register("method", "ahead")
class Ahead(Method):
    """Has an offline stage that takes longer than a run may."""
    Config = AheadConfig

    @classmethod
    def offline_settings(cls, config):
        return {"width": config.width}

    def prepare(self, model, source):
        super().prepare(model, source)
        self.kept = cached(cache_folder() / "ahead" / f"{self.config.width}.pt", self.make)

    def make(self):
        with open("made.txt", "a") as file:
            print(self.config.width, file=file)
        for step in range(8):
            time.sleep(1)
            advance(step + 1, 8)
        return {"w": torch.ones(self.config.width)}


@register("method", "ahead-again", config={"rate": 0.2})
class AheadAgain(Ahead):
    """The same stage with another setting of the run."""


@register("method", "ahead-wide", config={"width": 2})
class AheadWide(Ahead):
    """Another stage."""


@register("method", "ahead-fails")
class AheadFails(Ahead):
    """A stage that cannot be made."""
    Config = AheadConfig

    @classmethod
    def offline_settings(cls, config):
        return {}

    def prepare(self, model, source):
        raise BenchError("no such stage can be made")


@register("method", "ahead-elsewhere")
class AheadElsewhere(AheadFails):
    """A stage for other models."""

    def prepare(self, model, source):
        raise Unsupported("the model has no blocks; take another")
'''

WAITS = '''
import os, time
from torch import nn
from bench import FoundationModel, Method, ModelConfig, SourceTraining, register


@register("model", "waits")
class Waits(FoundationModel):
    """Its training goes on once there is a file, which what is made of another model writes."""
    Config = ModelConfig
    source_training = SourceTraining(epochs=1)

    @classmethod
    def build(cls, config, input_shape, classes):
        return cls(nn.Sequential(nn.Flatten(), nn.Linear(1024, classes)))

    def blocks(self):
        return []

    def augment(self, x):
        for _ in range(600):
            if os.path.exists("FILE"):
                return x
            time.sleep(0.1)
        raise RuntimeError("nothing was made meanwhile")


@register("method", "marks")
class Marks(Method):
    """Writes a file."""
    def adapt(self, domain, window):
        open("ran.txt", "w").close()
'''

NAMES = ("--plugin", "ahead.py", "--timeout", "5")


@pytest.fixture
def place(workplace, tmp_path):
    (workplace.folder / "ahead.py").write_text(PLUGIN)
    workplace.environment["BENCH_CACHE"] = str(tmp_path / "cache")
    return workplace


def test_offline_stages_are_made_once_before_the_runs_and_outside_their_time(place):
    methods = "source-only,ahead,ahead-again,ahead-wide,ahead-fails"
    done = place.run("run", *NAMES, "--methods", methods, "--jobs", "2", code=1)
    made = (place.folder / "made.txt").read_text().split()
    assert sorted(made) == ["1", "2"]
    statuses = {(name, seed): r.status for (name, seed, _), r in place.records().items()}
    failed = {key for key, status in statuses.items() if status != "ok"}
    assert len(statuses) == 10
    assert failed == {("ahead-fails", 0), ("ahead-fails", 1)}
    assert "offline stage of ahead for tiny (once; then cached)" in done.stderr
    assert "offline stage of ahead-wide for tiny: done in " in done.stderr
    assert "offline stage of ahead-again" not in done.stderr
    assert (
        "offline stage of ahead-fails for tiny: failed, as the runs that need it will: "
        "process ended with exit code 1: no such stage can be made"
    ) in done.stderr
    assert place.records()["ahead-fails", 0, "xavier-nx"].reason == "no such stage can be made"
    assert done.stderr.count("offline stage of ahead") == 5
    first_run = done.stderr.index("] ahead · tiny")
    assert done.stderr.index("offline stage of ahead for tiny: done in ") < first_run
    again = place.run("run", *NAMES, "--methods", "ahead", "--seeds", "5")
    assert "offline stage" not in again.stderr
    assert (place.folder / "made.txt").read_text().split() == made


@pytest.mark.parametrize(
    ("method", "file", "began"),
    [
        ("ahead", "made.txt", "offline stage of ahead for tiny (once; then cached)"),
        ("marks", "ran.txt", "] marks · tiny · xavier-nx · seed 0: ok"),
    ],
)
def test_stages_and_runs_wait_for_their_own_source_model_alone(place, method, file, began):
    (place.folder / "waits.py").write_text(WAITS.replace("FILE", file))
    suite = place.folder / "tiny.yaml"
    both = "models: [{name: tiny, width: 32}, waits]"
    suite.write_text(suite.read_text().replace("model: {name: tiny, width: 32}", both))
    options = ("--plugin", "ahead.py", "--plugin", "waits.py", "--methods", method)
    done = place.run("run", *options, "--seeds", "0", "--jobs", "2")
    trained, waited = (
        done.stderr.index(f"training {model} on the source of digits-shift: done")
        for model in ("tiny", "waits")
    )
    assert trained < done.stderr.index(began) < done.stderr.index(f"] {method} · waits")
    assert trained < waited < done.stderr.index(f"] {method} · waits")
    if method == "ahead":
        assert done.stderr.index(began) < waited


@pytest.mark.parametrize("executor", ["processes", pytest.param("inline", marks=pytest.mark.slow)])
def test_what_does_not_apply_is_said_in_plain_words(place, executor):
    options = ("--methods", "ahead-elsewhere", "--seeds", "0", "--executor", executor)
    done = place.run("run", "--plugin", "ahead.py", *options)
    said = (
        "offline stage of ahead-elsewhere for tiny: does not apply: the model has no blocks; take"
    )
    assert said in done.stderr
    assert "failed" not in done.stderr
    (record,) = place.records().values()
    assert record.status == "unsupported"


def test_a_damaged_source_model_is_trained_again_before_the_runs(place):
    import torch

    options = ("--methods", "source-only", "--seeds", "0", "--store")
    place.run("run", *options, "first", "--executor", "inline")
    (path,) = (place.folder / "cache" / "source-models").glob("*.pt")
    content = path.read_bytes()
    middle = len(content) // 2
    weights = torch.load(path, weights_only=True)
    weights["head.bias"][3] = float("nan")
    torch.save(weights, path)
    damages = {
        "a bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "not a number": path.read_bytes(),
    }
    for store, damaged in damages.items():
        path.write_bytes(damaged)
        executor = "processes" if store == "a bit" else "inline"
        done = place.run("run", *options, store, "--executor", executor)
        before, _, _ = done.stderr.partition("1 cells to run")
        assert f"{path} is damaged" in before
        assert "training tiny on the source of digits-shift (once; then cached)" in before
        first, second = (
            place.records(each)["source-only", 0, "xavier-nx"] for each in ("first", store)
        )
        assert first.source_model == second.source_model
        assert first.results.domains == second.results.domains


def test_variants_are_made_before_the_runs(place):
    suite = place.folder / "tiny.yaml"
    small = "model: {name: digits-vit, width: 32, depth: 1, patch: 8, training: {epochs: 3}}"
    variant = "\nvariants: [{name: compressed, ratio: 4, steps: 20}]"
    suite.write_text(suite.read_text().replace("model: {name: tiny, width: 32}", small + variant))
    options = ("--methods", "source-only", "--seeds", "0")
    done = place.run("run", *options)
    before, _, _ = done.stderr.partition("[1/1] source-only")
    assert "making compressed:4 of digits-vit: done in " in before
    (record,) = place.records().values()
    assert record.status == "ok"
