"""A stream in one file: two classes of points on a line, and a domain where all have moved."""

from __future__ import annotations

import zlib

import torch

from bench import Stream, register
from bench.contracts.stream import Domain, Split, StreamConfig

POSITIONS = {"source": 0.0, "near": 0.0, "far": 10.0}


class LineConfig(StreamConfig):
    """Samples in each split."""

    samples: int = 64


@register("stream", "toy-line")
class Line(Stream):
    """Class 0 lies left of the domain's position, class 1 right of it; ``far`` has moved."""

    Config = LineConfig
    classes = 2
    input_shape = (2,)

    @classmethod
    def data_digest(cls, config):
        return "line"

    def source(self):
        return self.domain("source")

    def domain_names(self):
        return ("near", "far")

    def domain(self, name):
        def split(part):
            seed = 0 if name == "source" else self.seed
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}{name}{part}".encode()))
            y = torch.arange(self.config.samples) % 2
            side = 2 * y - 1 + 0.2 * torch.randn(len(y), generator=generator)
            position = side + POSITIONS[name]
            return Split(torch.stack([position, torch.ones(len(y))], dim=1), y)

        return Domain(name, split("adaptation"), split("test"))
