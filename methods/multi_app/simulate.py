"""What an application may expect of a sparsity, learned before deployment by simulation.

Proxies of every sparsity are retrained on source data under shifts that the stream does not have,
whose labels are known, as EdgeTA's second generation does for its "edge scaling law". There a
network predicts the accuracy from the domain's features; here a curve with three numbers, two for
each sparsity and one for all, is fitted to the mean over the simulated domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import BenchError, DomainView, FoundationModel, take
from bench.contracts.data import Inputs, batch_length, placed
from bench.contracts.model import weights_digest
from bench.contracts.stream import Domain, ShiftedSource
from bench.io.digest import digest
from bench.io.weights_cache import cache_folder, cached
from bench.registry.component_code import code_digest
from bench.scheduling.application import saturating

from ..edgeta.method import EdgeTA
from .estimate import met
from .retraining import Retraining, make_proxy
from .routing import Owner

ITERATIONS = (0, 5, 10, 20, 40)
"""After which a simulated retraining is tested."""
HALVES = np.geomspace(1.0, 1000.0, 61)
"""Iterations to half of the gain that are tried."""


@dataclass(frozen=True)
class Levels:
    """Accuracies to expect by sparsity, in [0, 1]: before retraining, and after endless retraining.

    ``half_iterations``: to half of the gain, for all sparsities. ``seen``: what was simulated, mean
    accuracies by sparsity and by `ITERATIONS`.
    """

    sparsities: tuple[float, ...]
    start: tuple[float, ...]
    ceiling: tuple[float, ...]
    half_iterations: float
    seen: tuple[tuple[float, ...], ...]


def simulated_levels(
    app: EdgeTA, of: Owner, shifted: ShiftedSource, sparsities: Sequence[float]
) -> Levels:
    """The levels of an application that was just prepared, from the cache if they are there.

    ``of``: whose samples of the shifted source are taken; where applications share one model each
    has its own order of the same shifts, and the first serves all.

    Torch's generator, the order of the source and the application are afterwards as before.
    """
    settings = app.config.model_dump(mode="json", exclude={"scheduler", "ekya_fallback"})
    weights = [weights_digest(model.module) for model in (app.fm, app.kb)]
    drawn = [app.source.draw, app.source.batch_size, of.number]
    inputs = [shifted.key, *drawn, list(sparsities), settings]
    key = digest([*inputs, *weights, code_digest(Path(__file__))])
    path = cache_folder() / "edgeta" / f"levels-{key[:20]}.pt"
    kept = cached(path, lambda: {"seen": _simulated(app, of, shifted.make(), sparsities)})
    return fitted(sparsities, kept["seen"])


def fitted(sparsities: Sequence[float], seen: Sequence[Sequence[float]]) -> Levels:
    """The curves ``start + (ceiling - start) T / (T + half)`` of least squares, no gain below 0.

    ``seen``: accuracies by sparsity and by `ITERATIONS`.
    """
    accuracies = np.asarray(seen, dtype=float)
    best = min((_with_half(half, accuracies) for half in HALVES), key=lambda found: found[0])
    _, half, start, gain = best
    return Levels(
        tuple(sparsities),
        tuple(float(a) for a in np.clip(start, 0, 1)),
        tuple(float(a) for a in np.clip(start + gain, 0, 1)),
        half,
        tuple(tuple(float(a) for a in row) for row in accuracies),
    )


def _with_half(half: float, accuracies: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Sum of squares, half, starts and gains by sparsity."""
    risen = saturating(0.0, 1.0, half, np.asarray(ITERATIONS, dtype=float))
    centred = risen - risen.mean()
    gain = np.maximum(accuracies @ centred / (centred @ centred), 0.0)
    start = accuracies.mean(axis=1) - gain * risen.mean()
    away = start[:, None] + gain[:, None] * risen - accuracies
    return float((away**2).sum()), float(half), start, gain


def _simulated(
    app: EdgeTA, of: Owner, domains: Sequence[Domain], sparsities: Sequence[float]
) -> list[list[float]]:
    """Mean accuracies over the domains, by sparsity and by `ITERATIONS`."""
    if not domains:
        raise BenchError("simulated retrainings: the validation stream has no domains")
    kept = app.model, app.slices, app.sparsity
    found = []
    with app.source.preserve_rng():
        torch.manual_seed(app.source.draw)
        for sparsity in sparsities:
            runs = [_retrained(app, of, domain, sparsity) for domain in domains]
            found.append(np.mean(runs, axis=0).tolist())
    app.model, app.slices, app.sparsity = kept
    return found


def _retrained(app: EdgeTA, of: Owner, domain: Domain, sparsity: float) -> list[float]:
    """Accuracies on the test split by `ITERATIONS`, of a proxy retrained without labels."""
    view, tested = _unlabelled(app, of, domain), domain.test
    own = of.inputs(placed(tested.x, _place(app)))
    x, y = take(own, torch.arange(batch_length(own))), of.labels(tested.y, tested.x)
    make_proxy(app, view, sparsity)
    retraining = Retraining(app)
    target, source = view.infinite(), app.source.infinite()
    scores, made = [], 0
    for wanted in ITERATIONS:
        app.model.train()
        for _ in range(wanted - made):
            retraining.step(next(target), next(source))
        made = wanted
        scores.append(_accuracy(app.model, x, y))
    return scores


def _unlabelled(app: EdgeTA, of: Owner, domain: Domain) -> DomainView:
    """An application's samples to adapt on."""
    return DomainView(
        domain.name,
        placed(of.inputs(domain.adaptation.x), _place(app)),
        None,
        app.source.batch_size,
        torch.Generator().manual_seed(app.source.draw),
        least_batch=app.source.least_batch,
    )


def _place(app: EdgeTA) -> torch.device:
    """Where the application computes."""
    return next(app.kb.module.parameters()).device


@torch.no_grad()
def _accuracy(model: FoundationModel, x: Inputs, y: Tensor) -> float:
    model.train(False)
    return float(met(model, model(x), x, y).float().mean())
