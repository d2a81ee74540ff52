"""What ``--accelerator``, ``--gpus`` and ``--per-gpu`` ask for, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.accelerator.gpus import Gpu, list_gpus
from bench.errors import BenchError

Kind = Literal["cpu", "cuda"]
"""Where arithmetic happens, as a cell's identity has it: results of the two differ in rounding."""


@dataclass(frozen=True)
class Choice:
    """``kind``, and for CUDA the GPUs that runs may use, each with so many slots."""

    kind: Kind = "cpu"
    gpus: tuple[Gpu, ...] = ()
    per_gpu: int = 1

    @property
    def title(self) -> str:
        """For people."""
        return "the CPU" if self.kind == "cpu" else ", ".join(str(gpu) for gpu in self.gpus)


def choose(
    accelerator: str = "cpu",
    gpus: str | None = None,
    per_gpu: int = 1,
    find: Callable[[], Sequence[Gpu]] = list_gpus,
) -> Choice:
    """The choice that the options describe.

    Parameters
    ----------
    accelerator : ``cpu``, ``cuda``, ``cuda:UUID`` (or its beginning, or an index), or ``auto``:
        CUDA if there is a GPU
    gpus : indices or UUIDs as ``0,1``; by default all that this process may use
    per_gpu : runs at a time on each
    find : lists the GPUs

    Raises BenchError, with the cure, for another word, and where there is no such GPU.
    """
    word, _, one = accelerator.partition(":")
    if word not in ("cpu", "cuda", "auto") or (":" in accelerator and (word != "cuda" or not one)):
        raise BenchError(f"--accelerator {accelerator!r}: use cpu, cuda, cuda:UUID or auto")
    if one and gpus is not None:
        raise BenchError(f"--accelerator {accelerator} and --gpus {gpus}: give one of them")
    if per_gpu < 1:
        raise BenchError(f"--per-gpu {per_gpu}: give 1 or more")
    if word == "cpu":
        for option, given in (("--gpus", gpus), ("--per-gpu", per_gpu if per_gpu > 1 else None)):
            if given is not None:
                raise BenchError(f"{option} {given}: runs are on the CPU; add --accelerator cuda")
        return Choice()
    found = list(find())
    if not found:
        if word == "auto":
            return Choice()
        raise BenchError(
            f"--accelerator {accelerator}: no GPU can be used here; take cpu, or look at "
            "'nvidia-smi' and CUDA_VISIBLE_DEVICES"
        )
    names = one or gpus
    chosen = found if names is None else [_named(name, found) for name in names.split(",")]
    if len({gpu.index for gpu in chosen}) < len(chosen):
        raise BenchError(f"--gpus {gpus}: a GPU is named twice; use --per-gpu for two runs on one")
    return Choice("cuda", tuple(chosen), per_gpu)


def _named(name: str, gpus: Sequence[Gpu]) -> Gpu:
    name = name.strip()
    matches = [g for g in gpus if name and (name == str(g.index) or g.uuid.startswith(name))]
    if len(matches) != 1:
        known = ", ".join(f"{gpu.index}: {gpu}" for gpu in gpus)
        raise BenchError(f"GPU {name!r} is {len(matches)} of the GPUs here; give one of {known}")
    return matches[0]
