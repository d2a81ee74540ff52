"""Checks of streams: what their data must be, and that equal settings give equal data."""

from __future__ import annotations

import pydantic

from bench import registry
from bench.conformance.base import CheckFailed, check_of, subject_of
from bench.contracts.model import inputs_digest, tensors_digest
from bench.contracts.stream import Domain, Stream
from bench.errors import BenchError
from bench.io.digest import digest
from bench.run.validity import build_stream

check = check_of("stream")


@subject_of("stream")
class StreamFixture:
    """A registered stream with its default settings, made of any seed."""

    patience = 1
    too_slow = "build only the domain that is asked for, from data that are read once"

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = registry.entry("stream", name)
        self.stream_class: type[Stream] = registry.load("stream", name)
        try:
            self.config = self.stream_class.Config()
        except pydantic.ValidationError as error:
            missing = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BenchError(
                f"stream {name!r} cannot be checked: its settings {missing} have no default"
            ) from error

    def make(self, seed: int = 0) -> Stream:
        """The stream of a seed."""
        return self.stream_class(self.config, seed)


@check
def declared(subject: StreamFixture) -> str:
    """Says what it is: a task, what shifts, the number of classes and the shape of a sample."""
    stream = subject.make()
    if not (subject.stream_class.__doc__ or "").strip():
        raise CheckFailed("the class has no docstring: say in its first line what shifts")
    legal = ("domain", "class")
    if not stream.shifts or any(shift not in legal for shift in stream.shifts):
        raise CheckFailed(f"shifts is {stream.shifts!r}: name some of {', '.join(legal)}")
    if type(stream.classes) is not int or stream.classes < 2:
        raise CheckFailed(f"classes is {stream.classes!r}: give their number, 2 or more")
    shape = stream.input_shape
    if not isinstance(shape, tuple) or not all(type(n) is int and n > 0 for n in shape):
        raise CheckFailed(f"input_shape is {shape!r}: give the shape of one sample as a tuple")
    digest = subject.stream_class.data_digest(subject.config)
    if digest != subject.stream_class.data_digest(subject.config) or not digest:
        raise CheckFailed("data_digest differs from call to call, or is empty: digest the data")
    return f"read 4 declarations of {stream.task} with {stream.classes} classes"


@check
def splits(subject: StreamFixture) -> str:
    """Every split holds finite samples and valid labels, and no test sample is learned from."""
    built = build_stream(subject.make())
    counts = [len(d.adaptation) + len(d.test) for d in (built.source, *built.domains)]
    return f"looked at {sum(counts)} samples of {len(counts)} domains"


@check
def same_seed(subject: StreamFixture) -> str:
    """A domain built twice is the same, in any order, and the source is that of every seed."""
    first, second, other = subject.make(0), subject.make(0), subject.make(1)
    names = list(first.domain_names())
    made = {name: _digest(first.domain(name)) for name in names}
    different = [name for name in reversed(names) if _digest(second.domain(name)) != made[name]]
    if different:
        raise CheckFailed(
            f"domain {different[0]!r} differs between two streams of one seed: draw from a "
            "generator that is seeded by the seed and the domain's name alone"
        )
    if _digest(first.source(), tested=False) != _digest(other.source(), tested=False):
        raise CheckFailed(
            "the source's adaptation split differs between seeds: one model is trained for all"
        )
    return f"built {len(names)} domains twice, and the source of two seeds"


@check
def validation(subject: StreamFixture) -> str:
    """Has a validation stream of its source's data, on which methods are tuned."""
    config = subject.stream_class.validation(subject.config)
    built = build_stream(subject.stream_class(config, 0))
    tested = {_digest(domain) for domain in build_stream(subject.make()).domains}
    shared = [domain.name for domain in built.domains if _digest(domain) in tested]
    if shared:
        raise CheckFailed(f"domain {shared[0]!r} of the validation stream is a target domain")
    return f"built its {len(built.domains)} domains"


def _digest(domain: Domain, tested: bool = True) -> str:
    splits = [domain.adaptation, domain.test] if tested else [domain.adaptation]
    return digest([[inputs_digest(s.x), tensors_digest({"y": s.y})] for s in splits])
