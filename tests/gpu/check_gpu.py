"""Checks a GPU and reports in Markdown: ``python tests/gpu/check_gpu.py``, by default in 4 minutes.

Parity with the CPU, determinism, memory, energy, several slots, and step times of every method on
ViT-B/16 against a bare loop. Without a GPU it says why it checks nothing, and succeeds. Exit code 1
where a check, or the step of a method, fails or is stopped because the time is over.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from bench import registry
from bench.accelerator.gpus import Gpu, list_gpus
from bench.accelerator.slots import environment_of
from bench.errors import BenchError

TOLERANCE = 1e-4
NOISE = 3.0
"""Standard errors of the difference between two means within which metrics must agree."""
TOO_MUCH = 1.25
"""Times the counted memory that torch may allocate, beside the workspace of cuBLAS."""
SHORT = {
    "epochs": 2, "iterations": 4, "steps": 2, "further": 1, "reference_epochs": 1,
    "lora_steps": 2, "kb_steps": 2, "index_steps": 2, "max_residual": 1e3, "levels": 2,
    "estimate": "confidence",
}  # fmt: skip
"""Settings of methods whose steps are timed: the mean over a few steps is enough."""


@dataclass(frozen=True)
class Result:
    """What a check found: ``good`` or not, or None where it could not be tried, and then why."""

    name: str
    good: bool | None
    found: str

    def __post_init__(self) -> None:
        if self.good is None and not self.found:
            raise ValueError(f"{self.name}: give the reason why it was not tried")

    def __str__(self) -> str:
        said = {True: "yes", False: "**NO**", None: "not tried"}[self.good]
        return f"| {self.name} | {said} | {_cell(self.found)} |"


@dataclass(frozen=True)
class Step:
    """The ``seconds`` of a method's step, or why there are none: maybe that it ``failed``."""

    method: str
    seconds: float | None
    why: str = ""
    failed: bool = False

    def row(self, bare: float | None) -> str:
        """For the table, beside the seconds of a bare loop where they are known."""
        shown = "**NO**" if self.failed else "–"
        times = "–"
        if self.seconds is not None:
            shown = f"{1e3 * self.seconds:.1f}"
            times = "–" if bare is None else f"{self.seconds / bare:.2f}"
        return f"| {self.method} | {shown} | {times} | {_cell(self.why)} |"


def _cell(text: str) -> str:
    """One line that a table of Markdown can hold."""
    return next(iter(text.splitlines()), "").replace("|", "/")[:200]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class OutOfTime(BaseException):
    """The time is over: no ``except Exception`` of what is checked may hold it up."""


class Clock:
    """The time that a report may take."""

    def __init__(self, limit_s: float) -> None:
        self.began, self.limit_s = time.monotonic(), limit_s

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def left_s(self) -> float:
        """Until checks are stopped, in time for the report."""
        return 0.95 * self.limit_s - self.spent_s

    @contextmanager
    def running(self, at_most_s: float = math.inf) -> Iterator[None]:
        """What is inside is stopped by `OutOfTime` after ``at_most_s``, or when no time is left."""
        left_s = self.left_s
        whose, limit_s = ("it", at_most_s) if at_most_s < left_s else ("the report", self.limit_s)

        def stop(*_: Any) -> None:
            raise OutOfTime(f"stopped, {whose} may take {limit_s:g} s")

        handler = signal.signal(signal.SIGALRM, stop)
        try:
            signal.setitimer(signal.ITIMER_REAL, max(min(left_s, at_most_s), 1e-3))
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


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
        """A copy of its own: drawing the weights of a large one takes seconds."""
        return self._drawn.clone()

    @cached_property
    def _drawn(self) -> Any:
        import torch

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


@dataclass(frozen=True)
class Extent:
    """What is checked.

    Attributes
    ----------
    small, large : networks of the checks of one step; steps of methods are those of the large one
    suite : options of ``bench run`` for a suite on both
    methods : whose steps are timed; None: all
    batch_size : of these steps
    method_s : seconds that a method may take
    energy_s : seconds of matrix products
    suite_s : seconds that the steps of methods leave to the suite
    limit_s : seconds that all of it may take
    """

    small: Sequence[Network] = (SMALL, CONVOLUTIONS)
    large: Network = LARGE
    # Over draws: rounding alone makes another source model of the same draw.
    suite: Sequence[str] = (
        "--suite", "smoke", "--methods", "source-only,shot,fine-tune",
        "--seeds", "0", "--source-draws", "3",
    )  # fmt: skip
    methods: Sequence[str] | None = None
    batch_size: int = 16
    method_s: float = 15.0
    energy_s: float = 2.5
    suite_s: float = 65.0
    limit_s: float = 240.0


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
    """The same operations are counted on both, and torch allocates what was counted, or a bit more.

    More for the workspace of cuBLAS, which the first product takes, and for rounding of sizes.
    """
    import torch

    from bench.accelerator.determinism import device_of
    from bench.costs.step_tracer import StepTracer

    traces = {}
    for kind in ("cpu", "cuda"):
        place, model, (x, y) = device_of(kind), network.build(), network.batch(8)
        if kind == "cuda":
            a = torch.rand(8, 8, device=place)
            a @ a  # takes the workspace
            del a
            before = torch.cuda.memory_allocated()
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
    counted, peak = gpu.peak_bytes / 1e6, (torch.cuda.max_memory_allocated() - before) / 1e6
    told = f"{peak:.0f} MB allocated, {counted:.0f} MB counted, {before / 1e6:.0f} MB before it"
    near = 0.9 * counted <= peak <= TOO_MUCH * counted + 2
    yield Result(f"memory of a step of {network.title}", near, told)


