"""What a task in a batch system's queue asks for, by the suite or the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from bench.errors import BenchError

Name = Annotated[str, pydantic.Field(pattern=r"^[\w.,@+-]+$", max_length=200)]
Memory = Annotated[str, pydantic.Field(pattern=r"^[1-9][0-9]{0,8}[KMGT]?$")]
Address = Annotated[str, pydantic.Field(pattern=r"^[\w.:/@\[\]-]+$", max_length=500)]
Given = Annotated[str, pydantic.Field(pattern=r"^--[a-z][\w-]*(=[^\s].*)?$", max_length=500)]

CURES = {
    "--partition": "name a partition, as 'sinfo' lists them",
    "--gpus": "give the number of GPUs of each task in the queue, as 1",
    "--mem": "give megabytes, or as 8G",
    "--minutes": "give whole minutes, as 30",
    "--sbatch": "give an option of sbatch in one word, as --sbatch=--account=lab",
    "--ray-address": "give the address of the cluster, as head:6379, or auto on one of its nodes",
    "--image": "give the name of a container image, as registry.local/bench:1",
}
"""What to give instead, by option."""


class Resources(pydantic.BaseModel, extra="forbid", frozen=True):
    """Of each task; nothing of it is part of a cell's identity.

    partition : of the queue; None is its default
    gpus : of each task; None is one where runs compute with CUDA, else none
    mem : memory as Slurm takes it, in megabytes or as ``8G``; None is the partition's default
    minutes : time limit; None is by the estimate of ``bench plan``
    sbatch : further options, each as ``--account=lab``
    ray_address : of the cluster of executor ``ray``; None is ``$RAY_ADDRESS``, else this machine
    image : container image, for executor ``k8s``
    """

    partition: Name | None = None
    gpus: int | None = pydantic.Field(None, ge=0, le=64)
    mem: Memory | None = None
    minutes: int | None = pydantic.Field(None, ge=1, le=100_000)
    sbatch: tuple[Given, ...] = ()
    ray_address: Address | None = None
    image: Address | None = None

    @property
    def memory_bytes(self) -> int | None:
        """``mem`` in bytes."""
        if self.mem is None:
            return None
        number = self.mem.rstrip("KMGT")
        return int(number) * 1024 ** ("KMGT".index(self.mem[len(number) :] or "M") + 1)


def resources_of(
    own: Resources, asked: Mapping[str, Any], gpus: str | None = None
) -> tuple[Resources, list[str]]:
    """A suite's ``own`` resources with what was ``asked`` for instead, and the options given.

    ``asked``: values by option; ``gpus``: of each task, as text. BenchError that names option,
    value and cure.
    """
    given = {option: value for option, value in asked.items() if value not in (None, [])}
    if gpus is not None:
        given["--gpus"] = gpus
    known = own.model_dump()
    for option, value in given.items():
        changed = {option.removeprefix("--").replace("-", "_"): value}
        try:
            known = Resources.model_validate(known | changed).model_dump()
        except pydantic.ValidationError as error:
            shown = " ".join(value) if isinstance(value, list) else value
            raise BenchError(f"{option} {shown}: {CURES[option]}") from error
    return Resources.model_validate(known), list(given)
