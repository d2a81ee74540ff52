"""Resident memory of a process as a function of its live memory, fitted to synthetic networks.

A process takes more than its live tensors: freed memory is kept and fragments, and libraries need
scratch space, most of all for convolutions. The peak is modelled as ``stored`` x live bytes at the
step's beginning + ``step`` x bytes that it adds + ``convolution`` x bytes of its largest
convolution + ``added`` bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.calibration.optimizer_steps import TransformerBlock
from bench.calibration.step_timer import Watch
from bench.costs import process_memory as memory

CLASSES = 10
REPEATS = 7
"""Steps over which the peak is taken: as many as in a check, since fragmentation grows."""


@dataclass(frozen=True)
class Network:
    """A synthetic network and the step that is taken with it.

    ``kind``: ``tokens`` (a transformer), ``words`` (one with 30,000 embeddings and dropout),
    ``maps`` (convolutions) or ``inverted`` (narrow layers, widened for depthwise convolutions).
    ``trained``: ``all`` weights by AdamW, those of ``norms``, of low-rank ``adapters`` of query,
    key and value, or ``none``: inference. ``width`` of a token or of the first feature map.
    """

    kind: str
    width: int
    depth: int
    batch: int
    trained: str

    @property
    def name(self) -> str:
        """Its description, for progress and errors."""
        return f"{self.kind} {self.width}x{self.depth}, batch {self.batch}, {self.trained} trained"

    def build(self) -> tuple[nn.Module, Tensor]:
        """The network and its inputs."""
        if self.kind in ("maps", "inverted"):
            module = _maps(self.width, self.depth, self.kind == "inverted")
            return module, torch.rand(self.batch, 3, 128, 128)
        dropout = 0.1 if self.kind == "words" else 0.0
        blocks = nn.Sequential(
            *[TransformerBlock(self.width, 4, dropout) for _ in range(self.depth)]
        )
        head = nn.Linear(self.width, CLASSES)
        if self.kind == "words":
            words = torch.randint(30_000, (self.batch, 64))
            return nn.Sequential(nn.Embedding(30_000, self.width), blocks, _Mean(), head), words
        return nn.Sequential(blocks, _Mean(), head), torch.rand(self.batch, 196, self.width)


NETWORKS = tuple(
    Network(kind, width, depth, batch, trained)
    for kind, width, depth, batch in (
        ("tokens", 192, 12, 8), ("tokens", 768, 4, 2), ("words", 256, 4, 8), ("words", 768, 3, 8),
        ("maps", 32, 2, 8), ("maps", 64, 3, 8), ("inverted", 24, 3, 8),
    )
    for trained in ("none", "all", "norms", "adapters")
    if trained != "adapters" or kind in ("tokens", "words")
)  # fmt: skip
QUICK_NETWORKS = tuple(
    Network(kind, width, 2, 8, trained)
    for kind, width in (("tokens", 256), ("maps", 32))
    for trained in ("none", "all")
)
"""Fewer networks, for a rough profile."""


class _Adapted(nn.Module):
    """A linear layer with low-rank adapters, one pair for each third of its rows."""

    RANK = 8

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        rows, width = base.weight.shape
        self.down = nn.ParameterList(torch.rand(self.RANK, width) for _ in range(3))
        self.up = nn.ParameterList(torch.zeros(rows // 3, self.RANK) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        terms = [x @ a.t() @ b.t() for a, b in zip(self.down, self.up, strict=True)]
        out: Tensor = self.base(x) + 0.5 * torch.cat(terms, dim=-1)
        return out


def freeze(module: nn.Module, trained: str) -> None:
    """Make only the weights trainable that ``trained`` names; adapters are inserted first."""
    if trained == "all":
        return
    module.requires_grad_(False)
    for layer in list(module.modules()):
        if trained == "norms" and isinstance(layer, nn.LayerNorm | nn.BatchNorm2d):
            layer.requires_grad_(True)
        elif trained == "adapters" and isinstance(layer, TransformerBlock):
            layer.qkv = _Adapted(layer.qkv)  # type: ignore[assignment]


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def _maps(width: int, depth: int, inverted: bool) -> nn.Module:
    """Convolutions in four levels, each of half the side and twice the channels."""
    layers: list[nn.Module] = []
    channels = 3
    for level in range(4):
        for i in range(depth):
            out, stride, wide = width * 2**level, 2 if i == 0 else 1, 6 * channels
            if inverted and channels > 3:
                layers += _convolution(channels, wide, 1, 1)
                layers += _convolution(wide, wide, 3, stride, groups=wide)
                layers += _convolution(wide, out, 1, 1)
            else:
                layers += _convolution(channels, out, 3, stride)
            channels = out
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    return nn.Sequential(*layers, *head)


def _convolution(
    channels: int, out: int, kernel: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def warm_runtime(accelerator: str) -> None:
    """Load what a first training step loads, so that it counts as runtime memory.

    Optimizers import torch's compiler, and kernels initialize their libraries.
    """
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 128))
    net.to(accelerator)
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        out = net(torch.rand(4, 8, 6, 6, device=accelerator)).view(4, 2, 8, 8)
        nn.functional.scaled_dot_product_attention(out, out, out).sum().backward()
        optimizer.step()
    memory.long_run()
    memory.settle(accelerator)


def measured_network(request: dict[str, Any]) -> dict[str, Any]:
    """Live and resident bytes at the peak of one network's step, measured in this process."""
    accelerator = request["accelerator"]
    torch.manual_seed(0)
    warm_runtime(accelerator)
    runtime = memory.held_bytes(accelerator)
    network = Network(**request["network"])
    module, x = network.build()
    module, x = module.to(accelerator), x.to(accelerator)
    y = torch.zeros(network.batch, dtype=torch.int64, device=accelerator)
    freeze(module, network.trained)
    training = network.trained != "none"
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained) if training else None

    def step() -> None:
        if optimizer is None:
            with torch.no_grad():
                module(x)
            return
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    module.train(training)
    watch = Watch(REPEATS, accelerator)  # for its memory alone
    while not watch.done:
        with watch.step(lambda: [module, optimizer, x, y]):
            step()
    trace = watch.seen.trace
    return {
        "stored": trace.resident_bytes,
        "step": trace.peak_bytes - trace.resident_bytes,
        "convolution": max((c[4] for c in trace.details if c[1] == "convolution"), default=0.0),
        "resident": watch.seen.peak_bytes - runtime,
        "runtime": runtime,
    }


