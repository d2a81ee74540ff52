"""How long a run takes before any was made: reference times, scaled to the speed of this machine.

For methods without an earlier run ``bench plan`` takes the times that ship with a suite
(``suites/NAME.times.yaml``), scaled by the time of a fixed piece of work here and there. To write
such a file: ``bench.load_results(store).groupby("method").wall_s.median()``, and `calibrate`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pydantic

from bench.io.atomic_write import write_atomically
from bench.io.digest import digest
from bench.io.safe_yaml import read_yaml
from bench.io.weights_cache import cache_folder
from bench.study.suite import validated

SUFFIX = ".times.yaml"
ROUNDS = 7
STEPS = 30
KEPT_S = 24 * 3600.0
"""How long a calibration counts: it takes seconds, and machines do not change by the hour."""


class Times(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Reference times of one suite, in seconds.

    ``calibration_s``: what `calibrate` gave on that machine, whose name is ``machine``;
    ``methods``: median wall time of a run, with as many runs at a time as cores.
    """

    machine: str
    calibration_s: float = pydantic.Field(gt=0)
    methods: dict[str, float]


def scaled_times(suite: Path) -> dict[str, float]:
    """Seconds that a run of each method of a suite should take here; empty without a reference.

    Raises BenchError that names the file and the key.
    """
    path = suite.with_name(suite.stem + SUFFIX)
    if not path.exists():
        return {}
    times = validated(Times, read_yaml(path, "reference times"), f"reference times {path}")
    factor = calibrated() / times.calibration_s
    return {name: seconds * factor for name, seconds in times.methods.items()}


class _Calibrated(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """What `calibrate` gave; ``of``: on which machine with which torch."""

    of: str
    seconds: float = pydantic.Field(gt=0)


def calibrated() -> float:
    """What `calibrate` gives on this machine, which is kept in the cache for `KEPT_S`."""
    path = cache_folder() / "calibration.json"
    facts = [platform.node(), platform.machine(), os.cpu_count(), version("torch"), ROUNDS, STEPS]
    of = digest(facts)
    with suppress(OSError, ValueError):
        kept = _Calibrated.model_validate_json(path.read_bytes())
        if kept.of == of and 0 <= time.time() - path.stat().st_mtime < KEPT_S:
            return kept.seconds
    found = _Calibrated(of=of, seconds=calibrate())
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, found.model_dump_json().encode())
    return found.seconds


def calibrate() -> float:
    """Seconds of training steps of a small network on one thread, the median of several rounds.

    Small operators, as in the embedded model, so that their overhead counts as it does there.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
            network = torch.nn.Sequential(layer, torch.nn.Linear(64, 10))
            optimizer = torch.optim.AdamW(network.parameters())
            x = torch.randn(50, 17, 64)
        rounds = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            for _ in range(STEPS):
                loss = network(x).logsumexp(dim=2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            rounds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(rounds[1:])  # the first one warms up
