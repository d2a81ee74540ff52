"""Models and data without values: torch's fake tensors, so that a step is counted from shapes.

A value that is read (``item()``, a boolean index) is taken for True, 1 or 0.1: every sample is
selected and every condition holds. `FakeMode.assumed` counts such reads. Where no value can be
assumed an exception is raised, see `reads_values`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

from bench.accelerator.determinism import as_in_a_run
from bench.contracts.data import Inputs, uncounted
from bench.contracts.model import FoundationModel
from bench.estimate.remembered_results import RememberedResults

_VALUE_ERRORS = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
_WHERE = torch.ops.prim.device.default
_CONVERTED = torch.ops.aten.empty_strided.default
"""Makes room for what a conversion of a fake tensor gives: values that nobody knows."""
_INDICES = {"arange", "randint", "randperm"}
"""Operators whose results are integers where no type is asked for."""


class FakeMode(FakeTensorMode):
    """Inside, new tensors are fake, but for integers and booleans (labels, orders of samples).

    ``assumed``: how often a value was read that is not known, see `_known`.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.assumed = 0
        self._results = RememberedResults(self)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not: nothing is compiled while counting, and torch's guard takes long in each call."""
        return False

    def __deepcopy__(self, memo: dict[int, Any]) -> FakeMode:
        # A copy of a tensor must be one of this mode: tensors of two modes do not mix.
        return self

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is _WHERE and isinstance(args[0], FakeTensor):  # asked for every tensor
            return args[0].fake_device
        kwargs = kwargs or {}
        if _of_integers(func, args, kwargs):
            return tree_map_only(Tensor, self._emptied, func(*args, **kwargs))
        try:
            return self._results.of(func, types, args, kwargs, super().__torch_dispatch__)
        except _VALUE_ERRORS:
            values = tuple(map(_assumed, args))
            read = [old for new, old in zip(values, args, strict=True) if new is not old]
            if not read:
                raise
            # A mask of padding has values, and only what it selects from has none.
            self.assumed += any(isinstance(each, FakeTensor) for each in tree_leaves(read))
            if any(isinstance(each, FakeTensor) for each in tree_leaves(values)):
                return super().__torch_dispatch__(func, types, values, kwargs)
            with no_dispatch():
                made = func(*values, **kwargs)
            return tree_map_only(Tensor, self._emptied, made)

    def _emptied(self, made: Tensor) -> Tensor:
        return self.from_tensor(made) if _is_float(made.dtype) else made


def _assumed(value: object) -> object:
    """A value that is read, as `_known`; of the masks of an index the places of all elements."""
    if isinstance(value, list | tuple):
        places: list[object] = []
        for each in value:
            is_mask = isinstance(each, Tensor) and each.dtype == torch.bool
            places += _places(each) if is_mask else [each]
        return value if len(places) == len(value) and places == [*value] else places
    if isinstance(value, FakeTensor) and (value.numel() == 1 or not _is_float(value.dtype)):
        return _known(value)
    return value


def _known(like: Tensor) -> Tensor:
    """Values in the place of those that are not known: True, 1, or 0.1, which may be a loss, a
    probability or a factor.
    """
    with no_dispatch():
        return torch.full(like.shape, 0.1 if _is_float(like.dtype) else 1, dtype=like.dtype)


def _places(mask: Any) -> list[object]:
    """Where a mask is True; every place of one without values."""
    with no_dispatch():
        known = torch.ones(mask.shape) if isinstance(mask, FakeTensor) else mask
        return list(known.nonzero(as_tuple=True))


