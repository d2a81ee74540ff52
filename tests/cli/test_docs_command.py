"""``bench docs``: the pages say what the code declares and what steps were counted to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench import registry
from bench.cli import app
from bench.conformance.method_fixture import (
    MODEL,
    SCENARIO,
    SCENARIO_SETTINGS,
    setting,
    source_model,
)
from bench.costs.device_profile import load_device
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTracer
from bench.docgen.markdown import field_notes
from bench.docgen.methods_page import BEGIN, END, page
from bench.errors import BenchError, Unsupported
from bench.estimate import step_costs
from bench.estimate.step_costs import StepCost, embedded_costs
from bench.records.record import Record
from bench.study.suite import Suite

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
FILE = REFERENCE / "methods.md"
COUNTED = re.compile(rf"\n\n{BEGIN}\n.*?\n{END}", re.DOTALL)


@pytest.fixture
def small(monkeypatch):
    """The checks' small model in the place of the embedded one, which takes a minute to train."""
    made = registry.load("stream", SCENARIO)
    stream = made(made.Config.model_validate(SCENARIO_SETTINGS), 0)
    source, model = stream.source().adaptation, source_model(MODEL)
    monkeypatch.setattr(step_costs, "_embedded", lambda: (stream, source, model))
    return model


def write(pages: str, out: Path):
    return CliRunner().invoke(app, ["docs", "--only", pages, "--out", str(out)])


def kept() -> str:
    assert FILE.is_file(), "docs/reference/methods.md is missing: run 'bench docs'"
    return FILE.read_text()


def test_the_kept_page_says_what_the_methods_declare_today():
    """All of it but the counted tables; if this fails, run 'bench docs'."""
    assert COUNTED.sub("", kept()) == page(None)


def test_every_method_of_the_kept_page_was_counted():
    assert len(COUNTED.findall(kept())) == len(registry.entries("method"))


@pytest.mark.slow
def test_counting_again_gives_the_kept_page(tmp_path):
    """Exactly, but for work that depends on the data and so on the source model's training."""
    assert write("methods", tmp_path).exit_code == 0
    old, new = kept().splitlines(), (tmp_path / "methods.md").read_text().splitlines()
    assert len(old) == len(new)
    for before, now in zip(old, new, strict=True):
        if ", varies |" in before:
            assert numbers(now) == pytest.approx(numbers(before), rel=0.3)
        else:
            assert now == before


def numbers(row: str) -> list[float]:
    return [float(cell.replace(",", "")) for cell in row.split("|")[2:-1]]


