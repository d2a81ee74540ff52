"""The figures of many comparisons, drawn by several processes."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from bench import BenchError

from .comparison import Comparison
from .drawing import Drawing, Style
from .figure_size import PAGE, Size
from .figures import draw

_shared: list[tuple[Sequence[Comparison], Mapping[str, Style], Size]] = []
"""What is drawn, also by processes that are forked from this one: none of it is sent to them."""


def draw_all(
    comparisons: Sequence[Comparison],
    look: Mapping[str, Style],
    jobs: int = 1,
    size: Size = PAGE,
) -> list[list[Drawing]]:
    """What `draw` gives for each comparison, by up to ``jobs`` processes; the bytes are the same.

    BenchError if one of the processes is killed.
    """
    number = min(jobs, len(comparisons))
    _shared.append((comparisons, look, size))
    # The garbage of figures is collected without looking at all records each time; processes that
    # are forked share the records' memory so.
    gc.freeze()
    try:
        if number < 2:
            return [_drawn(each) for each in range(len(comparisons))]
        forked = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("fork"))
        with forked(number) as processes:
            return list(processes.map(_drawn, range(len(comparisons))))
    except BrokenProcessPool as error:
        raise BenchError(
            f"--jobs {jobs}: a process that draws figures was killed, perhaps for its memory; "
            "take --jobs 1"
        ) from error
    finally:
        gc.unfreeze()
        _shared.pop()


def _drawn(number: int) -> list[Drawing]:
    comparisons, look, size = _shared[-1]
    return draw(comparisons[number], look, size)
