"""Mixed precision: matrix products of adaptation and prediction in bfloat16.

Weights, and what they were trained with on the source, stay in single precision. There is no
float16: small gradients vanish in it unless the loss is scaled and the optimizer's steps are
unscaled and skipped, and both are a method's own code here. bfloat16 has the range of single
precision and needs none of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import pydantic


def _known(given: Any) -> Any:
    if given in ("fp16", "float16"):
        raise ValueError(
            "gradients in float16 need a scaled loss, which is in no method; use bf16, whose range "
            "is that of float32"
        )
    return given


Precision = Annotated[Literal["float32", "bf16"], pydantic.BeforeValidator(_known)]
"""Of matrix products, as suites and cells write it."""


@contextmanager
def computing_in(precision: str, accelerator: str) -> Iterator[None]:
    """Inside, this thread computes in the precision, by torch's autocast."""
    if precision == "float32":
        yield
        return
    import torch

    # Without the cache of cast weights: they change in the course of a run.
    with torch.autocast(accelerator, torch.bfloat16, cache_enabled=False):
        yield
