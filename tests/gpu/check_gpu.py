"""Checks a GPU in at most four minutes, and reports in Markdown: ``python tests/gpu/check_gpu.py``.

Parity with the CPU, determinism, memory, energy, two slots, and step times of every method on
ViT-B/16 against a bare loop. Without a GPU it says why it checks nothing, and succeeds. Exit code 1
where a check fails. Its report stands in docs/results/gpu.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bench.accelerator.gpus import Gpu, list_gpus
from bench.accelerator.slots import environment_of

LIMIT_S = 240.0
TOLERANCE = 1e-4
NOISE = 3.0
"""Standard errors of the mean over seeds within which metrics must agree."""
SHORT = {"lora_steps": 2, "kb_steps": 2, "index_steps": 2, "augmentations": 2, "max_residual": 1e3}


@dataclass(frozen=True)
class Result:
    """What a check found: ``good`` or not, or None where it could not be tried."""

    name: str
    good: bool | None
    found: str

    def __str__(self) -> str:
        said = {True: "yes", False: "**NO**", None: "not tried"}[self.good]
        return f"| {self.name} | {said} | {self.found} |"


@dataclass(frozen=True)
class Network:
    """A registered model by its settings, and the images that it is given."""

    name: str
    config: dict[str, Any]
    image: tuple[int, int, int]

    @property
    def title(self) -> str:
        return str(self.config.get("architecture", self.name))

    def build(self) -> Any:
        import torch

        from bench import registry

        torch.manual_seed(0)
        model_class = registry.load("model", self.name)
        made = model_class.build(model_class.Config.model_validate(self.config), self.image, 10)
        made.train(False)
        return made

    def batch(self, n: int) -> tuple[Any, Any]:
        import torch

        draw = torch.Generator().manual_seed(0)
        return torch.rand(n, *self.image, generator=draw), torch.arange(n) % 10


SMALL = Network("digits-vit", {}, (1, 32, 32))
CONVOLUTIONS = Network("timm", {"architecture": "resnet18", "image_size": 64}, (3, 64, 64))
LARGE = Network("timm", {"architecture": "vit_base_patch16_224"}, (3, 224, 224))


# --- the checks --------------------------------------------------------------------------------


def parity(networks: Sequence[Network]) -> Iterator[Result]:
    """Logits of equal weights and inputs on both."""
    import torch

    from bench.accelerator.determinism import device_of

    for network in networks:
        model, (x, _) = network.build(), network.batch(8)
        with torch.no_grad():
            expected = model(x)
            model.module.to(device_of("cuda"))
            away = float((model(x.to("cuda")).cpu() - expected).abs().max())
        yield Result(f"logits of {network.title}", away <= TOLERANCE, f"{away:.1e} apart at most")


def determinism(networks: Sequence[Network]) -> Iterator[Result]:
    """A training step twice: equal bits or not is a finding, not a failure."""
    from bench.accelerator.determinism import device_of, repeats_exactly

    for network in networks:
        model, (x, y) = network.build(), network.batch(8)
        place = device_of("cuda")
        model.module.to(place)
        x, y = x.to(place), y.to(place)

        def step(model: Any = model, x: Any = x, y: Any = y) -> list[Any]:
            copied = model.clone()
            copied.train()
            copied.loss(copied(x), y).backward()
            return [p.grad for p in copied.module.parameters()]

        equal = repeats_exactly(step)
        yield Result(
            f"a step of {network.title} twice", True, "equal" if equal else "NOT equal bits"
        )


def memory(network: Network) -> Iterator[Result]:
    """The same operations are counted on both, and torch allocates what was counted or more."""
    import torch

    from bench.accelerator.determinism import device_of
    from bench.costs.step_tracer import StepTracer

    traces = {}
    for kind in ("cpu", "cuda"):
        place, model, (x, y) = device_of(kind), network.build(), network.batch(8)
        model.module.to(place)
        model.train()
        x, y = x.to(place), y.to(place)
        optimizer = torch.optim.AdamW(model.module.parameters())
        for _ in range(2):
            if kind == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with StepTracer([model, optimizer, x, y]) as tracer:
                optimizer.zero_grad()
                model.loss(model(x), y).backward()
                optimizer.step()
        traces[kind] = tracer.trace
    cpu, gpu = traces["cpu"], traces["cuda"]
    told = f"{gpu.flops / 1e9:.3f} GFLOP on the GPU, {cpu.flops / 1e9:.3f} on the CPU"
    yield Result(f"operations of a step of {network.title}", gpu.flops == cpu.flops, told)
    peak = torch.cuda.max_memory_allocated()
    told = f"{peak / 1e6:.0f} MB allocated, {gpu.peak_bytes / 1e6:.0f} MB counted"
    enough = 0.9 * gpu.peak_bytes <= peak
    yield Result(f"memory of a step of {network.title}", enough, told)


def energy(seconds: float = 2.5) -> Iterator[Result]:
    """Joules of matrix products, by the driver's counter."""
    import torch

    from bench.costs.factory import gpu_meter
    from bench.meters.base import MeterError, Unavailable

    meter = gpu_meter("auto")
    if isinstance(meter, Unavailable):
        yield Result("energy", None, meter.reason)
        return
    a = torch.rand(2048, 2048, device="cuda")
    torch.cuda.synchronize()
    try:
        meter.begin()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            a @ a
            torch.cuda.synchronize()
        used = meter.end()
    except MeterError as error:
        yield Result("energy", None, str(error))
        return
    told = f"{used.joules:.0f} J in {used.seconds:.1f} s, {used.power_w:.0f} W"
    yield Result("energy of matrix products", 1 < used.power_w < 2000, told)