def test_a_step_is_counted_as_by_hand(small):
    """The first step of fine-tuning on a later domain: forward, backward and AdamW, whose state is
    made anew, on 50 samples.
    """
    found = {work.kind: work for work in embedded_costs("fine-tune")}
    assert list(found) == ["adapt", "predict"]
    model = small.clone()
    model.train()
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=3e-4)
    x, y = setting().source.x[:50], setting().source.y[:50]
    for _ in range(2):
        batch = x.clone(), y.clone()
        optimizer.state.clear()
        with StepTracer([model, optimizer]) as tracer:
            loss = model.loss(model(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    step = found["adapt"]
    assert (step.operations, step.bytes, step.launches) == (
        tracer.trace.flops, tracer.trace.bytes, tracer.trace.launches,
    )  # fmt: skip
    assert step.time_s == step_cost(tracer.trace, load_device("xavier-nx")).time_s
    assert step.peak_bytes == pytest.approx(tracer.trace.peak_bytes, rel=0.02)
    assert not step.varies


def test_counting_is_repeatable_and_tells_the_kinds_of_work_apart(small):
    first = embedded_costs("shot")
    assert first == embedded_costs("shot")
    kinds = [work.kind for work in first]
    assert kinds == ["pseudo-label", "centroids (section)", "adapt", "predict"]
    assert first[2].operations > 2 * first[0].operations
    assert [work.varies for work in embedded_costs("eata")] == [True, False]
    assert [work.kind for work in embedded_costs("source-only")] == ["predict"]


def test_the_page_shows_settings_and_costs_in_tables(monkeypatch):
    tent = registry.entries("method")["tent"]
    monkeypatch.setattr(registry, "entries", lambda kind: {"tent": tent})
    works = [StepCost("adapt", True, 1234.5e6, 98.76e6, 321, 7_654_321, 0.001234)]
    text = page({"tent": works})
    assert "## Unsupervised domain adaptation" in text
    assert "| [tent](#tent) | published | – | periodic, online | domain |" in text
    assert "- Paper: Wang, Shelhamer, Liu, Olshausen, Darrell: Tent" in text
    assert "- Update: `min over normalization scale and shift: mean_i H(p_i)" in text
    assert "| `learning_rate` | 0.001 | – | [1e-08, 1] | 1e-05 to 0.01, log |" in text
    assert "| `epochs` | 1 | passes | [1, 100] | 1 to 15, log |" in text
    assert "| adapt, varies | 1,230 | 98.8 | 321 | 7.65 | 1.23 |" in text
    assert COUNTED.sub("", text) == page(None)
    why = "needs BatchNorm | or so"
    assert f"Not counted: {why}" in page({"tent": why})


def test_a_method_that_does_not_apply_is_on_the_page_with_its_reason(monkeypatch, tmp_path):
    tent = registry.entries("method")["tent"]
    monkeypatch.setattr(registry, "entries", lambda kind: {"tent": tent})

    def refuse(name):
        raise Unsupported(f"{name} needs BatchNorm")

    monkeypatch.setattr(step_costs, "embedded_costs", refuse)
    done = write("methods", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert "Not counted: tent needs BatchNorm" in (tmp_path / "new" / "methods.md").read_text()


@pytest.mark.parametrize("out", ["/proc/nowhere", "/proc/version", "/proc/version/reference"])
def test_a_folder_that_cannot_be_written_is_refused_before_counting(out):
    done = CliRunner().invoke(app, ["docs", "--out", out])
    assert isinstance(done.exception, BenchError)
    assert f"--out {out}: " in str(done.exception)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What a process of its own writes: without the plugins that other tests have added."""
    out = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-P", "-m", "bench", "docs", "--only", "cli,suite-file,record"]
    subprocess.run([*command, "--out", out], check=True, capture_output=True, cwd=out)
    return out


@pytest.mark.parametrize("name", ["cli", "suite-file", "record"])
def test_the_kept_pages_of_commands_suites_and_records_are_those_of_the_code(written, name):
    """If this fails, run 'bench docs --only cli,suite-file,record'."""
    assert (REFERENCE / f"{name}.md").read_text() == (written / f"{name}.md").read_text()


def test_every_option_and_every_field_is_on_the_pages():
    text = (REFERENCE / "cli.md").read_text()
    assert "| `--seeds <" in text
    assert "env var: BENCH_STORE" in text
    assert "## bench device calibrate" in text
    record = (REFERENCE / "record.md").read_text()
    for field in Record.model_fields:
        assert f"| `{field}` |" in record
    assert "| `status` | `ok`, `failed`, `oom`," in record
    suite = (REFERENCE / "suite-file.md").read_text()
    for field in Suite.model_fields:
        assert f"| `{field}` |" in suite
    assert "| `severities` | [1, 2] | – | one pass over the shifts for each |" in suite


def test_an_unknown_page_is_refused_with_the_nearest_name(tmp_path):
    done = write("suite_file", tmp_path)
    assert isinstance(done.exception, BenchError)
    assert "unknown page 'suite_file'" in str(done.exception)
    assert "suite-file" in str(done.exception)


def test_docstrings_are_read_in_both_forms():
    """``name : text`` in lines, and names in a paragraph; the rest is prose."""
    text = """Settings.

    ``rate``: of AdamW; ``low`` and ``high``: its bounds,
    both included. ``other``: no field.

    epochs : passes over the
        adaptation split
    """
    rest, notes = field_notes(text, ["rate", "low", "high", "epochs"])
    assert rest == "Settings."
    bounds = "its bounds, both included. `other`: no field"
    assert notes == {
        "rate": "of AdamW", "low": bounds, "high": bounds,
        "epochs": "passes over the adaptation split",
    }  # fmt: skip
