"""Checks of data sets: what they say of themselves, and that samples are what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydantic
import torch

from bench import registry
from bench.conformance.base import CheckFailed, check_of, subject_of
from bench.contracts.data import Inputs, LazyInputs, subset, take
from bench.contracts.dataset import DataSet, data_set
from bench.contracts.model import inputs_digest
from bench.contracts.stream import Split
from bench.contracts.task import make_task
from bench.errors import BenchError
from bench.io.folder_files import files_below

FEW = 6
"""Samples of a split that are read one by one."""

check = check_of("dataset")


@subject_of("dataset")
class DataFixture:
    """A registered data set with settings that name its folder."""

    patience = 5
    too_slow = "look at names of files alone when it is made, and give large samples as LazyInputs"

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.entry = registry.entry("dataset", name)
        self.settings = dict(settings or {})
        try:
            self.data = self.make()
        except BenchError as error:
            if "'root': missing" in str(error):
                raise BenchError(f"data set {name!r}: name its folder with --root DIR") from error
            raise

    def make(self) -> DataSet:
        """The data set, made anew."""
        return data_set(self.name, self.settings)

    @cached_property
    def splits(self) -> dict[tuple[str, str], Split]:
        """All of its splits by domain and name."""
        return {(d, s): self.data.split(d, s) for d in self.data.domains() for s in self._names(d)}

    def _names(self, domain: str) -> list[str]:
        return list(self.data.splits(domain))


@check
def declared(subject: DataFixture) -> str:
    """Says what it is: a task, classes, the shape of a sample, domains and their splits."""
    data = subject.data
    if not (type(data).__doc__ or "").strip():
        raise CheckFailed("the class has no docstring: say in its first line what it reads")
    make_task(data.task)
    names = list(data.class_names)
    if not names or len(set(names)) < len(names) or not all(type(n) is str for n in names):
        raise CheckFailed(f"class_names is {names[:5]!r}: give one name or more, each once")
    shape = data.input_shape
    if not isinstance(shape, tuple) or not all(type(n) is int and n > 0 for n in shape):
        raise CheckFailed(f"input_shape is {shape!r}: give the shape of one sample as a tuple")
    domains = list(data.domains())
    for what, found in [("domains()", domains), *((d, list(data.splits(d))) for d in domains)]:
        if not found or len(set(found)) < len(found):
            raise CheckFailed(f"{what} has the names {found!r}: give one or more, each once")
    return f"read {len(names)} classes and {len(domains)} domains of {data.task}"


@check
def samples(subject: DataFixture) -> str:
    """Every split has samples of the declared shape and valid labels."""
    data, task = subject.data, make_task(subject.data.task)
    for (domain, name), split in subject.splits.items():
        where = f"domain {domain!r}: its split {name!r}"
        if not len(split):
            raise CheckFailed(f"{where} has no samples: leave it out")
        task.require_labels(split.y, len(split), len(data.class_names), where)
        task.require_fit(split.y, data.input_shape, where)
        x = take(split.x, torch.arange(min(len(split), FEW)))
        parts = x if isinstance(x, dict) else {"": x}
        shapes = {tuple(part.shape[1:]) for part in parts.values()}
        if tuple(data.input_shape) not in shapes:
            raise CheckFailed(f"{where} has samples of {shapes}, and input_shape is not among them")
        if any(part.is_floating_point() and not part.isfinite().all() for part in parts.values()):
            raise CheckFailed(f"{where} has values that are not finite: clean them")
    return f"looked at {sum(map(len, subject.splits.values()))} samples"


@check
def same_again(subject: DataFixture) -> str:
    """A split is the same, in the same order, whenever it is asked for."""
    other = subject.make()
    for (domain, name), split in subject.splits.items():
        again = other.split(domain, name)
        same = torch.equal(again.y, split.y)
        if not same or inputs_digest(again.x) != inputs_digest(split.x):
            raise CheckFailed(
                f"domain {domain!r}: its split {name!r} differs when it is read again: sort the "
                "names of files, and draw nothing"
            )
    return f"read {len(subject.splits)} splits twice"


@check
def lazy(subject: DataFixture) -> str:
    """Samples that are read when they are needed are the same in any batch and order."""
    looked = 0
    for (domain, name), split in subject.splits.items():
        if isinstance(split.x, LazyInputs):
            _require_lazy(split.x, f"domain {domain!r}: its split {name!r}")
            looked += 1
    return f"read {looked} lazy splits in several batches"


def _require_lazy(x: LazyInputs, where: str) -> None:
    chosen = torch.arange(min(len(x), FEW)).flip(0)
    together = _parts(take(x, chosen))
    found = {name: (tuple(part.shape[1:]), part.dtype) for name, part in together.items()}
    if found != x.sample_types:
        raise CheckFailed(f"{where} reads {found}, and its sample_types are {x.sample_types}")
    for row, position in enumerate(chosen.tolist()):
        alone = _parts(take(subset(x, torch.tensor([position])), torch.tensor([0])))
        if any(not torch.equal(part[0], together[name][row]) for name, part in alone.items()):
            raise CheckFailed(
                f"{where}: sample {position} differs alone and in a batch: a value must depend on "
                "its sample alone"
            )
    names = x.sample_names()
    if len(names) != len(x) or not all(type(name) is str for name in names):
        raise CheckFailed(f"{where}: names() gives {len(names)} names for {len(x)} samples")
    if subset(x, chosen).sample_names() != [names[i] for i in chosen.tolist()]:
        raise CheckFailed(f"{where}: names(positions) are not those of the positions")


@check
def corruptions(subject: DataFixture) -> str:
    """A corruption changes the inputs, alike for an equal key, and test and validation differ."""
    data = subject.data
    parts = {part: list(data.corruptions(part)) for part in ("test", "validation")}
    if both := sorted(set(parts["test"]) & set(parts["validation"])):
        raise CheckFailed(
            f"corruption {both[0]!r} is of both parts: tuning must not see the test's"
        )
    split = next(iter(subject.splits.values()))
    chosen = torch.arange(min(len(split), FEW))
    few = Split(subset(split.x, chosen), split.y[chosen])
    every = torch.arange(len(chosen))
    for name in [name for names in parts.values() for name in names]:
        made, again = (take(data.corrupted(few, name, "key").x, every) for _ in range(2))
        if any(not torch.equal(part, _parts(again)[key]) for key, part in _parts(made).items()):
            raise CheckFailed(f"corruption {name!r} differs for one key: draw from the key alone")
        if data.corrupted(few, name, "key").y.shape[0] != len(few):
            raise CheckFailed(f"corruption {name!r} changes the number of samples")
    return f"made {sum(map(len, parts.values()))} corruptions of {len(few)} samples"


@check
def files(subject: DataFixture) -> str:
    """Its folder is only read, and its digest is that of its files."""
    data = subject.make()
    before = _listing(data.root)
    digest = data.digest()
    for domain in data.domains():
        for name in data.splits(domain):
            take(data.split(domain, name).x, torch.arange(1))
    if _listing(data.root) != before:
        raise CheckFailed(f"{data.root} is changed by reading it: write caches elsewhere")
    if subject.make().digest() != digest:
        raise CheckFailed("digest() differs from call to call: let it depend on files() alone")
    return f"compared {len(before)} files before and after"


@check
def another_folder(subject: DataFixture) -> str:
    """A folder without its layout is refused in one line that names it."""
    with TemporaryDirectory() as empty:
        try:
            made = data_set(subject.name, {**subject.settings, "root": empty})
            found = list(made.domains())
        except BenchError as error:
            if empty not in str(error) and "root" not in str(error):
                raise CheckFailed(
                    f"an empty folder is refused without its name: {error}"
                ) from error
            return "made it of an empty folder"
        except pydantic.ValidationError:
            return "made it of an empty folder"
        problems = list(made.check())
    if not problems:
        raise CheckFailed(
            f"an empty folder has the domains {found!r} and no problem: name what is missing"
        )
    return "made it of an empty folder, which check() refuses"


def _parts(x: Inputs) -> dict[str, Any]:
    return x if isinstance(x, dict) else {"": x}


def _listing(root: Path) -> list[tuple[str, int, int]]:
    def facts() -> Iterator[tuple[str, int, int]]:
        for file in files_below(root):
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns

    return list(facts())