def suites(gpu: Gpu, left_s: float) -> Iterator[Result]:
    """A suite on both, on the GPU in two slots: metrics agree within the noise of seeds."""
    from bench.records.store import Store

    with tempfile.TemporaryDirectory() as folder:
        commands = {
            kind: subprocess.Popen(
                [
                    *[sys.executable, "-P", "-m", "bench", "run", "--suite", "smoke"],
                    *["--methods", "source-only,tent,shot,fine-tune", "--seeds", "0..2"],
                    *["--store", f"{folder}/{kind}", *more],
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "BENCH_CACHE": f"{folder}/cache"},
            )
            for kind, more in {
                "cpu": ["--jobs", "4"],
                "cuda": ["--accelerator", f"cuda:{gpu.uuid or gpu.index}", "--per-gpu", "2"],
            }.items()
        }
        records, deadline = {}, time.monotonic() + left_s
        for kind, command in commands.items():
            try:
                said, _ = command.communicate(timeout=max(deadline - time.monotonic(), 1))
            except subprocess.TimeoutExpired:
                command.terminate()
                said, _ = command.communicate()
            records[kind] = list(Store(Path(folder, kind)))
            if command.returncode:
                last = said.strip().splitlines()[-1:] or ["nothing"]
                yield Result(f"suite smoke on {kind}", False, last[0].replace("|", "/")[:200])
    yield from compared(records["cpu"], records["cuda"])
    yield Result("two runs at a time on the GPU", overlap(records["cuda"]), "by their times")


def compared(cpu: Sequence[Any], cuda: Sequence[Any]) -> Iterator[Result]:
    """For each method the mean metric over seeds on both."""
    found: dict[str, dict[str, list[float]]] = {}
    for kind, records in (("cpu", cpu), ("cuda", cuda)):
        for record in records:
            if record.results is not None:
                scores = found.setdefault(record.cell.method.name, {"cpu": [], "cuda": []})
                scores[kind].append(record.results.score)
    for name, scores in sorted(found.items()):
        one, other = scores["cpu"], scores["cuda"]
        if min(len(one), len(other)) < 2:
            yield Result(f"metric of {name}", False, f"{len(one)} and {len(other)} results")
            continue
        noise = max(stdev(one), stdev(other)) / len(one) ** 0.5
        away = abs(fmean(one) - fmean(other))
        told = f"{fmean(one):.4f} on the CPU, {fmean(other):.4f} on the GPU, noise {noise:.4f}"
        yield Result(f"metric of {name}", away <= NOISE * noise + 0.005, told)


def overlap(records: Sequence[Any]) -> bool:
    """Whether two runs ever went on at once."""
    from datetime import datetime

    spans = sorted((datetime.fromisoformat(r.started).timestamp(), r.wall_s) for r in records)
    return any(start + wall > after + 1 for (start, wall), (after, _) in pairwise(spans))


# --- step times --------------------------------------------------------------------------------


