"""How many multiply-accumulates a training step takes, and how many blocks a budget links.

The published count: matrices and attention of blocks, the logits, and in the backward pass the
gradients of inputs alone, through the linked blocks and the logits. Aligners, the gradients of
weights, normalizations and activations are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import BenchError


@dataclass(frozen=True)
class Transformer:
    """``blocks`` of a ``width`` over so many ``tokens``; inner width four times the width."""

    blocks: int
    width: int
    tokens: int

    @property
    def block(self) -> int:
        """Forward multiply-accumulates of one block for one sample."""
        return 12 * self.tokens * self.width**2 + 2 * self.tokens**2 * self.width

    @property
    def forward(self) -> int:
        """Those of all blocks."""
        return self.blocks * self.block


@dataclass(frozen=True)
class Workload:
    """A decoder, the multiply-accumulates of its logits, and of its encoders, for one sample."""

    decoder: Transformer
    logits: int
    encoders: int

    @property
    def forward(self) -> int:
        """Forward pass of one sample."""
        return self.decoder.forward + self.logits + self.encoders

    def step(self, linked: int) -> int:
        """Forward pass, and backward pass through the logits and the last ``linked`` blocks."""
        return self.forward + self.logits + linked * self.decoder.block

    @property
    def full(self) -> int:
        """Of training everything: three forward passes."""
        return 3 * self.forward


def encoder(body: Transformer, patch: int) -> int:
    """Forward multiply-accumulates of a vision transformer; ``patch``: numbers in one patch.

    As published, the embedding of one patch is in it, not those of all.
    """
    return body.forward + patch * body.width


def linked_blocks(work: Workload, budget: float) -> int:
    """The most blocks within ``budget``, a share of full training; BenchError if not even one fits.

    The published rule rounds to the nearest number and takes one block where none fits.
    """
    left = budget * work.full - work.forward - work.logits
    found = min(int(left // work.decoder.block), work.decoder.blocks) if left > 0 else 0
    if found < 1:
        raise BenchError(
            f"budget {budget:g}: linking one block takes {work.step(1) / work.full:.4f} of full "
            "training; give that or more"
        )
    return found


def published_blocks(work: Workload, budget: float) -> int:
    """The published rule: rounded, and from 1 to all blocks whatever the budget is."""
    left = budget * work.full - work.forward - work.logits
    return min(max(round(left / work.decoder.block), 1), work.decoder.blocks)