def energy(seconds: float) -> Iterator[Result]:
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


def suites(gpu: Gpu, suite: Sequence[str], limit_s: float) -> Iterator[Result]:
    """A suite on both, on the GPU in several slots: metrics agree within the noise of draws."""
    from bench.records.store import Store

    ways = {
        "cpu": ["--accelerator", "cpu", "--jobs", "8"],
        "cuda": ["--accelerator", f"cuda:{gpu.uuid or gpu.index}", "--per-gpu", "4"],
    }
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            kind: subprocess.Popen(
                [
                    *[sys.executable, "-P", "-m", "bench", "run", *suite],
                    *["--store", f"{folder}/{kind}", *more],
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "BENCH_CACHE": f"{folder}/cache"},
            )
            for kind, more in ways.items()
        }
        try:
            records, deadline = {}, time.monotonic() + limit_s
            for kind, command in commands.items():
                try:
                    said, _ = command.communicate(timeout=max(deadline - time.monotonic(), 1))
                except subprocess.TimeoutExpired:
                    command.terminate()
                    said, _ = command.communicate()
                records[kind] = list(Store(Path(folder, kind)))
                if command.returncode:
                    last = said.strip().splitlines()[-1:] or ["nothing"]
                    yield Result(f"the suite on {kind}", False, last[0])
        finally:
            for command in commands.values():
                command.kill()  # nothing where it has ended
                command.wait()
    yield from compared(records["cpu"], records["cuda"])
    yield Result("several runs at a time on the GPU", overlap(records["cuda"]), "by their times")


def compared(cpu: Sequence[Any], cuda: Sequence[Any]) -> Iterator[Result]:
    """For each method the mean metric over runs on both."""
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
        noise = math.sqrt(variance(one) / len(one) + variance(other) / len(other))
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
    network: Network, batch_size: int, clock: Clock, method_s: float,
    names: Sequence[str] | None = None,
) -> Iterator[Step]:  # fmt: skip
    """Of each method the seconds of its step in a second domain, or why there are none.

    Nothing is evaluated: digests of all weights around it would take most of the time.
    """
    from unittest.mock import patch

    import torch

    from bench.contracts.stream import Domain, Split, Stream, StreamConfig
    from bench.costs.device_profile import MeasuredDevice
    from bench.errors import Unsupported
    from bench.run.evaluator import Scores
    from bench.run.protocols.base import Protocol
    from bench.testing import run_method

    x, y = network.batch(2 * batch_size)

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
    for name in names or registry.entries("method"):
        registry.load("method", name)  # imports of libraries are in no method's time
    for name, entry in sorted(registry.entries("method").items()):
        if names is not None and name not in names:
            continue
        if "classification" not in entry.facts.get("tasks", ("classification",)):
            continue
        if clock.left_s <= 0:
            yield Step(name, None, "no time left")
            continue
        try:
            method_class = registry.load("method", name)
            fields = method_class.Config.model_fields
            fixed = {k for k, field in fields.items() if field.annotation is type(None)}
            settings = {k: v for k, v in SHORT.items() if k in fields.keys() - fixed}
            whole = {k for k in settings if isinstance(fields[k].default, int)}
            settings = {  # what is shorter already stays
                k: min(v, fields[k].default) if k in whole else v for k, v in settings.items()
            }
            method = method_class(method_class.Config(**settings))
            unevaluated = patch.object(Protocol, "_scores", lambda *_: Scores(0.0, {}))
            # What is stopped may leave gradients off: `no_grad` is a pair of calls.
            with clock.running(method_s), unevaluated, torch.enable_grad():
                result = run_method(
                    method, model=network.build(), stream=Drawn(StreamConfig(), 0), device=device,
                    labelled="target_labels" in method.needs, accelerator="cuda",
                    batch_size=batch_size, window_s=1e6,
                )  # fmt: skip
        except Unsupported as error:
            yield Step(name, None, f"does not apply: {error}")
            continue
        except (Exception, OutOfTime) as error:
            yield Step(name, None, _told(error), failed=True)
            continue
        charge = result.stages[-1].charges["host"]
        seconds = charge.time_s / charge.steps if charge.steps else None
        yield Step(name, seconds, "" if charge.steps else "takes no steps")


