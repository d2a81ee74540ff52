"""A folder with a suite small enough for fault injection: a small network, two domains, plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from warm_bench import program, warm_bench

PLUGIN = '''
import os, time
import torch
from bench import Method, register
from torch import nn
from bench.contracts.model import FoundationModel, ModelConfig, SourceTraining

class TinyConfig(ModelConfig):
    width: int = 32

class TinyNet(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.body = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.nn.functional.gelu(self.norm(self.body(x.flatten(1)))))

@register("model", "tiny")
class Tiny(FoundationModel):
    """Plain torch, trained in a second: nothing slow is imported for it."""
    Config = TinyConfig
    source_training = SourceTraining(epochs=8, learning_rate=3e-3)

    @classmethod
    def build(cls, config, input_shape, classes):
        return cls(TinyNet(input_shape[0] * input_shape[1] * input_shape[2], config.width, classes))

    def blocks(self):
        return []

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
        print("its last line", flush=True)
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
            kept.append(torch.ones(16_000_000))

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
stream: {name: digits-shift, shifts: [contrast, noise], severities: [1]}
model: {name: tiny, width: 32}
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
        """The arguments of ``bench``, with this folder's suite, plugin and store."""
        options = ["--suite", "tiny.yaml", "--plugin", "plugin.py", "--store", "store"]
        return [arguments[0], *options, *arguments[1:]]

    def run(
        self, *arguments: str, code: int = 0, timeout: float = 240
    ) -> subprocess.CompletedProcess:
        """Run a command to its end, see `warm_bench`."""
        done = warm_bench().run(self.command(*arguments), self.folder, self.environment, timeout)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str, cold: bool = False) -> subprocess.Popen:
        """Start a command, see `warm_bench`; a cold one with all its imports."""
        return (subprocess.Popen if cold else program)(
            [sys.executable, "-P", "-m", "bench", *self.command(*arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def records(self, store: str = "store") -> dict:
        """Records by (method, seed, device); of a profile by its path the file's name."""
        from bench.records.store import Store

        opened = Store(self.folder / store)
        found = {(r.cell.method.name, r.cell.seed, Path(r.cell.device).name): r for r in opened}
        assert not opened.unreadable
        return found
