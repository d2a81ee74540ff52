"""A suite small enough for fault injection: a one-block transformer, two domains, plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PLUGIN = '''
import os, time
import torch
from bench import Method, register
from bench.model import SourceTraining
from bench.models.digits_vit import DigitsViT

@register("model", "tiny")
class Tiny(DigitsViT):
    """Trained in a second or two."""
    source_training = SourceTraining(epochs=8, learning_rate=3e-3)

@register("method", "raises")
class Raises(Method):
    """Raises in adapt."""
    def adapt(self, domain, window):
        raise RuntimeError("this method is broken on purpose")

@register("method", "sleeps")
class Sleeps(Method):
    """Never returns."""
    def adapt(self, domain, window):
        time.sleep(10_000)

@register("method", "exits")
class Exits(Method):
    """Leaves the process without a word to Python."""
    def adapt(self, domain, window):
        print("last words", flush=True)
        os._exit(1)

@register("method", "leaves-quietly")
class LeavesQuietly(Method):
    """Ends the process as if all were well."""
    def adapt(self, domain, window):
        os._exit(0)

@register("method", "allocates")
class Allocates(Method):
    """Allocates without end."""
    def adapt(self, domain, window):
        kept = []
        while True:
            kept.append(torch.ones(4_000_000))
            time.sleep(0.005)

@register("method", "peeks")
class Peeks(Method):
    """Looks for target labels everywhere."""
    def adapt(self, domain, window):
        for batch in window.steps(domain.batches()):
            batch.y

@register("method", "leaves-a-child")
class LeavesAChild(Method):
    """Starts a process and forgets it."""
    def adapt(self, domain, window):
        import subprocess
        print("child", subprocess.Popen(["sleep", "7777"]).pid, flush=True)

@register("method", "draws")
class Draws(Method):
    """Draws from every global generator."""
    def adapt(self, domain, window):
        import random, numpy
        print("drew", random.random(), numpy.random.rand(), torch.rand(1).item(), flush=True)

@register("method", "slow")
class Slow(Method):
    """Takes its time, so that it can be killed in the middle."""
    def adapt(self, domain, window):
        time.sleep(0.4)
'''

SUITE = """
name: tiny
description: fault injection
scenario: {name: digits-shift, shifts: [contrast, blur], severities: [1]}
model: {name: tiny, width: 32, depth: 1, heads: 2}
protocol: {window_s: 60, batch_size: 50, samples: 100}
methods: [source-only, tent, shot]
seeds: 2
devices: xavier-nx
"""


class Workplace:
    """A folder with a suite, a plugin and a store, and the command line run in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "BENCH_CACHE": str(cache), "COLUMNS": "200"}
        self.environment.pop("BENCH_STORE", None)
        (folder / "plugin.py").write_text(textwrap.dedent(PLUGIN))
        (folder / "tiny.yaml").write_text(SUITE)

    def command(self, *arguments: str) -> list[str]:
        options = ["--suite", "tiny.yaml", "--plugin", "plugin.py", "--store", "store"]
        return [sys.executable, "-P", "-m", "bench", arguments[0], *options, *arguments[1:]]

    def run(
        self, *arguments: str, code: int = 0, timeout: float = 240
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def records(self, store: str = "store") -> dict:
        """Records by (method, seed, device)."""
        from bench.store import Store

        opened = Store(self.folder / store)
        found = {(r.cell.method.name, r.cell.seed, r.cell.device): r for r in opened}
        assert not opened.unreadable
        return found


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workplace(tmp_path, shared_cache) -> Workplace:
    return Workplace(tmp_path, shared_cache)
