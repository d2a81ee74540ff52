"""Seeds under which equal runs give equal results."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def seed_everything(seed: int) -> None:
    """Seed every global generator that a method may draw from; a fork inherits their state."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def as_in_a_run() -> Iterator[None]:
    """One thread and deterministic kernels, as in a run; torch is left as it was found."""
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)
