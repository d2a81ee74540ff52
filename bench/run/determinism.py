"""Seeds under which equal runs give equal results."""

from __future__ import annotations


def seed_everything(seed: int) -> None:
    """Seed every global generator that a method may draw from; a fork inherits their state."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
