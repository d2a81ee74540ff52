"""What a stream's data and a method's outputs must look like before a metric is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contracts.data import Inputs, LazyInputs, batch_length, placed, take
from bench.contracts.stream import Domain, Split, Stream
from bench.contracts.task import Task, make_task
from bench.errors import BenchError

_SAMPLED = 64
"""Values of a sample that are compared first: full comparison is for those that agree in them."""
_READ = 8
"""Samples of lazy inputs that are read for a look at them."""


@dataclass(frozen=True)
class BuiltStream:
    """A stream's source and its target domains in order, built once and checked.

    ``task``, and among how many ``classes`` a unit of it decides.
    """

    source: Domain
    domains: Sequence[Domain]
    task: Task
    classes: int

    def on(self, device: torch.device) -> BuiltStream:
        """The same, whose inputs give their samples on ``device``; labels stay where they are."""
        moved = [_on(domain, device) for domain in (self.source, *self.domains)]
        return BuiltStream(moved[0], moved[1:], self.task, self.classes)


def _on(domain: Domain, device: torch.device) -> Domain:
    learned, tested = domain.adaptation, domain.test
    return replace(
        domain,
        adaptation=Split(placed(learned.x, device), learned.y),
        test=Split(placed(tested.x, device), tested.y),
    )


def build_stream(stream: Stream) -> BuiltStream:
    """Build every domain of ``stream`` and check it; see `require_domain`.

    Raises BenchError, naming domain and split, also where two domains have one name, there is no
    target domain, or test samples are among those to learn from.
    """
    names = list(stream.domain_names())
    who = f"stream {type(stream).__name__}"
    if not names:
        raise BenchError(f"{who} has no target domain; name some")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BenchError(f"{who} has {names.count(twice)} domains named {twice!r}; rename one")
    task = make_task(stream.task)
    source = stream.source()
    require_domain(source, stream, task, "source")
    domains = []
    for name in names:
        domain = stream.domain(name)
        if domain.name != name:
            raise BenchError(f"{who}: its domain {name!r} says that its name is {domain.name!r}")
        require_domain(domain, stream, task, f"domain {name!r}")
        domains.append(domain)
    if not stream.repeats_samples:
        _require_disjoint([("source", source), *((f"domain {d.name!r}", d) for d in domains)])
    return BuiltStream(source, domains, task, stream.classes)


def received_stream(stream: Stream) -> BuiltStream:
    """A stream that was built and checked elsewhere: labels may be missing here."""
    domains = [stream.domain(name) for name in stream.domain_names()]
    return BuiltStream(stream.source(), domains, make_task(stream.task), stream.classes)


def require_domain(domain: Domain, stream: Stream, task: Task, who: str) -> None:
    """Raise BenchError unless both splits hold samples, finite and labelled as declared."""
    for split_name, split in (("adaptation", domain.adaptation), ("test", domain.test)):
        where = f"{who}: its {split_name} split"
        if len(split) == 0:
            raise BenchError(f"{where} is empty; leave the domain out, or give it samples")
        _require_inputs(split.x, stream, where)
        task.require_labels(split.y, len(split), stream.classes, where)
        task.require_fit(split.y, stream.input_shape, where)


def _require_inputs(x: Inputs, stream: Stream, where: str) -> None:
    if isinstance(x, LazyInputs):
        x = _first_of(x, where)
    for name, tensor in x.items() if isinstance(x, dict) else [("", x)]:
        of = f" of {name!r}" if name else ""
        if not isinstance(tensor, Tensor):
            raise BenchError(f"{where} has inputs{of} of type {type(tensor).__name__}, not tensors")
        if not tensor.is_floating_point() or tensor.sum().isfinite():
            continue  # one value that is not finite makes the sum so; large ones may do it too
        if not (good := tensor.isfinite()).all():
            bad = (
                int((~good).flatten(1).any(dim=1).sum()) if tensor.ndim > 1 else int((~good).sum())
            )
            raise BenchError(
                f"{where} has {bad} of {len(tensor)} samples with inputs{of} that are not finite; "
                "clean or drop them"
            )
    if isinstance(x, Tensor) and tuple(x.shape[1:]) != tuple(stream.input_shape):
        raise BenchError(
            f"{where} has samples of shape {tuple(x.shape[1:])}, and the stream declares "
            f"input_shape = {tuple(stream.input_shape)}"
        )


def _first_of(x: LazyInputs, where: str) -> Inputs:
    """A few samples, read; BenchError if they are not what the inputs say of each sample."""
    few = take(x, torch.arange(min(_READ, len(x))))
    parts = few if isinstance(few, dict) else {"": few}
    found = {name: (tuple(part.shape[1:]), part.dtype) for name, part in parts.items()}
    if found != x.sample_types:
        raise BenchError(
            f"{where} says that samples are {x.sample_types}, and reads {found}: correct "
            f"sample_types of {type(x).__name__}"
        )
    return few


# --- samples that are learned from and tested on ---------------------------------------------


def _require_disjoint(domains: Sequence[tuple[str, Domain]]) -> None:
    learned = [(who, _samples(domain.adaptation.x)) for who, domain in domains]
    for who, domain in domains:
        tested = _samples(domain.test.x)
        for other, samples in learned:
            shared = tested.count_in(samples)
            if shared:
                of = "adaptation samples" + ("" if other == who else f" of {other}")
                raise BenchError(
                    f"{who}: {shared} of {len(tested)} test samples are also {of}; the splits must "
                    "be disjoint (a stream whose samples may be equal declares "
                    "repeats_samples = True)"
                )


class _Named:
    """Samples that are known by the names of what they are made of; see `LazyInputs.names`."""

    def __init__(self, x: LazyInputs) -> None:
        self._names = x.sample_names()
        self._known = set(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def count_in(self, others: _Named | _Samples) -> int:
        """How many of these samples are among the others; none among those of another kind."""
        if not isinstance(others, _Named):
            return 0
        return sum(name in others._known for name in self._names)


class _Samples:
    """Samples that can be looked up by their content."""

    def __init__(self, x: Inputs) -> None:
        self._arrays = [_rows(tensor) for tensor in (x.values() if isinstance(x, dict) else [x])]
        n = batch_length(x)
        step = [max(rows.shape[1] // _SAMPLED, 1) for rows in self._arrays]
        few = [rows[:, ::s].copy() for rows, s in zip(self._arrays, step, strict=True)]
        joined = np.ascontiguousarray(np.concatenate([f.view(np.uint8) for f in few], axis=1))
        self._n = n
        self._digests: dict[int, bytes] = {}
        self._places: dict[bytes, list[int]] = {}
        for i in range(n):
            self._places.setdefault(joined[i].tobytes(), []).append(i)

    def __len__(self) -> int:
        return self._n

    def count_in(self, others: _Named | _Samples) -> int:
        """How many of these samples are among the others; none among those of another kind."""
        if not isinstance(others, _Samples):
            return 0
        found = 0
        for key in self._places.keys() & others._places.keys():
            theirs = {others._whole(j) for j in others._places[key]}
            found += sum(self._whole(i) in theirs for i in self._places[key])
        return found

    def _whole(self, i: int) -> bytes:
        """A digest of all of a sample: where images share a background, many share what is few."""
        if i not in self._digests:
            content = b"".join(rows[i].tobytes() for rows in self._arrays)
            self._digests[i] = hashlib.blake2b(content, digest_size=16).digest()
        return self._digests[i]


def _samples(x: Inputs) -> _Named | _Samples:
    return _Named(x) if isinstance(x, LazyInputs) else _Samples(x)


def _rows(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The bytes of a tensor, (n, bytes of a sample), in words that are compared whole."""
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
    if not flat.shape[1]:
        return np.zeros((len(flat), 1), np.uint8)
    content = flat.view(torch.uint8).numpy()
    return content if content.shape[1] % 8 else content.view(np.uint64)


