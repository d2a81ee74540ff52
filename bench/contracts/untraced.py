"""Work that is not the device's: fetching data from storage is not counted as arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def uncounted() -> Iterator[None]:
    """Hide the operators in this context from a running `StepTracer`."""
    with _disable_current_modes():
        yield