def bare_loop(network: Network, batch_size: int, steps: int = 5) -> float:
    """Seconds of a training step that nothing of this project is around."""
    import torch

    from bench.accelerator.determinism import device_of

    place, model, (x, y) = device_of("cuda"), network.build(), network.batch(batch_size)
    model.module.to(place)
    model.train()
    x, y = x.to(place), y.to(place)
    optimizer = torch.optim.AdamW(model.module.parameters())
    for step in range(3 + steps):
        if step == 3:
            torch.cuda.synchronize()
            began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def step_times(
    network: Network, batch_size: int, deadline: float, names: Sequence[str] = ()
) -> Iterator[tuple[str, float | None, str]]:
    """Method, seconds of its step in a second domain, and why there are none."""
    from bench import registry
    from bench.contracts.stream import Domain, Split, Stream, StreamConfig
    from bench.costs.device_profile import MeasuredDevice
    from bench.testing import run_method

    x, y = network.batch(3 * batch_size)

    class Drawn(Stream):
        Config = StreamConfig
        repeats_samples = True
        classes, input_shape = 10, network.image

        @classmethod
        def data_digest(cls, config: Any) -> str:
            return "drawn"

        def source(self) -> Domain:
            return self.domain("source")

        def domain_names(self) -> list[str]:
            return ["first", "second"]

        def domain(self, name: str) -> Domain:
            few = slice(0, batch_size)
            return Domain(name, Split(x, y), Split(x[few], y[few]))

    device = MeasuredDevice(name="host", title="this machine", cost="measured")
    for name, entry in sorted(registry.entries("method").items()):
        if names and name not in names:
            continue
        if "classification" not in entry.facts.get("tasks", ("classification",)):
            continue
        if time.monotonic() > deadline:
            yield name, None, "no time left"
            continue
        try:
            method_class = registry.load("method", name)
            settings = {k: v for k, v in SHORT.items() if k in method_class.Config.model_fields}
            method = method_class(method_class.Config(**settings))
            result = run_method(
                method, model=network.build(), stream=Drawn(StreamConfig(), 0), device=device,
                labelled="target_labels" in method.needs, accelerator="cuda",
                batch_size=batch_size, window_s=1e6,
            )  # fmt: skip
        except Exception as error:
            yield name, None, f"{type(error).__name__}: {error}".splitlines()[0][:120]
            continue
        charge = result.stages[-1].charges["host"]
        seconds = charge.time_s / charge.steps if charge.steps else None
        yield name, seconds, "" if charge.steps else "takes no steps"


# --- the report --------------------------------------------------------------------------------


def head() -> list[str]:
    from bench.accelerator.facts import accelerator_facts

    facts = accelerator_facts("cuda")["accelerator"]
    return ["# A GPU against the CPU", "", *(f"- {k}: {v}" for k, v in facts.items() if v != "")]


def guarded(name: str, check: Callable[[], Iterator[Result]]) -> list[Result]:
    """The results of a check; an exception in it is one."""
    found: list[Result] = []
    try:
        for result in check():
            found.append(result)
            print(result, file=sys.stderr, flush=True)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")[:200]
        found.append(Result(name, False, text))
        print(found[-1], file=sys.stderr, flush=True)
    return found


def report(
    gpu: Gpu, small: Sequence[Network] = (SMALL, CONVOLUTIONS), large: Network = LARGE
) -> tuple[str, bool]:
    """The report, and whether no check failed."""
    began = time.monotonic()
    results: list[Result] = []
    # First, while this process has not used the GPU: then others' energy is not in it.
    results += guarded("energy", energy)
    results += guarded("suite", lambda: suites(gpu, 110.0))
    results += guarded("parity", lambda: parity([*small, large]))
    results += guarded("determinism", lambda: determinism([*small, large]))
    results += guarded("memory", lambda: memory(small[0]))
    lines = [*head(), "", "| check | holds | found |", "|---|---|---|", *map(str, results)]
    batch_size = 16
    lines += ["", f"## Steps of {large.title}, batches of {batch_size}, in milliseconds", ""]
    bare = bare_loop(large, batch_size)
    lines += ["| method | step | times a bare loop | |", "|---|---|---|---|"]
    lines.append(f"| bare loop, all weights | {1e3 * bare:.1f} | 1.00 | |")
    for name, seconds, why in step_times(large, batch_size, began + LIMIT_S - 15):
        shown = "| – | –" if seconds is None else f"| {1e3 * seconds:.1f} | {seconds / bare:.2f}"
        lines.append(f"| {name} {shown} | {why.replace('|', '/')} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines += [
        "",
        f"Made in {time.monotonic() - began:.0f} s by `python tests/gpu/check_gpu.py`.",
        "",
    ]
    return "\n".join(lines), all(result.good is not False for result in results)


def main() -> int:
    """Write the report to standard output."""
    gpus = list_gpus()
    if not gpus:
        print("skipped: no GPU can be used here (the driver lists none that this process may use)")
        return 0
    os.environ.update(environment_of(gpus[0]))  # before torch is imported
    text, good = report(gpus[0])
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