def _of_integers(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator takes integers and booleans that have values, or makes new ones."""
    if any(isinstance(a, FakeTensor) for a in args):  # most often, and quickest
        return False
    if func is _CONVERTED:
        return False
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    if tensors:
        return not any(isinstance(t, FakeTensor) or _is_float(t.dtype) for t in tensors)
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return not _is_float(dtype)
    numbers = [a for a in args if isinstance(a, float)]
    return func.overloadpacket.__name__ in _INDICES and not numbers


def _is_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def emptied(model: FoundationModel, fakes: FakeMode) -> FoundationModel:
    """The same model with its parameters and buffers replaced by fake ones, in place."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:  # what is shared stays shared
            new: Tensor = fakes.from_tensor(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = new
        return made[id(tensor)]

    for module in model.module.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and _is_float(tensor.dtype):
                    cast(dict[str, Tensor], tensors)[name] = fake(tensor)
    return model


@contextmanager
def without_values(fakes: FakeMode) -> Iterator[None]:
    """Count inside as in a run, with new tensors fake, the way that torch takes for real ones."""
    with (
        as_in_a_run(),
        _replaced(nn.Module, "_apply", _apply),
        _replaced(functional, "one_hot", _one_hot(fakes)),
        _replaced(FakeTensor, "__deepcopy__", _deepcopy),
        _replaced(FakeTensor, "numpy", _numpy(fakes)),
        _in_foreach(),
        fakes,
    ):
        yield


def reads_values(error: BaseException) -> bool:
    """Whether an exception says that a value was asked for that fake tensors do not have."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(isinstance(each, _VALUE_ERRORS) for each in causes)


WORDS = 16
"""Tokens of a question on an image."""


def sample_inputs(
    shape: tuple[int, ...], n: int, words: bool = False, boxes: bool = False
) -> Inputs:
    """Inputs of n samples: floats, or for shape (length,) token ids, the last quarter padded.

    ``words``: with `WORDS` token ids beside the floats; ``boxes``: with a box around each image,
    in whole pixels, whose values stay known.
    """
    if boxes:
        edges = torch.tensor([0, 0, shape[-1], shape[-2]]).repeat(n, 1)
        return {"image": torch.zeros(n, *shape), "box": edges}
    if len(shape) > 1:
        x = torch.zeros(n, *shape)
        return {"image": x, **cast(dict[str, Tensor], sample_inputs((WORDS,), n))} if words else x
    (length,) = shape
    mask = torch.ones(n, length, dtype=torch.int64)
    mask[:, length - length // 4 :] = 0
    return {"input_ids": torch.zeros_like(mask), "attention_mask": mask}


# ---------------------------------------------------------------------------

_torch_apply = nn.Module._apply
_torch_one_hot = functional.one_hot


def _apply(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """As ``nn.Module._apply``, but a move to where all is does nothing: torch may refuse it."""
    tensors = [*self.parameters(recurse), *self.buffers(recurse)]
    if all(fn(tensor) is tensor for tensor in tensors):
        return self
    return cast(nn.Module, _torch_apply(self, fn, recurse))


def _deepcopy(self: FakeTensor, memo: dict[int, Any]) -> Tensor:
    """Parameters as ``nn.Parameter`` copies itself; others by a copy that is no operator."""
    if id(self) not in memo and isinstance(self, nn.Parameter):
        copied = self.data.clone(memory_format=torch.preserve_format)
        memo[id(self)] = nn.Parameter(copied, self.requires_grad)
    if id(self) in memo:
        return cast(Tensor, memo[id(self)])
    with uncounted():
        return cast(Tensor, Tensor.__deepcopy__(self, memo))


@contextmanager
def _replaced(owner: Any, name: str, function: Any) -> Iterator[None]:
    """Replace what a class or module defines by a name, or add it, and undo that at the end."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def _in_foreach() -> Iterator[None]:
    """Let fake tensors through multi-tensor operators, such as those that clip gradients."""
    _foreach_supported_types.append(FakeTensor)
    try:
        yield
    finally:
        _foreach_supported_types.remove(FakeTensor)


def _numpy(fakes: FakeMode) -> Any:
    """Values for numpy."""

    def numpy(self: FakeTensor, *, force: bool = False) -> Any:
        fakes.assumed += 1
        with no_dispatch():
            return _known(self).numpy()

    return numpy


def _one_hot(fakes: FakeMode) -> Any:
    """As ``one_hot``, which on fake labels runs other operators than on real ones."""

    def one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
        if not isinstance(labels, FakeTensor) or num_classes < 1:
            return _torch_one_hot(labels, num_classes)
        with uncounted():
            like = torch.zeros(labels.shape, dtype=labels.dtype)
        return fakes.from_tensor(_torch_one_hot(like, num_classes))

    return one_hot