# --- outputs -----------------------------------------------------------------------------------


def require_outputs(outputs: Any, n: int, task: Task, classes: int, who: str, where: str) -> None:
    """Raise BenchError unless ``outputs`` are finite logits of ``n`` samples, as the task has them.

    ``who`` predicted; ``where``: which samples, after how many steps.
    """
    if not isinstance(outputs, Tensor):
        raise BenchError(
            f"predict of {who} gave a {type(outputs).__name__} on {where}; return a torch tensor "
            "of logits (torch.from_numpy makes one of an array)"
        )
    try:
        task.require_outputs(tuple(outputs.shape), n, classes, where)
    except BenchError as error:
        raise BenchError(
            f"predict of {who} gave outputs of shape {tuple(outputs.shape)}, {error}"
        ) from None
    if not outputs.is_floating_point():
        raise BenchError(
            f"predict of {who} gave outputs of type {outputs.dtype} on {where}; return logits, not "
            "class numbers"
        )
    if not (good := outputs.isfinite()).all():
        raise BenchError(
            f"predict of {who} gave {int((~good).sum())} of {outputs.numel()} outputs that are not "
            f"finite on {where}; the weights diverged, or a division or log is not guarded (to "
            "exclude a class give it a large negative logit)"
        )


def require_causal(
    predict: Callable[[Inputs], Tensor], x: Inputs, outputs: Tensor, who: str, where: str
) -> None:
    """Raise BenchError if outputs of the first half of texts depend on tokens of the second.

    Half of the longest text: the later tokens of all are changed.
    """
    if not isinstance(x, dict) or not {"input_ids", "attention_mask"} <= x.keys():
        raise BenchError(
            f"{where}: inputs of generated text are a dict of input_ids and "
            "attention_mask; give both"
        )
    half = max(int(x["attention_mask"].sum(dim=1).max()) // 2, 1)  # padding tells nothing
    ids = x["input_ids"].clone()
    ids[:, half:] = (ids[:, half:] + 1) % max(int(ids.max()), 1)
    away = (predict({**x, "input_ids": ids})[:, :half] - outputs[:, :half]).abs()
    if away.numel() and float(away.max()) > 1e-3 * max(float(outputs.abs().max()), 1.0):
        raise BenchError(
            f"predict of {who} gave outputs that depend on later tokens, which are the labels, on "
            f"{where}; use a causal language model"
        )
