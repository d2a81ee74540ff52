"""Slots: which run may use which GPU now, among the runs of this and of other commands.

A run that is measured has its GPU for itself. A lock of the GPU's UUID, of all users of the
machine, tells commands of each other: shared by ordinary runs, exclusive for a measured one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.accelerator.choice import Choice
from bench.accelerator.determinism import WORKSPACE
from bench.accelerator.gpus import NVML_CHECK, Gpu
from bench.errors import BenchError

FOLDER = Path("/tmp") if os.name == "posix" else Path(tempfile.gettempdir())
"""Not where TMPDIR points, which each user may have a different one of."""


def environment_of(gpu: Gpu) -> Mapping[str, str]:
    """Variables of a process that computes on a GPU, to be set before it imports torch."""
    named = {"CUDA_VISIBLE_DEVICES": gpu.uuid} if gpu.uuid else {}
    return {**NVML_CHECK, **WORKSPACE, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **named}


HIDDEN = {**NVML_CHECK, "CUDA_VISIBLE_DEVICES": ""}
"""Variables of a process that computes on the CPU: torch's optimizers would start CUDA."""


class Slots:
    """The slots of the GPUs that were chosen; ``folder`` holds the locks."""

    def __init__(self, choice: Choice, folder: Path = FOLDER) -> None:
        self._choice, self._folder = choice, folder
        self._taken: dict[str, tuple[Gpu, int | None]] = {}

    @property
    def number(self) -> int:
        """Of all GPUs together."""
        return len(self._choice.gpus) * self._choice.per_gpu

    def gpu(self, run: str) -> Gpu | None:
        """The GPU that a run has."""
        return self._taken[run][0] if run in self._taken else None

    def take(self, run: str, alone: bool = False) -> Gpu | None:
        """A GPU with a free slot, the least used first; None if there is none now.

        ``alone``: a GPU that no other run uses, and that none gets until this one ends.
        """
        users = dict.fromkeys(self._choice.gpus, 0)
        for gpu, _ in self._taken.values():
            users[gpu] += 1
        limit = 1 if alone else self._choice.per_gpu
        for gpu in sorted(users, key=lambda gpu: users[gpu]):
            if users[gpu] >= limit:
                continue
            locked, lock = self._lock(gpu, alone)
            if locked:
                self._taken[run] = gpu, lock
                return gpu
        return None

    def release(self, run: str) -> None:
        """A run has ended; nothing where it had no slot."""
        _, lock = self._taken.pop(run, (None, None))
        if lock is not None:
            os.close(lock)

    def _lock(self, gpu: Gpu, alone: bool) -> tuple[bool, int | None]:
        """Whether the GPU's lock was got, and its descriptor, where the system has such locks."""
        try:
            import fcntl
        except ImportError:  # no POSIX system
            return True, None
        path = self._folder / f"bench-gpu-{gpu.uuid or gpu.index}.lock"
        try:
            lock = _opened(path)
        except OSError as error:
            raise BenchError(
                f"{path} cannot be opened ({error.strerror}): it tells runs of others that a GPU "
                "is in use; remove it, or ask its owner for 'chmod 666' of it"
            ) from error
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False, None
        return True, lock


def _opened(path: Path) -> int:
    """The descriptor of a lock that all users share; it is made where it is missing.

    Linux refuses O_CREAT on a file of another user in a sticky folder, as /tmp is, even where it
    exists (fs.protected_regular): O_CREAT goes with O_EXCL alone.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # made by another command in the meantime
        return os.open(path, flags)
    os.chmod(path, 0o666)  # whatever the umask
    return made
