"""Five updates of each method against plain loops, on a LayerNorm ViT and a BatchNorm ResNet.

The loops are written from the papers' equations and from what the authors' code does: torch's
networks and gradients, no code of the methods, optimizers by their formulas. Run as a program, this
file prints the table of docs/explanation/faithfulness.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.run.window import Window

CLASSES, SIZE, BATCH, STEPS = 4, 16, 12, 5
NETWORKS = {
    "LayerNorm": ("digits-vit", {"width": 16, "depth": 2, "heads": 2}),
    "BatchNorm": ("digits-resnet", {"width": 4}),
}
TOLERANCE = 1e-6
BN = nn.modules.batchnorm._BatchNorm


def network(name: str) -> FoundationModel:
    """In double precision, its scales, shifts and running statistics away from their start."""
    torch.manual_seed(0)
    model_name, settings = NETWORKS[name]
    model_class = registry.load("model", model_name)
    model = model_class.build(model_class.Config(**settings), (1, SIZE, SIZE), CLASSES)
    model.module.double()
    with torch.no_grad():
        for p in model.module.parameters():
            p += 0.1 * torch.randn_like(p)
        for layer in model.module.modules():
            if isinstance(layer, BN):
                layer.running_mean += 0.1 * torch.randn_like(layer.running_mean)
        for p in model.head_parameters():
            p *= 5  # so that some predictions are certain
    return model


def images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (n,), generator=generator)


def view(n: int, seed: int, labelled: bool = False, batch_size: int = BATCH) -> DomainView:
    x, y = images(n, seed)
    generator = torch.Generator().manual_seed(seed)
    return DomainView("d", x, y if labelled else None, batch_size, generator)


class Plain:
    """The authors' side: a network, what it trains, an optimizer by its formula."""

    def __init__(self, model: FoundationModel, batch_statistics: bool = False) -> None:
        self.net = copy.deepcopy(model.module)
        self.head = self.net.get_submodule(model.head_name)
        for layer in self.net.modules() if batch_statistics else ():
            if isinstance(layer, BN):
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = None
        self.net.train()
        self.state: dict[int, Any] = {}

    def norms(self) -> list[nn.Parameter]:
        kinds = (nn.LayerNorm, BN)
        return [p for m in self.net.modules() if isinstance(m, kinds) for p in m.parameters()]

    def body(self) -> list[nn.Parameter]:
        head = {id(p) for p in self.head.parameters()}
        return [p for p in self.net.parameters() if id(p) not in head]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = self.net(x)
        handle.remove()
        return logits, seen[0]

    def gradients(self, loss: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [
            torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)
        ]

    @torch.no_grad()
    def sgd(
        self, weights: list[nn.Parameter], gradients: list[Tensor], lr: float,
        decay: float = 0.0, nesterov: bool = False,
    ) -> None:  # fmt: skip
        for w, gradient in zip(weights, gradients, strict=True):
            g = gradient + decay * w
            v = 0.9 * self.state[id(w)] + g if id(w) in self.state else g
            self.state[id(w)] = v
            w -= lr * (g + 0.9 * v if nesterov else v)

    @torch.no_grad()
    def adam(
        self, weights: list[nn.Parameter], gradients: list[Tensor], lr: float, decay: float = 0.0
    ) -> None:
        for w, g in zip(weights, gradients, strict=True):
            m, v, t = self.state.get(id(w), (torch.zeros_like(w), torch.zeros_like(w), 0))
            m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, t + 1
            self.state[id(w)] = (m, v, t)
            w *= 1 - lr * decay
            w -= lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def entropies(logits: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -(p * p.log()).sum(dim=1)


def passes(count: int = 1) -> Iterator[Tensor]:
    """The batches that the method is given, drawn anew from the same view."""
    for batch in view(BATCH * STEPS // count, 5).batches(count):
        yield batch.x


Loop = Callable[[FoundationModel], tuple[nn.Module, Callable[[Tensor], Tensor]]]
"""Five updates of a copy of the model: the network, and what predicts."""


def tent(model: FoundationModel) -> Any:
    plain = Plain(model, batch_statistics=True)
    for x in passes():
        loss = entropies(plain.net(x)).mean()
        plain.adam(plain.norms(), plain.gradients(loss, plain.norms()), 1e-3)
    return plain.net, plain.net


def pseudo_label(model: FoundationModel) -> Any:
    plain = Plain(model, batch_statistics=True)
    for x in passes():
        logits = plain.net(x)
        top, label = logits.softmax(dim=1).detach().max(dim=1)
        if (sure := top > 0.4).any():
            loss = cross_entropy(logits[sure], label[sure])
            plain.adam(plain.norms(), plain.gradients(loss, plain.norms()), 1e-3)
    return plain.net, plain.net


def eata(model: FoundationModel) -> Any:
    plain = Plain(model, batch_statistics=True)
    weights = plain.norms()
    start = [w.detach().clone() for w in weights]
    source = images(24, 9)[0]
    fisher = [torch.zeros_like(w) for w in weights]
    torch.manual_seed(7)
    for chosen in torch.randperm(24).split(8):
        logits = plain.net(source[chosen])
        found = plain.gradients(cross_entropy(logits, logits.argmax(dim=1)), weights)
        fisher = [f + g**2 / 3 for f, g in zip(fisher, found, strict=True)]
    margin, mean = 0.99 * math.log(CLASSES), None
    for x in passes():
        logits = plain.net(x)
        h, p = entropies(logits), logits.softmax(dim=1).detach()
        chosen = h < margin
        if mean is not None:
            cosine = (p @ mean) / (p.norm(dim=1) * mean.norm())
            chosen &= cosine < 1.99 / math.sqrt(CLASSES)
        if not chosen.any():
            continue
        new = p[chosen].mean(dim=0)
        mean = new if mean is None else 0.1 * new + 0.9 * mean
        loss = (h[chosen] * (margin - h[chosen].detach()).exp()).mean()
        held = zip(fisher, weights, start, strict=True)
        loss = loss + 2000.0 * sum((f * (w - s) ** 2).sum() for f, w, s in held)
        plain.sgd(weights, plain.gradients(loss, weights), 1e-3)
    return plain.net, plain.net


def sar(model: FoundationModel) -> Any:
    """The authors' code; what its recovery keeps is in test_sar.py."""
    plain = Plain(model, batch_statistics=True)
    weights = plain.norms()
    margin = 0.6 * math.log(CLASSES)
    for x in passes():
        h = entropies(plain.net(x))
        first = h < margin
        zero = [torch.zeros_like(w) for w in weights]
        gradients = plain.gradients(h[first].mean(), weights) if first.any() else zero
        norm = sum((g**2).sum() for g in gradients).sqrt() + 1e-12
        here = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                w += 0.05 * g / norm
        h = entropies(plain.net(x))[first]
        again = h < margin
        gradients = plain.gradients(h[again].mean(), weights) if again.any() else zero
        with torch.no_grad():
            for w, old in zip(weights, here, strict=True):
                w.copy_(old)
        plain.sgd(weights, gradients, 1e-2)
    return plain.net, plain.net


class Tilted(nn.Module):
    """Views that can be foreseen: two in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0

    def forward(self, x: Tensor, generator: Any = None) -> Tensor:
        self.turn += 1
        return (0.8 - 0.3 * (self.turn % 2)) * x + 0.1


def cotta(official: bool) -> Loop:
    def loop(model: FoundationModel) -> Any:
        student, teacher, views = Plain(model, True), Plain(model, True), Tilted()
        named = dict(student.net.named_parameters())
        trained = [
            p for n, p in named.items()
            if not official or n.split(".")[-1] in ("weight", "bias")
        ]  # fmt: skip

        def mean_logits(x: Tensor) -> Tensor:
            return (teacher.net(views(x)) + teacher.net(views(x))) / 2

        def mean_probabilities(x: Tensor) -> Tensor:
            return sum(teacher.net(views(x)).softmax(dim=1) for _ in range(2)) / 2

        for x in passes():
            with torch.no_grad():
                label = mean_logits(x).softmax(dim=1) if official else mean_probabilities(x)
            loss = -(label * student.net(x).log_softmax(dim=1)).sum(dim=1).mean()
            student.adam(trained, student.gradients(loss, trained), 1e-3)
            with torch.no_grad():
                pairs = zip(teacher.net.parameters(), student.net.parameters(), strict=True)
                for kept, new in pairs:
                    kept.copy_(0.9 * kept + 0.1 * new)
        return student.net, mean_logits if official else teacher.net

    return loop


def shot(model: FoundationModel) -> Any:
    """One batch a pass, so that each update follows a labelling."""
    plain = Plain(model)
    domain = view(BATCH, 5)
    for step in range(1, STEPS + 1):
        plain.net.train(False)
        with torch.no_grad():
            logits, features = plain.features(domain.x)
        rows = normalize(torch.cat([features, torch.ones(BATCH, 1)], dim=1), dim=1)
        weights, present = logits.softmax(dim=1), torch.ones(CLASSES, dtype=torch.bool)
        for _ in range(2):
            centroids = weights.t() @ rows / (1e-8 + weights.sum(dim=0)[:, None])
            cosine = rows @ normalize(centroids, dim=1).t()
            labels = cosine.masked_fill(~present, -2).argmax(dim=1)
            weights = one_hot(labels, CLASSES).double()
            present = weights.sum(dim=0) > 0
        plain.net.train()
        batch = next(iter(domain.batches()))
        logits = plain.net(batch.x)
        mean = logits.softmax(dim=1).mean(dim=0)
        loss = entropies(logits).mean() + (mean * mean.log()).sum()
        loss = loss + 0.3 * cross_entropy(logits, labels[batch.sample_ids])
        rate = 1e-2 * (1 + 10 * step / STEPS) ** -0.75
        gradients = plain.gradients(loss, plain.body())
        plain.sgd(plain.body(), gradients, rate, decay=1e-3, nesterov=True)
    plain.net.train(False)
    return plain.net, plain.net


def mmd(a: Tensor, b: Tensor) -> Tensor:
    joint = torch.cat([a, b])
    distance = (joint[:, None] - joint[None]).pow(2).sum(dim=2)
    width = distance.detach().sum() / (len(joint) * (len(joint) - 1))
    k = sum(torch.exp(-distance / (width * 2.0**i)) for i in range(-2, 3))
    n = len(a)
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


def coral(a: Tensor, b: Tensor) -> Tensor:
    def covariance(f: Tensor) -> Tensor:
        centred = f - f.mean(dim=0)
        return centred.t() @ centred / (len(f) - 1)

    return (covariance(a) - covariance(b)).pow(2).sum() / (4 * a.shape[1] ** 2)


def alignment(kind: str) -> Loop:
    """One batch of the source and of the target a pass, five passes."""

    def loop(model: FoundationModel) -> Any:
        plain = Plain(model)
        (xs, ys), xt = images(BATCH, 9), images(BATCH, 5)[0]
        raw = Plain(model)
        raw.net.train(False)
        discriminator = torch.nn.Sequential()
        if kind == "dann":
            torch.manual_seed(7)
            width = raw.features(xs[:1])[1].shape[1]
            layers = nn.Linear(width, 100), nn.ReLU(), nn.Linear(100, 1)
            discriminator = nn.Sequential(*layers).double()
        for step in range(STEPS):
            if kind == "cua-group":
                fs, task = raw.features(xs)[1].detach(), torch.zeros(())
            else:
                logits, fs = plain.features(xs)
                task = cross_entropy(logits, ys)
            ft = plain.features(xt)[1] if kind != "source-fine-tune" else None
            if kind in ("feature-alignment", "cua", "cua-group"):
                task = task + mmd(fs, ft)
            if kind.startswith("cua"):
                task = task + 0.5 * cross_entropy(plain.net(xs), ys)
            if kind == "deep-coral":
                task = task + coral(fs, ft)
            if kind == "dann":
                adversary = domain_loss(discriminator, fs, ft)
                factor = 2 / (1 + math.exp(-10 * step / STEPS)) - 1
                rate = 1e-2 * (1 + 10 * step / STEPS) ** -0.75
                weights, others = list(plain.net.parameters()), list(discriminator.parameters())
                of_task = torch.autograd.grad(task, weights, retain_graph=True)
                of_domain = torch.autograd.grad(
                    adversary, [*weights, *others], allow_unused=True, materialize_grads=True
                )
                pairs = zip(of_task, of_domain, strict=False)
                plain.sgd(weights, [t - factor * d for t, d in pairs], rate)
                plain.sgd(others, list(of_domain[len(weights) :]), rate)
            elif kind == "deep-coral":
                weights = list(plain.net.parameters())
                head = len(list(plain.head.parameters()))
                found = plain.gradients(task, [*plain.body(), *plain.head.parameters()])
                assert len(found) == len(weights)
                plain.sgd(plain.body(), found[:-head], 1e-3, decay=5e-4)
                plain.sgd(list(plain.head.parameters()), found[-head:], 1e-2, decay=5e-4)
            else:
                body = plain.body()
                plain.adam(body, plain.gradients(task, body), 3e-4, decay=0.01)
        plain.net.train(False)
        return plain.net, plain.net

    return loop


def domain_loss(discriminator: nn.Module, fs: Tensor, ft: Tensor) -> Tensor:
    of_source, of_target = discriminator(fs).sigmoid(), discriminator(ft).sigmoid()
    return -(1 - of_source).log().mean() - of_target.log().mean()


def norm(prior: int) -> Loop:
    def loop(model: FoundationModel) -> Any:
        plain = Plain(model)
        plain.net.train(False)

        def mix(layer: BN, inputs: tuple[Tensor]) -> Tensor:
            (x,) = inputs
            axes = [0, *range(2, x.ndim)]
            share = len(x) / (prior + len(x))
            mean = (1 - share) * layer.running_mean + share * x.mean(dim=axes)
            variance = x.var(dim=axes, unbiased=False)
            variance = (1 - share) * layer.running_var + share * variance
            shape = (1, -1, *[1] * (x.ndim - 2))
            scaled = (x - mean.view(shape)) / (variance.view(shape) + layer.eps).sqrt()
            return scaled * layer.weight.view(shape) + layer.bias.view(shape)

        for layer in plain.net.modules():
            if isinstance(layer, BN):
                layer.register_forward_hook(lambda layer, inputs, _: mix(layer, inputs))
        return plain.net, plain.net

    return loop


class Fan(nn.Module):
    """Views of one point that can be foreseen, in the place of AugMix."""

    def forward(self, point: Tensor, views: int, draw: Any = None) -> Tensor:
        return torch.cat([(1 - 0.05 * i) * point + 0.02 * i for i in range(views)])


def memo(adamw: bool) -> Loop:
    """Each point adapts a copy; BatchNorm counts it as one sample beside 16 of the source."""

    def normalized(layer: BN, inputs: tuple[Tensor]) -> Tensor:
        (x,) = inputs
        axes = [0, *range(2, x.ndim)]
        mean, variance = layer.running_mean, layer.running_var
        if x.numel() > x.shape[1]:
            mean = 16 / 17 * mean + x.detach().mean(dim=axes) / 17
            variance = 16 / 17 * variance + x.detach().var(dim=axes) / 17
        shape = (1, -1, *[1] * (x.ndim - 2))
        scaled = (x - mean.view(shape)) / (variance.view(shape) + layer.eps).sqrt()
        return scaled * layer.weight.view(shape) + layer.bias.view(shape)

    def loop(model: FoundationModel) -> Any:
        start = Plain(model)
        start.net.train(False)
        for layer in start.net.modules():
            if isinstance(layer, BN):
                layer.register_forward_hook(lambda layer, inputs, _: normalized(layer, inputs))

        def predict(x: Tensor) -> Tensor:
            outputs = []
            for point in x:
                net = copy.deepcopy(start.net)
                weights = list(net.parameters())
                with torch.enable_grad():
                    p = net(Fan()(point[None], 8)).softmax(dim=1).mean(dim=0)
                    gradients = torch.autograd.grad(-(p * p.log()).sum(), weights)
                for w, g in zip(weights, gradients, strict=True):
                    if adamw:
                        w *= 1 - 1e-3 * 0.01
                        w -= 1e-3 * g / ((g**2).sqrt() + 1e-8)
                    else:
                        w -= 5e-3 * g
                outputs.append(net(point[None]))
            return torch.cat(outputs)

        return start.net, predict

    return loop


def source_stats(model: FoundationModel) -> Any:
    """Central moments and class means of the source's squashed features, gradients cut to 1."""
    plain = Plain(model, batch_statistics=True)
    of_source = Plain(model)
    of_source.net.train(False)
    xs, ys = images(24, 9)

    def squashed(net: Plain, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, f = net.features(x)
        centred = f - f.mean(dim=1, keepdim=True)
        variance = (centred**2).mean(dim=1, keepdim=True)
        return logits, (centred / (variance + 1e-5).sqrt()).tanh()

    def moments(h: Tensor) -> list[Tensor]:
        mean = h.mean(dim=0)
        return [mean, *(((h - mean) ** k).mean(dim=0) for k in (2, 3))]

    with torch.no_grad():
        h = squashed(of_source, xs)[1]
        goal, means = moments(h), {c: h[ys == c].mean(dim=0) for c in set(ys.tolist())}
    for x in passes():
        logits, h = squashed(plain, x)
        apart = [(m - g).norm() for m, g in zip(moments(h), goal, strict=True)]
        label = logits.argmax(dim=1)
        met = [c for c in means if (label == c).any()]
        of_class = sum((h[label == c].mean(dim=0) - means[c]).norm() / 2 for c in met) / len(met)
        loss = sum(d / 2**k for k, d in enumerate(apart, 1)) + of_class
        gradients = plain.gradients(loss, plain.norms())
        length = sum((g**2).sum() for g in gradients).sqrt()
        cut = min(1.0, 1 / (float(length) + 1e-6))
        plain.sgd(plain.norms(), [cut * g for g in gradients], 1e-3)
    return plain.net, plain.net


def t3a(model: FoundationModel) -> Any:
    """Supports of each class by entropy, three at most; a class is the direction of their sum."""
    plain = Plain(model)
    plain.net.train(False)
    rows = plain.head.weight.detach()
    held = [
        (c, float(entropies(plain.head(row)[None]).detach()), row / row.norm())
        for c, row in enumerate(rows)
    ]
    with torch.no_grad():
        for x in passes():
            logits, features = plain.features(x)
            found = zip(logits.argmax(dim=1).tolist(), entropies(logits), features, strict=True)
            held += [(c, float(h), f / f.norm()) for c, h, f in found]
            ordered = sorted(held, key=lambda entry: entry[1])
            held = [e for c in range(CLASSES) for e in [e for e in ordered if e[0] == c][:3]]
    sums = [sum(f for of, _, f in held if of == c) for c in range(CLASSES)]
    centroids = torch.stack([total / total.norm() for total in sums])
    return plain.net, lambda x: plain.features(x)[1] @ centroids.t()


def lame(model: FoundationModel) -> Any:
    """z_i ~ q_i exp(sum of z over the five nearest by cosine), until nothing moves by 1e-6."""
    plain = Plain(model)
    plain.net.train(False)

    def predict(x: Tensor) -> Tensor:
        logits, features = plain.features(x)
        q = logits.softmax(dim=1)
        unit = features / features.norm(dim=1, keepdim=True)
        near = [
            sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
            for i in range(len(x))
        ]
        z = q
        while True:
            pulled = torch.stack([z[js[:5]].sum(dim=0) for js in near])
            new = q * pulled.exp() / (q * pulled.exp()).sum(dim=1, keepdim=True)
            if (new - z).abs().max() <= 1e-6:
                return new.log()
            z = new

    return plain.net, predict


class Robust:
    """Robust batch normalization: by moving averages, which move before they serve."""

    def __init__(self, net: nn.Module) -> None:
        self.moving = False
        for layer in net.modules():
            if isinstance(layer, BN):
                layer.averages = layer.running_mean.clone(), layer.running_var.clone()
                layer.register_forward_hook(lambda layer, inputs, _: self(layer, *inputs))

    def __call__(self, layer: BN, x: Tensor) -> Tensor:
        mean, variance = layer.averages
        if self.moving:
            axes = [0, *range(2, x.ndim)]
            mean = 0.95 * mean + 0.05 * x.mean(dim=axes)
            variance = 0.95 * variance + 0.05 * x.var(dim=axes, unbiased=False)
            layer.averages = mean.detach(), variance.detach()
        shape = (1, -1, *[1] * (x.ndim - 2))
        scaled = (x - mean.view(shape)) / (variance.view(shape) + layer.eps).sqrt()
        return scaled * layer.weight.view(shape) + layer.bias.view(shape)


def rotta(model: FoundationModel) -> Any:
    """With a memory that holds all that came; what a full one keeps is in test_rotta.py."""
    student, teacher = Plain(model), Plain(model)
    robust, views = (Robust(student.net), Robust(teacher.net)), Tilted()
    came: list[Tensor] = []
    for x in passes():
        came += list(x)
        memory = torch.stack(came)
        for each in robust:
            each.moving = True
        with torch.no_grad():
            label = teacher.net(memory).softmax(dim=1)
        log_p = student.net(views(memory)).log_softmax(dim=1)
        age = torch.arange(len(came), 0, -1, dtype=torch.float64) / 1000
        weight = (-age).exp() / (1 + (-age).exp())
        loss = -(weight[:, None] * label * log_p).sum() / len(came)
        student.adam(student.norms(), student.gradients(loss, student.norms()), 1e-3)
        with torch.no_grad():
            for kept, new in zip(teacher.norms(), student.norms(), strict=True):
                kept.copy_(0.9 * kept + 0.1 * new)
        for each in robust:
            each.moving = False
    return student.net, teacher.net


@dataclass(frozen=True)
class Case:
    """``settings``: of our method, where they are not its defaults; ``passes``: over one batch;
    ``trains``: whether weights change.
    """

    method: str
    loop: Loop
    settings: dict[str, Any]
    passes: bool = False
    networks: tuple[str, ...] = tuple(NETWORKS)
    trains: bool = True


SMALL = {"epochs": STEPS}
VIEWS = {"augmentations": 2, "confidence_threshold": 1.0, "restore_probability": 0.0}
CODE = {"averaged": "logits", "prediction": "views"}
PAPER = {"trained": "all"}
CASES = {
    "tent": Case("tent", tent, {}),
    "pseudo-label": Case("pseudo-label", pseudo_label, {"threshold": 0.4}),
    "eata": Case(
        "eata", eata, {"entropy_share": 0.99, "similarity_bound": 1.99, "fisher_batch": 8}
    ),
    "sar as its code": Case(
        "sar", sar,
        {"learning_rate": 1e-2, "entropy_share": 0.6, "recovery_threshold": 0.0,
         "frozen_blocks": 0.0, "recovery": "faithful", "unreliable": "momentum"},
    ),
    "cotta": Case("cotta", cotta(False), {**VIEWS, **PAPER, "teacher_momentum": 0.9}),
    "cotta as its code": Case("cotta", cotta(True), {**VIEWS, **CODE, "teacher_momentum": 0.9}),
    "rotta": Case(
        "rotta", rotta, {"capacity": 1000, "update_every": BATCH, "teacher_rate": 0.1}
    ),
    "source-stats": Case("source-stats", source_stats, {}),
    "norm": Case("norm", norm(0), {}, networks=("BatchNorm",), trains=False),
    "norm with a prior": Case(
        "norm", norm(16), {"prior": 16}, networks=("BatchNorm",), trains=False
    ),
    "memo": Case("memo", memo(False), {"views": 8}, trains=False),
    "memo with AdamW": Case(
        "memo", memo(True), {"views": 8, "optimizer": "adamw", "learning_rate": 1e-3},
        trains=False,
    ),
    "t3a": Case("t3a", t3a, {"supports": 3}, trains=False),
    "lame": Case("lame", lame, {}, trains=False),
    "shot": Case("shot", shot, SMALL, passes=True),
    "feature-alignment": Case(
        "feature-alignment", alignment("feature-alignment"), SMALL, passes=True
    ),
    "source-fine-tune": Case("source-fine-tune", alignment("source-fine-tune"), SMALL, passes=True),
    "deep-coral": Case("deep-coral", alignment("deep-coral"), SMALL, passes=True),
    "dann": Case("dann", alignment("dann"), SMALL, passes=True),
    "cua": Case("cua", alignment("cua"), {**SMALL, "replay_weight": 0.5}, passes=True),
    "cua, the group's form": Case(
        "cua", alignment("cua-group"), {**SMALL, "replay_weight": 0.5, "form": "group"}, passes=True
    ),
}  # fmt: skip
RUNS = [(name, net) for name, case in CASES.items() for net in case.networks]


def adapted(case: Case, model: FoundationModel) -> Method:
    method_class = registry.load("method", case.method)
    method = method_class(method_class.Config(**case.settings))
    torch.manual_seed(7)
    method.prepare(model, view(BATCH if case.passes else 24, 9, labelled=True))
    if case.method in ("cotta", "rotta"):
        method.views = Tilted()
    if case.method == "memo":
        method.augmix = Fan()
    domain = view(BATCH if case.passes else BATCH * STEPS, 5)
    with Window(make_tracker([load_device("xavier-nx")], method.stored), 1e9) as window:
        method.adapt(domain, window)
    return method


def differences(name: str, net: str) -> tuple[float, float]:
    """Of the weights, as a share of the largest update, and of predictions, of the largest."""
    case, model = CASES[name], network(net)
    start = dict(copy.deepcopy(model.module).named_parameters())
    theirs, predict = case.loop(model)
    method = adapted(case, model)
    ours = dict(method.model.module.named_parameters())
    moved = apart = 0.0
    for key, weight in theirs.named_parameters():
        moved = max(moved, float((weight - start[key]).detach().abs().max()))
        apart = max(apart, float((weight - ours[key]).detach().abs().max()))
    assert (moved > 1e-5) == case.trains, "the loop trains nothing, or what it should not"
    x = images(BATCH, 3)[0]
    with torch.no_grad():
        expected, found = predict(x), method.predict(x)
    of_outputs = float((expected - found).abs().max() / expected.abs().max())
    return apart / moved if moved else apart, of_outputs


@pytest.mark.parametrize(("name", "net"), RUNS)
def test_five_updates_and_predictions_equal_a_plain_computation(name: str, net: str) -> None:
    weights, outputs = differences(name, net)
    assert weights < TOLERANCE
    assert outputs < TOLERANCE


def table() -> str:
    """The rows of docs/explanation/faithfulness.md."""
    lines = ["| method | network | weights | predictions | settings |", "|---|---|---|---|---|"]
    for name, net in RUNS:
        weights, outputs = differences(name, net)
        given = ", ".join(f"`{k}: {v}`" for k, v in CASES[name].settings.items()) or "defaults"
        lines.append(f"| {name} | {net} | {weights:.0e} | {outputs:.0e} | {given} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
