"""Settings and seeds under which equal runs give equal results."""

from __future__ import annotations

import functools
import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Read when cuBLAS starts: without it equal products may differ in rounding."""


def seed_everything(seed: int) -> None:
    """Seed every global generator that a method may draw from; a fork inherits their state."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device_of(kind: str) -> torch.device:
    """Torch's device of ``cpu`` or ``cuda``, ready for use.

    Of several GPUs it is the first that the process sees. There matrix products have full single
    precision (no TF32), and convolutions take the same algorithm in each run.
    """
    import torch

    if kind == "cuda":
        os.environ.update(WORKSPACE)  # in case that nothing has used cuBLAS yet
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        make_attention_repeat()
        torch.cuda.init()
    return torch.device(kind)


def make_attention_repeat() -> None:
    """Make the backward pass of torch's fused attention repeat exactly from now on.

    It has an algorithm that does, but takes it only where no other operator may do without one
    (``warn_only=False``), and some have none: so that holds for its own node of the graph alone.
    """
    import torch
    from torch.nn import functional

    fused = functional.scaled_dot_product_attention
    if hasattr(fused, "__wrapped__"):
        return

    def strict(*_: object) -> None:
        torch.use_deterministic_algorithms(True)

    def lenient(*_: object) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    @functools.wraps(fused)
    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = fused(*args, **kwargs)
        if (node := made.grad_fn) is not None and node.name().startswith("ScaledDotProduct"):
            node.register_prehook(strict)
            node.register_hook(lenient)
        return made

    functional.scaled_dot_product_attention = attention


def run_settings(kind: str = "cpu", threads: int = 1) -> None:
    """Settings of this process for a run: CPU threads, and kernels that give equal results."""
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device_of(kind)


def reseed_cuda(seed: int) -> None:
    """Seed the generator of CUDA alone, from which dropout draws there.

    After offline work, so that nothing depends on whether that was in the cache.
    """
    import torch

    torch.cuda.manual_seed_all(seed)


def repeats_exactly(step: Callable[[], Sequence[torch.Tensor]], seed: int = 0) -> bool:
    """Whether a step that is done twice, from one seed, gives equal bits.

    Torch knows kernels on a GPU that do not, and has no other for some of them. The generators of
    the CPU are afterwards as they were.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        made = []
        for _ in range(2):
            torch.manual_seed(seed)
            made.append([tensor.detach().clone() for tensor in step()])
    return len(made[0]) == len(made[1]) and all(map(torch.equal, *made))


@contextmanager
def as_in_a_run(kind: str = "cpu") -> Iterator[None]:
    """One thread and deterministic kernels, as in a run; torch is left as it was found."""
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run_settings(kind)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)