@dataclass(frozen=True)
class Footprint:
    """Resident memory: ``runtime`` bytes at the start, the model, ``worst`` relative error."""

    runtime: float
    stored: float
    step: float
    convolution: float
    added: float
    worst: float


Run = Callable[[dict[str, Any]], dict[str, Any]]
"""Measures what a request names in a fresh process."""


def measure_footprint(
    run: Run,
    accelerator: str,
    networks: Sequence[Network],
    progress: Callable[[str], None] = lambda text: None,
) -> Footprint:
    """The footprint fitted to steps of the networks, each measured in its own process."""
    answers = []
    for i, each in enumerate(networks):
        progress(f"memory {i + 1}/{len(networks)}: {each.name}")
        request = {"what": each.name, "network": asdict(each), "accelerator": accelerator}
        answers.append(run(request))
    seen = [(a["stored"], a["step"], a["convolution"], a["resident"]) for a in answers]
    return fitted(min(a["runtime"] for a in answers), seen)


def fitted(runtime: float, seen: Sequence[tuple[float, float, float, float]]) -> Footprint:
    """The footprint with the least relative squared error.

    ``seen``: for each step the bytes stored, added, of the largest convolution, and resident.
    Live memory is resident: ``stored`` and ``step`` are at least 1, the others at least 0.
    """
    import numpy as np
    from scipy.optimize import nnls

    held = np.array(seen, dtype=float)[:, 3:]
    parts = np.array([(*row[:3], 1.0) for row in seen]) / held
    live = np.array([1.0, 1.0, 0.0, 0.0])
    more, _ = nnls(parts, np.maximum(1 - parts @ live, 0.0))
    of_stored, of_step, largest, added = (float(value) for value in live + more)
    worst = float(np.abs(parts @ (live + more) - 1).max())
    return Footprint(runtime, of_stored, of_step, largest, added, worst)
