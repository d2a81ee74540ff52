"""The contracts of a foundation model (a real ``nn.Module``) and of a variant made of it."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from bench.contracts.data import DomainView, Inputs, LazyInputs, Placed
from bench.contracts.module_names import module_at, nearest_module
from bench.contracts.task import Task, make_task
from bench.errors import BenchError, Unsupported
from bench.io.digest import digest

if TYPE_CHECKING:
    from bench.contracts.stream import Stream


@dataclass(frozen=True)
class Block:
    """Names of one transformer block's linear layers, relative to the model's module.

    ``qkv`` holds one name if query, key and value are one fused layer (rows in that order), else
    three. ``heads`` is the number of attention heads, ``attention`` the module that holds their
    number and width; surgery on widths needs it. ``scaled``: scores are divided by the root of the
    head width; False where they are not (T5, GPT-Neo), or by a constant.
    """

    qkv: tuple[str, ...]
    out: str
    ff_in: str
    ff_out: str
    heads: int
    attention: str = ""
    scaled: bool = True

    @property
    def fused(self) -> bool:
        """Whether query, key and value are computed by one layer."""
        return len(self.qkv) == 1


class SourceTraining(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """How a model is trained on the source: AdamW, one-cycle rate, label smoothing.

    ``epochs`` 0: not at all, its weights are those that it is built with.
    Units: ``learning_rate`` is the peak of the cycle; ``warmup`` is the share of the steps before
    the peak; ``clip_norm`` bounds the gradient's 2-norm.
    """

    epochs: int = pydantic.Field(60, ge=0)
    batch_size: int = pydantic.Field(64, ge=1)
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    weight_decay: float = pydantic.Field(0.05, ge=0)
    warmup: float = pydantic.Field(0.2, gt=0, lt=1)
    label_smoothing: float = pydantic.Field(0.1, ge=0, lt=1)
    clip_norm: float = pydantic.Field(1.0, gt=0)


class ModelConfig(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of a model's settings; they are part of a cell's identity."""


