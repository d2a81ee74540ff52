"""Memory for operands: parts of one large block of random numbers, so that none has to be made.

Consecutive parts lie behind each other and come around after the whole block, which is larger
than the caches: a part that was used a while ago is read from memory, as in a step.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CACHE_BYTES = 32 * 2**20
"""Taken for the last cache where the system does not tell."""
ALIGN = 64
"""Numbers between the starts of parts: whole cache lines."""
SETS = 32
"""Most sets of operands that are used in turn."""


class Pool:
    """Random numbers in [0.5, 1), of one data type on one accelerator.

    Parameters
    ----------
    accelerator : "cpu" or "cuda"
    size : bytes of the block
    cache_bytes : of the last cache; operands in turn take at least twice as much
    """

    def __init__(self, accelerator: str, size: int, cache_bytes: int) -> None:
        import torch

        self.accelerator = accelerator
        self.cache_bytes = cache_bytes
        generator = torch.Generator(accelerator).manual_seed(0)
        self._block = torch.rand(size // 4, generator=generator, device=accelerator)
        self._block.div_(2).add_(0.5)
        self._typed = {torch.float32: self._block}
        self._next = 0

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return self._block.numel() * 4

    def take(self, *shape: int, dtype: str = "float32") -> Tensor:
        """The next part, contiguous; its values are shared with earlier parts."""
        block = self._of(dtype)
        count = math.prod(shape)
        if self._next + count > block.numel():
            self._next = 0
        part = block[self._next : self._next + count].view(shape)
        self._next += math.ceil(count / ALIGN) * ALIGN
        return part

    def own(self, *shape: int, dtype: str = "float32") -> Tensor:
        """A tensor of its own, for work that changes it."""
        return self.take(*shape, dtype=dtype).clone()

    def sets(self, cold_bytes: float) -> int:
        """How many sets of operands of so many bytes take turns, so that each is cold again."""
        wanted = math.ceil(2 * self.cache_bytes / max(cold_bytes, 1.0))
        fitting = int(self.size // max(cold_bytes, 1.0))
        return max(min(wanted, fitting, SETS), 1)

    def _of(self, dtype: str) -> Tensor:
        import torch

        kind = getattr(torch, dtype)
        if kind not in self._typed:
            self._typed[kind] = self._block[: self._block.numel() // 2].to(kind)
        return self._typed[kind]


def cache_bytes(accelerator: str) -> int:
    """Bytes of the last cache."""
    if accelerator != "cpu":
        import torch

        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    found = [_size(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(found, default=CACHE_BYTES)


def _size(path: Path) -> int:
    try:
        text = path.read_text().strip()
        return int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1)
    except (OSError, ValueError):
        return 0
