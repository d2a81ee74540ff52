"""Networks that a calibration runs: too small to compute anything, or to measure memory with."""

from typing import Callable, List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from bench.probe.cases import attention
from bench.probe.timing import Call, Pool

BLOCKS = 12
"""Of a network with negligible arithmetic: a transformer's, or convolutions with normalization."""
CLASSES = 10


class TransformerBlock(nn.Module):
    """A transformer's block with fused query, key and value, normalized beforehand."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide = 4 * width
        self.feed_forward = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of shape (n, tokens, width)."""
        n, tokens, width = x.shape
        parts = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        share = self.dropout if self.training else 0.0
        mixed = attention(q, k, v, dropout_p=share)
        x = x + self._dropped(self.out(mixed.transpose(1, 2).reshape(n, tokens, width)))
        return x + self._dropped(self.feed_forward(self.behind(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x


class Dispatch(NamedTuple):
    """A forward pass, with ``train`` also the backward pass, of a network of minimal width."""

    kind: str
    train: bool

    @property
    def name(self) -> str:
        """What it is, for progress and errors."""
        return f"dispatch of {self.kind}, {'training' if self.train else 'inference'}"

    def calls(self, pool: Pool) -> List[Call]:
        """The pass, on one network."""
        layers: List[nn.Module] = []
        for _ in range(BLOCKS):
            if self.kind == "transformer":
                layers.append(TransformerBlock(8, 2))
            else:
                block = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
                layers.append(nn.Sequential(*block))
        x = pool.take(1, 4, 8) if self.kind == "transformer" else pool.take(1, 8, 2, 2)
        net = nn.Sequential(*layers).to(pool.accelerator)
        net.train(self.train)

        def run() -> None:
            if not self.train:
                net(x)
                return
            with torch.enable_grad():
                net.zero_grad()
                net(x).sum().backward()

        run()
        return [run]


DISPATCHES = tuple(
    Dispatch(kind, train) for kind in ("transformer", "convolutions") for train in (False, True)
)


class Network(NamedTuple):
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

    def build(self) -> Tuple[nn.Module, Tensor]:
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


class _Adapted(nn.Module):
    """A linear layer with low-rank adapters, one pair for each third of its rows."""

    RANK = 8

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        rows, width = base.weight.shape
        self.down = nn.ParameterList([nn.Parameter(torch.rand(self.RANK, width)) for _ in range(3)])
        self.up = nn.ParameterList(
            [nn.Parameter(torch.zeros(rows // 3, self.RANK)) for _ in range(3)]
        )

    def forward(self, x: Tensor) -> Tensor:
        terms = [x @ a.t() @ b.t() for a, b in zip(self.down, self.up)]
        out: Tensor = self.base(x) + 0.5 * torch.cat(terms, dim=-1)
        return out


def freeze(module: nn.Module, trained: str) -> None:
    """Make only the weights trainable that ``trained`` names; adapters are inserted first."""
    if trained == "all":
        return
    module.requires_grad_(False)
    for layer in list(module.modules()):
        if trained == "norms" and isinstance(layer, (nn.LayerNorm, nn.BatchNorm2d)):
            layer.requires_grad_(True)
        elif trained == "adapters" and isinstance(layer, TransformerBlock):
            layer.qkv = _Adapted(layer.qkv)  # type: ignore[assignment]


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def _maps(width: int, depth: int, inverted: bool) -> nn.Module:
    """Convolutions in four levels, each of half the side and twice the channels."""
    layers: List[nn.Module] = []
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
) -> List[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def training_step(network: Network, module: nn.Module, x: Tensor) -> Tuple[Callable, List]:
    """A step of the network that trains what it says, and what the step keeps between calls."""
    y = torch.zeros(network.batch, dtype=torch.int64, device=x.device)
    freeze(module, network.trained)
    training = network.trained != "none"
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained) if training else None
    module.train(training)

    def step() -> None:
        if optimizer is None:
            with torch.no_grad():
                module(x)
            return
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, [module, optimizer, x, y]


def first_training_step(accelerator: str) -> None:
    """Load what a first training step loads, so that it counts as runtime memory.

    Optimizers import torch's compiler, and kernels initialize their libraries.
    """
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 128))
    net.to(accelerator)
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        out = net(torch.rand(4, 8, 6, 6, device=accelerator)).view(4, 2, 8, 8)
        attention(out, out, out).sum().backward()
        optimizer.step()
