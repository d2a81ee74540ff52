"""Which samples of a domain arrive, in which order, and what a method receives of them."""

from __future__ import annotations

import zlib

import torch

from bench.contracts.data import DomainView, subset
from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain, Split


def arrivals(domain: Domain, protocol: ProtocolConfig, seed: int) -> tuple[Split, torch.Generator]:
    """The samples that arrive of a domain, in their own or the seed's order, and the generator that
    drew it.
    """
    generator = torch.Generator()
    generator.manual_seed(zlib.crc32(f"{seed}/{domain.name}/batches".encode()))
    n = len(domain.adaptation)
    drawn = torch.randperm(n, generator=generator)
    order = torch.arange(n) if domain.ordered else drawn
    chosen = order[: protocol.samples or n]
    return Split(subset(domain.adaptation.x, chosen), domain.adaptation.y[chosen]), generator


def target_view(
    domain: Domain, protocol: ProtocolConfig, labelled: bool, seed: int, least_batch: int = 1
) -> DomainView:
    """What a method receives of a target domain: no test split, and labels only if ``labelled``."""
    arrived, generator = arrivals(domain, protocol, seed)
    y = arrived.y if labelled else None
    batch_size = protocol.batch_size
    return DomainView(domain.name, arrived.x, y, batch_size, generator, least_batch=least_batch)
