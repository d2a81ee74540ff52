"""What ElasticTrainer's selection saves: backward passes predicted and measured, and whole steps.

``python -m bench.methods.elastic.steps`` prints both for networks with random weights, whose costs
depend on shapes alone. Times are CPU seconds of this process; what is compared is interleaved, and
a lower quartile is taken.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import BenchError, FoundationModel, registry

from .elastic_window import choose
from .tensor_costs import TensorCosts, tensor_costs

MODELS = ("timm:vit_tiny_patch16_224", "timm:resnet18", "timm:mobilenetv2_100")


@dataclass
class Measured:
    """A selection: indices into the costs' names, and seconds of its passes."""

    title: str
    chosen: list[int]
    forward_s: float = 0.0
    backward_s: float = 0.0

    @property
    def step_s(self) -> float:
        """Both passes; an optimizer's step is not part of it, as in the paper."""
        return self.forward_s + self.backward_s


def masks(n: int, seed: int = 0) -> list[tuple[str, list[int]]]:
    """Ten selections of n tensors in the order of the backward pass."""
    draw = random.Random(seed)

    def some(share: float, of: int) -> list[int]:
        return sorted(draw.sample(range(of), max(int(share * of), 1)))

    last = {share: list(range(max(int(share * n), 1))) for share in (0.25, 0.5, 0.75)}
    return [
        ("all", list(range(n))),
        *[(f"last {share:.0%}", chosen) for share, chosen in last.items()],
        *[(f"random {share:.0%}", some(share, n)) for share in (0.1, 0.3, 0.6)],
        ("random half of the last 50%", some(0.5, n // 2)),
        ("random half of the last 70%", some(0.5, int(0.7 * n))),
        ("random tenth of the last 25%", some(0.1, n // 4)),
    ]


def measure(
    model: FoundationModel, x: Tensor, costs: TensorCosts, runs: Sequence[Measured], repeats: int
) -> None:
    """Fill in the seconds of the runs' passes: the lower quartile of ``repeats``, interleaved."""
    parameters = dict(model.module.named_parameters())
    taken: list[list[tuple[float, float]]] = [[] for _ in runs]
    for repeat in range(repeats + 1):  # the first warms up
        for run, times in zip(runs, taken, strict=True):
            chosen = {costs.names[k] for k in run.chosen}
            for name, parameter in parameters.items():
                parameter.requires_grad_(name in chosen)
                parameter.grad = None
            begun = time.process_time()
            loss = torch.logsumexp(model(x), dim=1).mean()
            middle = time.process_time()
            loss.backward()
            if repeat:
                times.append((middle - begun, time.process_time() - middle))
    for run, times in zip(runs, taken, strict=True):
        quarter = len(times) // 4
        run.forward_s = sorted(f for f, _ in times)[quarter]
        run.backward_s = sorted(b for _, b in times)[quarter]


def built(name: str, image: int) -> FoundationModel:
    """A model of images with random weights, as it is trained."""
    torch.manual_seed(0)
    kind = registry.load("model", name)
    model: FoundationModel = kind.build(kind.Config(), (3, image, image), 10)
    model.train()
    return model


def report(name: str, image: int, batch: int, repeats: int, ratios: Sequence[float]) -> list[str]:
    """Lines of Markdown: the ten selections, then steps at the ratios."""
    model, x = built(name, image), torch.rand(batch, 3, image, image)
    names = [name for name, _ in model.module.named_parameters()]
    costs = tensor_costs(model, x, names, "time", repeats=repeats)
    counted = tensor_costs(model, x, names)
    importance = [1.0] * len(names)
    runs = [Measured(title, chosen) for title, chosen in masks(len(names))]
    asked, refused = [], []
    place = {name: k for k, name in enumerate(costs.names)}
    for quantity, given in (("time", costs), ("operations", counted)):
        for ratio in ratios:
            title = f"{quantity}, {ratio:g}"
            try:
                chosen = choose(given, importance, ratio)
            except BenchError as error:
                refused.append(f"| {title} | refused: {error} | |")
                continue
            asked.append(Measured(title, sorted(place[given.names[k]] for k in chosen)))
    titles = [each.title for each in runs]
    measure(model, x, costs, [*runs, *asked], repeats)
    lines = [f"### {name}, {image} x {image}, batch {batch}", ""]
    lines += ["| trained | predicted (ms) | measured (ms) | error |", "|---|---|---|---|"]
    errors = []
    for run in runs:
        predicted = costs.predicted(run.chosen)
        errors.append(predicted / run.backward_s - 1)
        lines.append(
            f"| {run.title} | {predicted * 1e3:.1f} | {run.backward_s * 1e3:.1f} "
            f"| {errors[-1]:+.1%} |"
        )
    median = statistics.median(map(abs, errors))
    whole = runs[titles.index("all")].step_s
    lines += ["", f"Median error {median:.1%}, largest {max(map(abs, errors)):.1%}.", ""]
    lines += ["| cost, asked ratio | tensors | measured step |", "|---|---|---|"]
    for run in asked:
        share = run.step_s / whole
        lines.append(f"| {run.title} | {len(run.chosen)} of {len(names)} | {share:.3f} |")
    return [*lines, *refused, ""]


def main(write: Callable[[str], None] = print) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--ratio", nargs="+", type=float, default=(0.4, 0.5, 0.7), metavar="RHO")
    for name, default in (("image", 224), ("batch", 4), ("repeats", 12), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.model:
        write("\n".join(report(name, given.image, given.batch, given.repeats, given.ratio)))


if __name__ == "__main__":
    main()
