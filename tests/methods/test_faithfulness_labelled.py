"""Updates of the labelled methods against plain loops, on a LayerNorm ViT and a BatchNorm ResNet.

A source of two classes and two domains of two new ones each, a batch and three passes a domain, the
methods' defaults but for strengths that show. Memories hold everything, and batches of them are
all of it, so that only joint training draws. The loops are written from the papers' equations and
from what the authors' code does: torch's networks, gradients and optimizers, no code of the
methods. The classes that a loss covers are cut out of the logits. Run as a program, this file
prints the table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.run.window import Window

CLASSES, SIZE, SAMPLES, PASSES, RATE = 6, 16, 12, 3, 1e-3
BATCH = 100
"""Larger than a domain and than all memories: every draw is of everything."""
NETWORKS = {
    "LayerNorm": ("digits-vit", {"width": 16, "depth": 2, "heads": 2}),
    "BatchNorm": ("digits-resnet", {"width": 4}),
}
TOLERANCE = 1e-6
Domain = tuple[Tensor, Tensor]


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
        for name, values in model.module.named_buffers():
            if name.endswith("running_mean"):
                values += 0.1 * torch.randn_like(values)
    return model


def domains() -> list[Domain]:
    """The source and two domains; a third of each has the inputs of the source."""
    found = []
    for place in range(3):
        draw = torch.Generator().manual_seed(place)
        x = torch.rand(SAMPLES, 1, SIZE, SIZE, generator=draw, dtype=torch.float64)
        if found:
            x[::3] = found[0][0][::3]
        found.append((x, torch.arange(SAMPLES) % 2 + 2 * place))
    return found


def adapted(name: str, settings: dict[str, Any], model: FoundationModel) -> Method:
    """Our side: the method after the source and both domains."""
    method_class = registry.load("method", name)
    shared = {"learning_rate": RATE, "epochs": PASSES}
    method: Method = method_class(method_class.Config(**{**shared, **settings}))
    views = [
        DomainView(str(place), *domain, BATCH, torch.Generator().manual_seed(place))
        for place, domain in enumerate(domains())
    ]
    torch.manual_seed(7)
    method.prepare(model, views[0])
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    for view in views[1:]:
        with Window(tracker, 1e9) as window:
            method.adapt(view, window)
    return method


class Plain:
    """The authors' side: a network, what of it is trained, a new AdamW for each domain."""

    def __init__(self, model: FoundationModel) -> None:
        self.net = copy.deepcopy(model.module)
        self.head = self.net.get_submodule(model.head_name)
        self.trained = list(self.net.parameters())
        self.begin()

    def begin(self) -> None:
        self.optimizer = torch.optim.AdamW(self.trained, lr=RATE)
        self.net.train()

    def steps(self) -> Iterator[tuple[int, Domain]]:
        """Number of the domain and its batch, three times each, a new optimizer at its start."""
        for place, domain in enumerate(domains()[1:], 1):
            self.begin()
            for _ in range(PASSES):
                yield place, domain

    def gradient(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self.trained, allow_unused=True)
        return [
            torch.zeros_like(w) if g is None else g
            for w, g in zip(self.trained, found, strict=True)
        ]

    def step(self, gradients: Sequence[Tensor]) -> None:
        for weight, gradient in zip(self.trained, gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()

    def weights(self) -> list[Tensor]:
        return [w.detach().clone() for w in self.trained]


def own(place: int) -> list[int]:
    """The classes of a domain."""
    return [2 * place, 2 * place + 1]


def seen(place: int) -> list[int]:
    return list(range(2 * place + 2))


def ce(logits: Tensor, y: Tensor, classes: Sequence[int] | None = None) -> Tensor:
    """Cross-entropy among ``classes`` alone, the others cut off."""
    if classes is None:
        return cross_entropy(logits, y)
    return cross_entropy(logits[:, list(classes)], torch.tensor([classes.index(c) for c in y]))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def like(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


Loop = Callable[[FoundationModel], Plain]


def fine_tune(covered: Callable[[int], list[int] | None], part: str = "all") -> Loop:
    def loop(model: FoundationModel) -> Plain:
        plain = Plain(model)
        named = dict(plain.net.named_parameters())
        head = {id(p) for p in plain.head.parameters()}
        if part == "head":
            plain.trained = [p for p in plain.trained if id(p) in head]
        if part == "biases":
            plain.trained = [
                p for name, p in named.items() if name.endswith("bias") or id(p) in head
            ]
        for place, (x, y) in plain.steps():
            if part == "head":
                plain.net.eval()
            plain.step(plain.gradient(ce(plain.net(x), y, covered(place))))
        return plain

    return loop


def penalised(importance: Callable[[Plain, int], list[Tensor]], strength: float) -> Loop:
    """CE of the task + strength sum_i Omega_i (w_i - w*_i)^2, Omega summed, w* the last weights."""

    def loop(model: FoundationModel) -> Plain:
        plain = Plain(model)
        omega, anchor, last = importance(plain, 0), plain.weights(), 1
        for place, (x, y) in plain.steps():
            if place > last:
                omega = [a + b for a, b in zip(omega, importance(plain, last), strict=True)]
                anchor, last = plain.weights(), place
                plain.net.train()
            task = plain.gradient(ce(plain.net(x), y, own(place)))
            with torch.no_grad():
                pull = [
                    2 * strength * o * (w - a)
                    for o, w, a in zip(omega, plain.trained, anchor, strict=True)
                ]
            plain.step([g + p for g, p in zip(task, pull, strict=True)])
        return plain

    return loop


def fisher(plain: Plain, place: int) -> list[Tensor]:
    """Mean over samples of the squared gradient of each one's CE over the classes seen."""
    plain.net.eval()
    x, y = domains()[place]
    total = [torch.zeros_like(w) for w in plain.trained]
    for i in range(SAMPLES):
        gradients = plain.gradient(ce(plain.net(x[i : i + 1]), y[i : i + 1], seen(place)))
        total = [t + g**2 / SAMPLES for t, g in zip(total, gradients, strict=True)]
    return total


def sensitivity(plain: Plain, place: int) -> list[Tensor]:
    """Mean over samples of the absolute gradient of the outputs' squared length."""
    plain.net.eval()
    total = [torch.zeros_like(w) for w in plain.trained]
    for row in domains()[place][0]:
        gradients = plain.gradient((plain.net(row.unsqueeze(0)) ** 2).sum())
        total = [t + g.abs() / SAMPLES for t, g in zip(total, gradients, strict=True)]
    return total


def si(model: FoundationModel) -> Plain:
    """Omega += max(0, sum_t -g_t dw_t / (dw^2 + xi)), cut after the sum; c, xi = 3, 0.01."""
    plain = Plain(model)
    start = copy.deepcopy(plain.net.state_dict())
    omega = torch.zeros_like(flat(plain.weights()))
    path, anchor, last = torch.zeros_like(omega), flat(plain.weights()), 1

    def step(place: int, x: Tensor, y: Tensor) -> None:
        task = flat(plain.gradient(ce(plain.net(x), y, own(place))))
        before = flat(plain.weights())
        plain.step(like(task + 2 * 3.0 * omega * (before - anchor), plain.trained))
        path.sub_(task * (flat(plain.weights()) - before))

    def consolidate() -> None:
        nonlocal anchor
        reached = flat(plain.weights())
        omega.add_(path / ((reached - anchor) ** 2 + 0.01)).clamp_(min=0)
        path.zero_()
        anchor = reached

    step(0, *domains()[0])  # the source's path is walked to measure it, and walked back
    consolidate()
    plain.net.load_state_dict(start)
    anchor = flat(plain.weights())
    for place, (x, y) in plain.steps():
        if place > last:
            consolidate()
            last = place
        step(place, x, y)
    return plain


def lwf(model: FoundationModel) -> Plain:
    """CE of the task - sum_c q_c log p_c on the earlier classes, at temperature 2."""
    plain = Plain(model)
    teacher, last = copy.deepcopy(plain.net).eval(), 1
    for place, (x, y) in plain.steps():
        if place > last:
            teacher, last = copy.deepcopy(plain.net).eval(), place
        old = seen(place - 1)
        with torch.no_grad():
            q = (teacher(x)[:, old] / 2).exp()
        logits = plain.net(x)
        p = (logits[:, old] / 2).exp()
        p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
        plain.step(plain.gradient(ce(logits, y, own(place)) - (q * p.log()).sum(dim=1).mean()))
    return plain


def gem(model: FoundationModel) -> Plain:
    """min_v |M^T v + g|^2 + ridge over v >= 0.5, memories' losses over their own classes."""
    plain = Plain(model)
    for place, (x, y) in plain.steps():
        rows = []
        for k, (old_x, old_y) in enumerate(domains()[:place]):
            rows.append(flat(plain.gradient(ce(plain.net(old_x), old_y, own(k)))))
        memories = torch.stack(rows)
        g = flat(plain.gradient(ce(plain.net(x), y, own(place))))
        if (memories @ g < 0).any():
            quadratic = (memories @ memories.T + 1e-3 * torch.eye(place)).numpy()
            root = np.linalg.cholesky(quadratic).T
            aim = -np.linalg.solve(root.T, (memories @ g).numpy())
            v = lsq_linear(root, aim, (0.5, np.inf), method="bvls", tol=1e-14).x
            g = g + torch.from_numpy(v) @ memories
        plain.step(like(g, plain.trained))
    return plain


def a_gem(model: FoundationModel) -> Plain:
    """g - (g r / r r) r where g r < 0, r over the whole memory, each sample among its classes."""
    plain = Plain(model)
    for place, (x, y) in plain.steps():
        old = domains()[:place]
        logits = plain.net(torch.cat([each[0] for each in old])).split(SAMPLES)
        losses = [
            ce(z, each[1], own(k)) for k, (z, each) in enumerate(zip(logits, old, strict=True))
        ]
        r = flat(plain.gradient(sum(losses[1:], losses[0]) / place))
        g = flat(plain.gradient(ce(plain.net(x), y, own(place))))
        if g @ r < 0:
            g = g - (g @ r) / (r @ r) * r
        plain.step(like(g, plain.trained))
    return plain


def replay(model: FoundationModel) -> Plain:
    """CE over the domain's batch and the memory together."""
    plain = Plain(model)
    for place, _ in plain.steps():
        x, y = (torch.cat(part) for part in zip(*domains()[: place + 1], strict=True))
        plain.step(plain.gradient(ce(plain.net(x), y)))
    return plain


def dark(separate: bool) -> Loop:
    """CE + alpha mean (f - z)^2 + beta CE on the memory, one pass for each batch or one for both.

    z: the outputs when their domain had been learned.
    """

    def loop(model: FoundationModel) -> Plain:
        plain = Plain(model)
        kept: list[Tensor] = []
        for place, (x, y) in plain.steps():
            if place > len(kept):
                plain.net.eval()
                with torch.no_grad():
                    kept.append(plain.net(domains()[place - 1][0]))
                plain.net.train()
            old_x, old_y = (torch.cat(part) for part in zip(*domains()[:place], strict=True))
            if separate:
                new, old = plain.net(x), plain.net(old_x)
            else:
                new, old = plain.net(torch.cat([x, old_x])).split([len(x), len(old_x)])
            loss = ce(new, y) + 0.1 * mse_loss(old, torch.cat(kept)) + 0.5 * ce(old, old_y)
            plain.step(plain.gradient(loss))
        return plain

    return loop


def joint(model: FoundationModel) -> Plain:
    """CE over as many samples of the union as the batch has, drawn as the method draws them."""
    plain = Plain(model)
    draw = torch.Generator().manual_seed(7)
    for place, (x, _) in plain.steps():
        union = [torch.cat(part) for part in zip(*domains()[: place + 1], strict=True)]
        chosen = torch.randperm(len(union[0]), generator=draw)[: len(x)]
        plain.step(plain.gradient(ce(plain.net(union[0][chosen]), union[1][chosen])))
    return plain


def everything(place: int) -> None:
    """All outputs are covered."""


LOOPS: dict[str, tuple[str, dict[str, Any], Loop, str]] = {
    "fine-tune": ("fine-tune", {}, fine_tune(everything), "CE over all outputs (mammoth)"),
    "fine-tune, seen": (
        "fine-tune", {"loss_classes": "seen"}, fine_tune(seen), "CE over the classes seen",
    ),
    "fine-tune, task": (
        "fine-tune", {"loss_classes": "task"}, fine_tune(own), "CE over the task's classes (FACIL)",
    ),
    "linear-probe": ("linear-probe", {}, fine_tune(everything, "head"), "the head alone"),
    "bias-only": ("bias-only", {}, fine_tune(everything, "biases"), "biases and head"),
    "ewc": (
        "ewc", {"penalty": 100.0}, penalised(fisher, 100.0), "Fisher of each sample, seen classes",
    ),
    "mas": ("mas", {"penalty": 1.0}, penalised(sensitivity, 1.0), "Omega of each sample, summed"),
    "si": ("si", {"penalty": 3.0, "damping": 0.01}, si, "paper, Omega cut at 0 after the sum"),
    "lwf": ("lwf", {}, lwf, "task's CE + distillation on earlier classes, T = 2"),
    "gem": ("gem", {}, gem, "the authors' program, losses over each task's classes"),
    "a-gem": ("a-gem", {}, a_gem, "eq. (11), losses over each task's classes"),
    "replay": ("replay", {}, replay, "mammoth's ER"),
    "der++": ("der++", {}, dark(separate=True), "separate passes (authors)"),
    "der++, joint": (
        "der++", {"passes": "joint"}, dark(separate=False),
        "one pass (Avalanche)",
    ),
    "joint": ("joint", {}, joint, "CE over batches of the union"),
}  # fmt: skip


def difference(row: str, norm: str) -> float:
    """Largest difference of a weight, as a share of the largest update."""
    name, settings, loop, _ = LOOPS[row]
    model = network(norm)
    start = [p.detach().clone() for p in model.module.parameters()]
    plain = [p.detach() for p in loop(model.clone()).net.parameters()]
    ours = [p.detach() for p in adapted(name, settings, model).model.module.parameters()]
    moved = max(float((p - s).abs().max()) for p, s in zip(plain, start, strict=True))
    apart = max(float((p - q).abs().max()) for p, q in zip(ours, plain, strict=True))
    return apart / moved


def pairs() -> list[Any]:
    """All loops on LayerNorm; of those on BatchNorm, where passes matter, most are slow tests."""
    always = ("fine-tune", "ewc", "der++")
    return [
        pytest.param(
            row, norm, marks=[] if norm == "LayerNorm" or row in always else [pytest.mark.slow]
        )
        for row in LOOPS
        for norm in NETWORKS
    ]


@pytest.mark.parametrize(("row", "norm"), pairs())
def test_updates_equal_the_plain_loop(row: str, norm: str) -> None:
    assert difference(row, norm) < TOLERANCE


@pytest.mark.parametrize("norm", NETWORKS)
def test_the_measure_sees_what_it_should(norm: str) -> None:
    """Other classes in the loss, and a memory's batch in the domain's pass, are other updates."""
    assert apart("lwf", "loss_classes", "all", norm) > 0.1
    assert (apart("der++", "passes", "joint", norm) > 0.1) == (norm == "BatchNorm")


def apart(name: str, setting: str, value: str, norm: str) -> float:
    """How far a setting takes the weights from where the defaults do."""
    made = [
        adapted(name, settings, network(norm)).model.module.parameters()
        for settings in ({}, {setting: value})
    ]
    pairs = zip(*made, strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs) / RATE


def table() -> str:
    """The largest differences, in Markdown."""
    lines = ["| method | compared with | " + " | ".join(NETWORKS) + " |"]
    lines.append("|---|---|" + "---|" * len(NETWORKS))
    for row, (_, _, _, source) in LOOPS.items():
        numbers = " | ".join(f"{difference(row, norm):.0e}" for norm in NETWORKS)
        lines.append(f"| {row} | {source} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