class FoundationModel(ABC):
    """A model from timm, transformers or elsewhere, with its structure declared by names.

    Subclasses implement `build` and `blocks`, set ``head_name`` (the task head inside ``module``),
    and may override the rest. ``task`` is what its outputs mean: cells whose stream or method does
    another task are not run. ``preload`` names modules that are slow to import. ``input_shape`` is
    the usual shape of a sample, for `bench fit`: (channels, height, width), or (tokens,) for texts.
    ``conformance_config``: settings for `bench check`, where the default network is large.
    ``named_setting``: the setting that suites and commands may write behind the model's name, as
    ``timm:resnet18``. ``fixed_classes``: the only number of classes that it can be built for.
    ``takes_boxes``: samples are a dict of ``image`` and ``box``, float32 (n, 4): left, upper, right
    and lower edge in pixels, the last two outside.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    task: ClassVar[str] = "classification"
    preload: ClassVar[tuple[str, ...]] = ()
    input_shape: ClassVar[tuple[int, ...] | None] = None
    conformance_config: ClassVar[dict[str, Any]] = {}
    named_setting: ClassVar[str] = ""
    fixed_classes: ClassVar[int | None] = None
    takes_boxes: ClassVar[bool] = False
    source_training: ClassVar[SourceTraining] = SourceTraining()
    head_name: str = "head"

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @classmethod
    @abstractmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> FoundationModel:
        """A model with fresh weights, drawn from torch's global generator.

        ``input_shape`` is one sample's shape, (channels, height, width) for images.
        """

    @classmethod
    def build_for(cls, config: Any, stream: Stream) -> FoundationModel:
        """A model for a stream; by default `build` for its samples' shape and its classes."""
        return cls.build(config, stream.input_shape, stream.classes)

    @abstractmethod
    def blocks(self) -> list[Block]:
        """The transformer blocks from input to output; empty if the model has none."""

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        """Split queries, keys and values into ``heads`` parts of ``head_width`` after a cut, and,
        where the block is ``scaled``, scale scores by head_width**-0.5. Raises Unsupported where a
        model cannot.
        """
        raise Unsupported(
            f"{type(self).__name__}: its attention cannot change width; implement "
            "resize_attention() and name the attention module in blocks()"
        )

    def __call__(self, x: Inputs) -> Tensor:
        """Task outputs: logits of shape (n, classes) for classification; see the task's class."""
        return self.module(x)

    def with_features(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """Outputs and the features before the head, from one forward pass.

        Features have the shape (n, width), or that of a sample with several units, see
        `unit_features`. Raises Unsupported if the head is not called, or not with all units.
        """
        caught: list[Any] = []

        def catch(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            caught.append(next(iter((*inputs, *named.values())), None))

        handle = self.head.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            outputs = self(x)
        finally:
            handle.remove()
        head = f"{type(self).__name__}: head {self.head_name!r}"
        if not caught:
            raise Unsupported(f"{head} was not called; name in head_name a layer that is")
        features = caught[-1]
        real = isinstance(features, Tensor) and features.is_floating_point()
        if not real or not self.rules.aligned(features, outputs):
            kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise Unsupported(
                f"{head} is given {tuple(getattr(features, 'shape', ()))} ({kind}) for "
                f"{len(outputs)} samples, not features of shape (n, width); name in head_name the "
                "last layer"
            )
        return outputs, features

    @property
    def rules(self) -> Task:
        """The `Task` that says what outputs mean."""
        return _rules_of(type(self))

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean task loss, a scalar."""
        return self.rules.loss(outputs, y, label_smoothing)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        """Mean loss to a teacher's outputs, a scalar."""
        return self.rules.distillation_loss(outputs, teacher, x)

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        """Logits (units, classes) of the decisions in the outputs: see `bench.contracts.task`."""
        return self.rules.units(outputs, x)

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        """Features (units, width) of the same units."""
        return self.rules.unit_features(features, x)

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        """One feature for each sample, (n, width)."""
        return self.rules.pooled(features, x)

    def augment(self, x: Inputs) -> Inputs:
        """A random variant of training inputs for source training; by default the inputs."""
        return x

    @property
    def least_batch(self) -> int:
        """Fewest samples that a batch may have: 2 with BatchNorm, whose statistics of one sample
        are not defined, else 1.
        """
        kind = nn.modules.batchnorm._BatchNorm
        return 2 if any(isinstance(layer, kind) for layer in self.module.modules()) else 1

    @property
    def head(self) -> nn.Module:
        """The task head; BenchError if ``head_name`` names no module of the network."""
        found = module_at(self.module, self.head_name)
        if found is None:
            raise BenchError(
                f"{type(self).__name__}: head_name {self.head_name!r} is no module of its network; "
                f"{nearest_module(self.module, self.head_name)}"
            )
        return found

    def head_parameters(self) -> list[nn.Parameter]:
        """The task head's parameters."""
        return list(self.head.parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        """All parameters but the task head's."""
        head = {id(p) for p in self.head_parameters()}
        return [p for p in self.module.parameters() if id(p) not in head]

    def normalization_parameters(self) -> list[nn.Parameter]:
        """Scale and shift of every normalization layer (LayerNorm, GroupNorm, BatchNorm)."""
        kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
        layers = [layer for layer in self.module.modules() if isinstance(layer, kinds)]
        return [p for layer in layers for p in layer.parameters(recurse=False)]

    def clone(self) -> FoundationModel:
        """An independent copy with equal weights."""
        return copy.deepcopy(self)

    def freeze_except(self, parameters: list[nn.Parameter]) -> None:
        """Let gradients flow to ``parameters`` only."""
        wanted = {id(p) for p in parameters}
        for p in self.module.parameters():
            p.requires_grad_(id(p) in wanted)

    def train(self, mode: bool = True) -> None:
        """Training (dropout on) or evaluation mode of the module."""
        self.module.train(mode)

    def eval(self) -> None:
        """Evaluation mode, as ``train(False)``."""
        self.train(False)


@cache
def _rules_of(model_class: type[FoundationModel]) -> Task:
    """Made once: methods ask in each step."""
    return make_task(model_class.task)


class Variant(ABC):
    """Makes the model that a device gets from the one that was trained on the source, offline.

    ``Config`` has at least ``ratio``, how many times narrower: suites write ``NAME:RATIO``.
    ``tasks``: those of the models that it can be made of.
    """

    Config: ClassVar[type[ModelConfig]]
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def make(self, model: FoundationModel, source: DomainView) -> FoundationModel:
        """The variant of ``model``, in evaluation mode; ``source`` is labelled.

        ``model`` stays as it is. Equal for equal model, source, ``source.draw`` (the seed of what
        is drawn) and settings.
        """


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's parameters and buffers."""
    return tensors_digest(module.state_dict())


@torch.no_grad()
def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of tensors, independent of their order."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def source_digest(source: DomainView) -> str:
    """Digest of a labelled view's samples, of the size of its batches and of its draw."""
    draw = [source.draw] if source.draw else []  # so that what the first draw made keeps its name
    labels = _labels_digest(source)
    return digest([inputs_digest(source.x), labels, source.batch_size, *draw])


def _labels_digest(view: DomainView) -> str:
    """`tensors_digest` of all labels, which are taken a batch at a time."""
    batches = torch.arange(len(view)).split(view.batch_size)
    sha = hashlib.sha256()
    for i, chosen in enumerate(batches):
        y = view.labels_at(chosen).cpu().contiguous()
        if i == 0:
            sha.update(f"y{(len(view), *y.shape[1:])}{y.dtype}".encode())
        sha.update(y.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def inputs_digest(x: Inputs) -> str:
    """Digest of inputs; of lazy ones by what the samples are made of, without reading them."""
    if isinstance(x, Placed):
        return inputs_digest(x.inputs)
    if isinstance(x, LazyInputs):
        return x.digest()
    return tensors_digest(x if isinstance(x, dict) else {"x": x})
