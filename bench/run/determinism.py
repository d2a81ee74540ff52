"""Seeds and settings under which equal runs give equal results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def seed_everything(seed: int) -> None:
    """Every generator that a method may draw from; a forked process inherits numpy's state."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
