"""The cost of a retraining step of EdgeTA's proxy against one of the model, counted and measured.

``python -m bench.methods.edgeta.steps`` prints it over sparsities. Costs depend on shapes alone,
so the weights are random: no training is needed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench import Batch, DomainView, FoundationModel, registry
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.models.surgery.gates import importance, insert_gates, set_sparsity
from bench.models.surgery.proxy import make_proxy, most_important
from bench.models.surgery.pruning import cut, strongest

from .._losses import take_step
from ..feature_alignment import FeatureAlignmentConfig
from .retraining import ProxyAlignment


@dataclass
class Step:
    """A model's retraining step, traced once its optimizer has state; seconds: median wall time."""

    parameters: int
    trace: StepTrace
    seconds: float


def retraining_steps(
    model: FoundationModel, x: torch.Tensor, ratio: int, sparsities: Sequence[float], repeats: int
) -> list[Step]:
    """The step of the model, then of a proxy at each sparsity; repeats are interleaved.

    A step takes the n samples ``x`` as source and as target; ``ratio``: the model's inner widths
    divided by the knowledge base's.
    """
    kb = model.clone()
    cut(kb, strongest(kb, ratio))
    insert_gates(kb)
    models = [model.clone()]
    for sparsity in sparsities:
        set_sparsity(kb, sparsity)
        found = {name: g.mean(dim=0) for name, g in importance(kb, x).items()}
        models.append(make_proxy(kb, found, most_important(found, sparsity))[0])
    del kb
    runs = [_Retrained(each, x) for each in models]
    traces = []
    for run in runs:
        run.step()  # makes the optimizer's state
        with StepTracer([run]) as tracer:
            run.step()
        traces.append(tracer.trace)
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for taken, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run.step()
            taken.append(time.perf_counter() - start)
    return [
        Step(sum(p.numel() for p in each.module.parameters()), trace, statistics.median(taken))
        for each, trace, taken in zip(models, traces, times, strict=True)
    ]


class _Retrained(ProxyAlignment):
    def __init__(self, model: FoundationModel, x: torch.Tensor) -> None:
        super().__init__(FeatureAlignmentConfig())
        y = torch.zeros(len(x), dtype=torch.int64)
        self.prepare(model, DomainView("source", x, y, len(x), torch.Generator().manual_seed(0)))
        model.train()

    def step(self) -> None:
        logits, features = self.model.with_features(self.source.x)
        features = self.model.pooled(features, self.source.x)
        added = self.adaptation_loss(features, Batch(self.source.x, torch.arange(0)), 0.0)
        take_step(self.optimizer, self.model.loss(logits, self.source.y) + added)


def table(steps: Sequence[Step], sparsities: Sequence[float]) -> str:
    """A Markdown table: how many times less than the model's each proxy's step costs."""
    model, *proxies = steps
    lines = [
        "| sparsity | parameters (M) | fewer parameters | fewer operations | fewer bytes "
        "| measured (ms) | faster | faster than operations say |",
        "|---|---|---|---|---|---|---|---|",
        f"| model | {model.parameters / 1e6:.3g} | 1 | 1 | 1 | {model.seconds * 1e3:.4g} | 1 | |",
    ]
    for sparsity, step in zip(sparsities, proxies, strict=True):
        operations = model.trace.flops / step.trace.flops
        faster = model.seconds / step.seconds
        lines.append(
            f"| {sparsity:g} | {step.parameters / 1e6:.3g} "
            f"| {model.parameters / step.parameters:.2f} | {operations:.2f} "
            f"| {model.trace.bytes / step.trace.bytes:.2f} | {step.seconds * 1e3:.4g} "
            f"| {faster:.2f} | {100 * (faster / operations - 1):+.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table for a model of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--image", type=int, nargs=3, default=[3, 224, 224], metavar="N")
    for name, default in (("batch", 4), ("ratio", 4), ("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    kind = registry.load("model", given.model)
    model = kind.build(kind.Config(), tuple(given.image), 10)
    sparsities, x = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9), torch.rand(given.batch, *given.image)
    print(table(retraining_steps(model, x, given.ratio, sparsities, given.repeats), sparsities))


if __name__ == "__main__":
    main()
