"""Variants in a run: who gets which model, whose code counts, and what becomes of a bad ratio."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_bench import warm_bench

from bench import registry
from bench.errors import BenchError
from bench.records.cell import Cell
from bench.records.record import Record
from bench.records.store import Store
from bench.study.plan import Plan, make_cells, make_plan
from bench.study.suite import load_suite
from bench.testing import isolated_registry

PLUGIN = '''
from bench import Method, register
from bench.contracts.model import SourceTraining, weights_digest
from bench.models.digits_vit import DigitsViT

@register("model", "brief-vit")
class BriefViT(DigitsViT):
    """Trained for a moment."""
    source_training = SourceTraining(epochs=1, learning_rate=1e-3)

@register("method", "counts")
class Counts(Method):
    """Tells in which cell it gets a model of which size and weights."""
    @classmethod
    def skip(cls, cell):
        print("cell", cell.method.name, cell.model_title)

    def prepare(self, model, source):
        super().prepare(model, source)
        size = sum(p.numel() for p in model.module.parameters())
        print("model", size, weights_digest(model.module)[:8])

@register("method", "counts-fm")
class CountsFM(Counts):
    """The same, but starts from the full model."""
    makes_own_model = True
'''

VARIANT = '''
from bench import register
from bench.contracts.model import ModelConfig
from bench.contracts.model import Variant

class TwinConfig(ModelConfig):
    ratio: int = 1

@register("variant", "twin")
class Twin(Variant):
    """As large as the full model."""
    Config = TwinConfig

    def make(self, model, source):
        return model.clone()
'''

SUITE = """
name: mine
description: variants
stream: {name: digits-shift, shifts: [noise], severities: [1]}
model: {name: brief-vit, width: 32, depth: 2}
protocol: {window_s: 60, batch_size: 50, samples: 50}
methods: [counts, counts-fm]
variants: [full, {name: compressed, ratio: 4, steps: 3}]
seeds: 2
devices: xavier-nx
"""


@pytest.fixture
def folder(tmp_path: Path, empty_registry: None) -> Path:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "twin.py").write_text(VARIANT)
    (tmp_path / "mine.yaml").write_text(SUITE)
    return tmp_path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(folder: Path, cache: Path) -> Callable[..., subprocess.CompletedProcess]:
    def command(*arguments: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "BENCH_CACHE": str(cache), "COLUMNS": "200"}
        return warm_bench().run(arguments, folder, environment, timeout=240)

    return command


def bench(*more: str) -> list[str]:
    plugins = ["--plugin", "plugin.py", "--plugin", "twin.py"]
    return ["run", "--suite", "mine.yaml", *plugins, "--store", "store", *more]


def records(folder: Path) -> dict[tuple[str, str], Record]:
    """Of one seed, by method and variant."""
    store = Store(folder / "store")
    return {(r.cell.method.name, r.cell.model_title): r for r in store}


def size(width: int, depth: int, ratio: int) -> int:
    """Parameters of a digits-vit with patches of 8 x 8 whose inner widths were divided."""
    attention, forward = width // ratio, 4 * width // ratio
    block = 4 * width + (width + 1) * 3 * attention + (attention + 1) * width
    block += (width + 1) * forward + (forward + 1) * width
    return depth * block + 65 * width + 18 * width + 2 * width + (width + 1) * 10


def cells(folder: Path, variants: str, *plugins: str) -> list[Cell]:
    (folder / "mine.yaml").write_text(re.sub("variants: .*", f"variants: {variants}", SUITE))
    for plugin in ("plugin.py", *plugins):
        registry.add_plugin(folder / plugin)
    return make_cells(*load_suite(str(folder / "mine.yaml")))


# --- identity --------------------------------------------------------------


def test_a_cell_counts_the_code_of_its_variant_and_no_other(folder: Path) -> None:
    (folder / "edited.py").write_text(VARIANT.replace("model.clone()", "model"))
    with isolated_registry():
        plain = cells(folder, "[full, twin:1]", "twin.py")
    edited = cells(folder, "[full, twin:1]", "edited.py")
    alike = [a.identity == b.identity for a, b in zip(plain, edited, strict=True)]
    assert alike == [c.variant is None for c in plain]
    assert set(alike) == {True, False}


def test_comments_in_a_variants_file_change_no_cell(folder: Path) -> None:
    (folder / "told.py").write_text(VARIANT.replace("return", "# as it is\n        return"))
    with isolated_registry():
        plain = cells(folder, "twin:1", "twin.py")
    assert cells(folder, "twin:1", "told.py") == plain


def test_a_variant_without_a_ratio_is_one_line(folder: Path) -> None:
    (folder / "odd.py").write_text(VARIANT.replace("ratio: int = 1", "share: float = 0.5"))
    with pytest.raises(BenchError, match=r"variant 'twin'.*has no setting 'ratio'"):
        cells(folder, "{name: twin}", "odd.py")


def test_what_is_no_variant_is_one_line(folder: Path) -> None:
    (folder / "odd.py").write_text(VARIANT.replace("(Variant)", ""))
    with pytest.raises(BenchError, match=r"variant 'twin' in .*not a subclass of bench\.Variant"):
        cells(folder, "twin:1", "odd.py")


# --- runs ------------------------------------------------------------------


def test_a_method_gets_the_small_model_unless_it_starts_from_the_full_one(
    folder: Path, run: Callable[..., subprocess.CompletedProcess]
) -> None:
    done = run(*bench("--executor", "inline", "--seeds", "0"))
    assert done.returncode == 0, done.stderr
    full, small = "brief-vit", "brief-vit compressed:4"
    whole, part = size(32, 2, 1), size(32, 2, 4)
    assert part < whole / 2
    told = re.findall(r"^cell (\S+) (.+)\nmodel (\d+) (\w+)$", done.stdout, re.M)
    assert {(method, title): int(n) for method, title, n, _ in told} == {
        ("counts", full): whole,
        ("counts", small): part,
        ("counts-fm", full): whole,
        ("counts-fm", small): whole,
    }
    found = records(folder)
    source = {str(r.source_model)[:8] for r in found.values()}
    assert source == {digest for *_, n, digest in told if int(n) == whole}
    assert len(source) == 1

    def stored(method: str, title: str) -> float:
        results = found[(method, title)].results
        assert results is not None
        assert results.costs.peak_memory.value is not None
        return results.costs.peak_memory.value

    assert stored("counts", small) < stored("counts", full) == stored("counts-fm", small)
    for title in (full, small):
        assert f"digits-shift · {title} · xavier-nx\n" in done.stdout


def test_a_ratio_that_does_not_divide_is_recorded_with_the_reason(
    folder: Path, run: Callable[..., subprocess.CompletedProcess]
) -> None:
    (folder / "mine.yaml").write_text(re.sub("variants: .*", "variants: compressed:3", SUITE))
    done = run(*bench("--seeds", "0", "--executor", "inline"))
    assert done.returncode == 1, done.stderr
    found = records(folder)
    failed = found[("counts", "brief-vit compressed:3")]
    assert failed.status == "failed"
    assert failed.reason == (
        "pruning: blocks.0.attn.qkv has head width 8, not divisible by ratio 3; use a divisor"
    )
    assert found[("counts-fm", "brief-vit compressed:3")].status == "ok"


RUN_JOB = """
import sys
from bench.run.run_cell import Job, run_job
run_job(Job.model_validate_json(sys.stdin.read()))
"""


def test_a_variant_edited_after_the_plan_is_refused(folder: Path, cache: Path) -> None:
    made = cells(folder, "[full, twin:1]", "twin.py")
    suite, path = load_suite(str(folder / "mine.yaml"))
    store = Store(folder / "store")
    plan: Plan = make_plan(suite, path, store)
    assert [c.identity for c in plan.missing] == [c.identity for c in made]
    jobs = plan.jobs(store)
    title = "counts · brief-vit twin:1 · xavier-nx · seed 0"
    (job,) = [j for j in jobs if j.cells[0].title == title]
    (folder / "twin.py").write_text(VARIANT.replace("model.clone()", "model"))
    subprocess.run(
        [sys.executable, "-P", "-c", RUN_JOB], input=job.model_dump_json(), text=True, check=True,
        env={**os.environ, "BENCH_CACHE": str(cache)}, capture_output=True, timeout=120,
    )  # fmt: skip
    (record,) = store
    assert record.status == "failed"
    assert "the code of variant 'twin' changed after this run was planned" in record.reason
    assert "give the command again" in record.reason


def test_supervised_references_run_on_the_first_variant_alone(folder: Path) -> None:
    registry.add_plugin(folder / "plugin.py")
    file = folder / "mine.yaml"
    file.write_text(SUITE + "supervised_references: [counts]\n")
    cells = make_cells(*load_suite(str(file)))
    found = [(c.target_labels, c.variant is None) for c in cells if c.method.name == "counts"]
    assert sorted(set(found)) == [(False, False), (False, True), (True, True)]
