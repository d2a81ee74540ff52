"""`bench check --stream`: what is wrong with a stream is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bench import registry
from bench.cli import app

STREAMS = '''
import torch
from bench import register
from bench.contracts.stream import Domain, Split
from bench.testing import TinyStream, TinyStreamConfig


class Base(TinyStream):
    """Two domains."""

    @classmethod
    def validation(cls, config):
        return TinyStreamConfig(domains=1, samples=7)


@register("stream", "fine")
class Fine(Base):
    """Nothing is wrong."""


@register("stream", "shared-samples")
class Shared(Base):
    """Tests on what is learned from."""

    def domain(self, name):
        domain = super().domain(name)
        return Domain(name, domain.adaptation, domain.adaptation)


@register("stream", "from-one")
class FromOne(Base):
    """Counts classes from 1."""

    def labels(self, place, number):
        return super().labels(place, number) + 1


@register("stream", "by-chance")
class ByChance(Base):
    """Draws from the global generator."""

    def domain(self, name):
        domain = super().domain(name)
        split = Split(domain.adaptation.x + torch.rand(1), domain.adaptation.y)
        return Domain(name, split, domain.test)


@register("stream", "one-class")
class OneClass(Base):
    """Has nothing to tell apart."""

    classes = 1


@register("stream", "no-validation")
class NoValidation(TinyStream):
    """Cannot be tuned on."""
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "streams.py"
    path.write_text(STREAMS)
    return path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


@pytest.mark.parametrize(
    ("name", "failing", "why"),
    [
        ("shared-samples", "splits", "10 of 10 test samples are also adaptation samples"),
        ("from-one", "splits", "labels from 1 to 2; 2 classes are numbered from 0 to 1"),
        ("by-chance", "same-seed", "domain 'second' differs between two streams of one seed"),
        ("one-class", "declared", "classes is 1"),
        ("no-validation", "validation", "has no validation stream"),
    ],
)
def test_a_broken_stream_is_named(file: Path, name: str, failing: str, why: str) -> None:
    with registry.isolated():
        registry.add_plugin(file)
        done = check("--stream", name, "--only", failing)
    assert done.exit_code == 1
    assert f"FAIL {failing}: " in done.stdout
    assert why in done.stdout


def test_a_sound_stream_passes_and_a_shipped_one(file: Path) -> None:
    with registry.isolated():
        registry.add_plugin(file)
        done = check("--stream", "fine", "--stream", "digits-tasks")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.count("4 checks passed") == 2
