"""What a process takes of memory: now, and at its peak since a moment that is chosen.

On a CPU it is the resident memory by the kernel's own account. The peak is its high-water mark
``VmHWM``, set back through ``/proc/self/clear_refs`` beforehand: polling would miss short peaks.
On an accelerator it is what torch's allocator has handed out; the driver's share is not in it.
"""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path
from typing import Tuple

from bench.errors import BenchError

MMAP_BYTES = 2**25 - 2**16
"""A little below the size from which glibc always asks the system for fresh pages."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def long_run() -> None:
    """Bring the allocator to where it is in a long run.

    glibc takes blocks from fresh pages, which are slow at first, from a size on that grows to that
    of the largest block freed so far, up to 32 MiB: free one of nearly this size.
    """
    import torch

    torch.empty(MMAP_BYTES, dtype=torch.uint8)


def settle(accelerator: str) -> None:
    """Give back what is free, so that the next peak is that of what follows."""
    gc.collect()
    if accelerator == "cpu":
        trim()
    else:
        import torch

        torch.cuda.empty_cache()


def trim() -> None:
    """Give what is free in the heap back to the system, where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak(accelerator: str) -> None:
    """`peak_bytes` is the peak since this call; BenchError where the kernel refuses that."""
    if accelerator != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    try:
        CLEAR.write_text("5")
    except OSError as error:
        raise BenchError(
            f"{CLEAR} cannot be written ({error.strerror}): peak memory is not measurable here; "
            "run on Linux, where a process may reset its own VmHWM"
        ) from error


def peak_bytes(accelerator: str) -> int:
    """The most that was held since `reset_peak`, in bytes."""
    if accelerator != "cpu":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def held_bytes(accelerator: str) -> int:
    """What is held now, in bytes."""
    if accelerator != "cpu":
        import torch

        return int(torch.cuda.memory_allocated())
    return _status("VmRSS")


def reserved_bytes() -> Tuple[int, int]:
    """What torch's allocator has taken of a GPU: now, and at most since `reset_peak`."""
    import torch

    return int(torch.cuda.memory_reserved()), int(torch.cuda.max_memory_reserved())


def synchronize() -> None:
    """Wait until a GPU has done what it was asked to."""
    import torch

    torch.cuda.synchronize()


def memory_bytes(accelerator: str) -> Tuple[float, float]:
    """Of the whole machine or accelerator, and what of it is free for applications now."""
    if accelerator != "cpu":
        import torch

        free, total = torch.cuda.mem_get_info()
        return float(total), float(free)
    import psutil

    known = psutil.virtual_memory()
    return float(known.total), float(min(known.available, known.total))


def _status(key: str) -> int:
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    raise BenchError(f"{STATUS} has no {key}: resident memory is read on Linux alone")
