"""Which status a run has that an exception ended."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError, DeviceOutOfMemory, Unsupported


def ending(error: BaseException) -> dict[str, Any]:
    """The fields ``status``, ``reason`` and ``oom_on`` of a record."""
    text = " ".join(str(error).split())
    if isinstance(error, DeviceOutOfMemory):
        return {"status": "oom", "reason": text, "oom_on": "device"}
    if isinstance(error, Unsupported):
        return {"status": "unsupported", "reason": text}
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        reason = f"host memory: {text or 'MemoryError'}"
        return {"status": "oom", "reason": reason, "oom_on": "host"}
    reason = text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
    return {"status": "failed", "reason": reason}
