"""The contract of a data set: domains of labelled samples in a folder of a published layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
import torch

from bench.contracts.choice import Choice
from bench.contracts.data import LazyInputs, take
from bench.contracts.settings import file_digests
from bench.contracts.stream import Split
from bench.errors import BenchError
from bench.io.archive import is_archive, unpacked
from bench.io.digest import digest
from bench.io.folder_files import FilesDigest, files_below, files_digest

Part = Literal["test", "validation"]
"""What is reported, and what methods are tuned on."""


class DataSetConfig(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of a data set's settings: ``root``, the folder that it lies in, which is only read, or
    an archive of it (.zip, .tar.gz, ...), which is unpacked into the cache.
    """

    root: str = pydantic.Field(min_length=1)


class DataSet(ABC):
    """Domains of labelled samples, read from a folder.

    Construction looks at names of files alone; samples are read when they are asked for, large
    ones as `LazyInputs`. Whatever is wrong with a file raises BenchError that names the file, what
    was found and the cure. ``task``: what labels mean, see `Stream`.

    Attributes
    ----------
    class_names : of the classes, in the order of their numbers
    input_shape : one sample's shape; (tokens,) for texts
    families : names of further families of corruptions, beside its own
    """

    Config: ClassVar[type[DataSetConfig]] = DataSetConfig
    task: ClassVar[str] = "classification"
    families: ClassVar[tuple[str, ...]] = ()
    class_names: Sequence[str]
    input_shape: tuple[int, ...]

    def __init__(self, config: Any) -> None:
        self.config = config
        self.root = Path(config.root)
        if is_archive(self.root):
            self.root = unpacked(self.root)
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "not there"
            raise BenchError(f"root {self.root} is {found}: name the folder with the data in it")

    @classmethod
    def task_of(cls, config: Any) -> str:
        """The task under these settings, where they choose it."""
        return cls.task

    @abstractmethod
    def domains(self) -> Sequence[str]:
        """The names of the domains, in a fixed order."""

    def splits(self, domain: str) -> Sequence[str]:
        """The published splits of a domain: ("train", "test"), say, or ("all",) if it has none."""
        return ("all",)

    @abstractmethod
    def split(self, domain: str, name: str) -> Split:
        """The samples of a domain's split, always in the same order."""

    def corruptions(self, part: Part, family: str = "") -> Sequence[str]:
        """The corruptions of a family, by default its own, as ``blur-2``: none is in both parts."""
        return ()

    def require_family(self, family: str) -> None:
        """BenchError, with the cure, if the corruptions of a family cannot be made here."""

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        """A split under a corruption, or ``FAMILY/NAME``, drawn from ``key`` and each sample."""
        raise BenchError(f"{type(self).__name__} has no corruptions: name target domains")

    def described(self, split: Split, position: int) -> str:
        """One sample for people: its class, or a text's words; empty if a picture says it."""
        return self.class_names[int(split.y[position])] if split.y.ndim == 1 else ""

    def files(self) -> Iterator[Path]:
        """The files that it reads: all in the root, unless a layout says better."""
        return files_below(self.root)

    def digest(self) -> FilesDigest:
        """Digest of the files: of their contents, or above 1 GB of their paths and sizes."""
        return files_digest(self.root, self.files())

    def check(self) -> Iterator[str]:
        """Read every sample: a line for each thing that is wrong; nothing if all is well."""
        yield from dict.fromkeys(self._problems())  # one wrong file may spoil every domain

    def _problems(self) -> Iterator[str]:
        try:
            domains = list(self.domains())
            if not domains:
                yield f"root {self.root} has no domain: see the layout that this data set reads"
            for domain in domains:
                for name in self.splits(domain):
                    yield from self._check_split(domain, name)
        except BenchError as error:
            yield str(error)

    def _check_split(self, domain: str, name: str) -> Iterator[str]:
        try:
            split = self.split(domain, name)
        except BenchError as error:
            yield str(error)
            return
        if not len(split):
            yield f"domain {domain!r}: its split {name!r} has no samples: add some, or remove it"
        if isinstance(split.x, LazyInputs):
            for i in range(len(split)):
                try:
                    take(split.x, torch.tensor([i]))
                except BenchError as error:
                    yield str(error)


class DataChoice(Choice):
    """A registered data set with its settings, as one setting of a stream.

    ``{name: image-folder, root: photos, size: 64}``. In a cell's identity it counts with the
    contents of its files and its code, and not with the place of its root.
    """

    kind: ClassVar[str] = "dataset"
    title: ClassVar[str] = "data set"

    def build(self) -> DataSet:
        """The data set; BenchError if its root is not one."""
        made: DataSet = self.component(self.checked())
        return made

    def content_digest(self) -> str:
        """Digest of all that samples depend on: settings, files and code."""
        made = self.build()
        every = {**self.config, **file_digests(made.config)}
        settings = {k: v for k, v in every.items() if k != "root"}
        return digest([self.name, settings, self.code(), made.digest().value])


def data_set(name: str, settings: Mapping[str, Any]) -> DataSet:
    """A registered data set by its name and settings; BenchError names what is wrong with them."""
    try:
        return DataChoice.model_validate({**settings, "name": name}).build()
    except pydantic.ValidationError as error:
        raise BenchError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