# --- the report --------------------------------------------------------------------------------


def head(facts: dict[str, Any]) -> list[str]:
    """The title, and what the driver and torch say of the GPU."""
    return ["# A GPU against the CPU", "", *(f"- {k}: {v}" for k, v in facts.items() if v != "")]


def guarded(name: str, check: Callable[[], Iterator[Result]], clock: Clock) -> list[Result]:
    """The results of a check; an exception in it is one, and so is that its time is over."""
    found: list[Result] = []

    def note(result: Result) -> None:
        found.append(result)
        print(f"{clock.spent_s:5.1f} s", result, file=sys.stderr, flush=True)

    if clock.left_s <= 0:
        note(Result(name, None, "no time left"))
        return found
    try:
        with clock.running():
            for result in check():
                note(result)
    except (Exception, OutOfTime) as error:
        note(Result(name, False, _told(error)))
    return found


def report(gpu: Gpu, extent: Extent) -> tuple[str, bool]:
    """The report, and whether no check failed."""
    clock = Clock(extent.limit_s)
    networks, large, batch_size = [*extent.small, extent.large], extent.large, extent.batch_size
    bare: list[float] = []
    facts: dict[str, Any] = {}

    def bare_step(when: str = "") -> Iterator[Result]:
        bare.append(bare_loop(large, batch_size))
        told = f"{1e3 * bare[-1]:.1f} ms"
        yield Result(f"a step of {large.title} in a bare loop{when}", True, told)

    def what_it_is() -> Iterator[Result]:
        from bench.accelerator.facts import accelerator_facts

        facts.update(accelerator_facts("cuda")["accelerator"])
        yield Result("what the GPU is", True, facts["gpu"])

    checks: dict[str, Callable[[], Iterator[Result]]] = {
        # First, while this process has not used the GPU: then others' energy is not in it.
        "energy": lambda: energy(extent.energy_s),
        "parity": lambda: parity(networks),
        "determinism": lambda: determinism(networks),
        **{f"memory of {n.title}": partial(memory, n) for n in [*extent.small[:1], large]},
        "GPU": what_it_is,
        "bare loop": bare_step,
    }
    results = [result for name, check in checks.items() for result in guarded(name, check, clock)]
    beside, steps = (bare[0] if bare else None), []
    before_suite = Clock(clock.left_s - extent.suite_s)
    for step in step_times(large, batch_size, before_suite, extent.method_s, extent.methods):
        steps.append(step)
        print(f"{clock.spent_s:5.1f} s", step.row(beside), file=sys.stderr, flush=True)
    # Once more: the GPU's clock may have moved meanwhile.
    results += guarded("bare loop again", lambda: bare_step(", again"), clock)
    results += guarded("suite", lambda: suites(gpu, extent.suite, clock.left_s - 5), clock)
    title = f"## Steps of {large.title}, batches of {batch_size}, in milliseconds"
    lines = [*head(facts), "", "| check | holds | found |", "|---|---|---|", *map(str, results)]
    lines += ["", title, "", "| method | step | times a bare loop | |", "|---|---|---|---|"]
    rows = [Step("bare loop, all weights", beside, "" if bare else "see above"), *steps]
    lines += [row.row(beside) for row in rows]
    lines += ["", f"Made in {clock.spent_s:.0f} s by `python tests/gpu/check_gpu.py`.", ""]
    good = all(result.good is not False for result in results)
    return "\n".join(lines), good and not any(step.failed for step in steps)


def main(extent: Extent | None = None) -> int:
    """Write the report to standard output."""
    gpus = list_gpus()
    if not gpus:
        print("skipped: no GPU can be used here (the driver lists none that this process may use)")
        return 0
    os.environ.update(environment_of(gpus[0]))  # before torch is imported
    text, good = report(gpus[0], extent or Extent())
    print(text)
    return 0 if good else 1


def asked(arguments: Sequence[str]) -> Extent:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Check a GPU, and report in Markdown.")
    parser.add_argument(
        "--methods", metavar="A,B", help="time the steps of these methods alone; default: of all"
    )
    parser.add_argument(
        "--limit", type=float, default=Extent.limit_s, metavar="SECONDS",
        help="that all of it may take; default: %(default)g",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    methods = None if given.methods is None else [m for m in given.methods.split(",") if m]
    for name in methods or ():
        try:
            registry.entry("method", name)
        except BenchError as error:
            parser.error(str(error))
    return Extent(methods=methods, limit_s=given.limit)


if __name__ == "__main__":
    sys.exit(main(asked(sys.argv[1:])))
