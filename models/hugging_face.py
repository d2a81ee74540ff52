"""Networks of Hugging Face's transformers, from a local folder with a config.json."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, field_validator
from torch import nn

from bench import BenchError, LocalPath, ModelConfig

from .hf_blocks import LAYOUTS, TransformersModel
from .weights import FILES


class HuggingFaceConfig(ModelConfig):
    """``folder``: as transformers saves it, with a config.json, and weights unless they are to be
    random; empty: a small network's class with random weights. ``changes`` of what the config.json
    says, by its keys. ``attention``: the implementation. ``dtype`` of the weights.
    """

    folder: LocalPath = Field("", validate_default=True)
    changes: dict[str, Any] = {}
    attention: Literal["sdpa", "eager"] = "sdpa"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("folder")
    @classmethod
    def _holds_a_model(cls, folder: str) -> str:
        if folder and not (Path(folder) / "config.json").is_file():
            raise ValueError("no config.json there; give the folder of a model of transformers")
        return folder


class EagerConfig(HuggingFaceConfig):
    """As `HuggingFaceConfig`, for families of which some know no other attention than eager."""

    attention: Literal["sdpa", "eager"] = "eager"


class HuggingFaceModel(TransformersModel):
    """A network of one of transformers' classes, for the task that a subclass names.

    ``default``: the class of the configuration where no folder is given; ``published``: the keys
    of it that make a published network, whose folders must then be of this class.
    """

    Config = HuggingFaceConfig
    preload = ("transformers.modeling_utils",)
    registered_name: ClassVar[str] = "hf"
    default: ClassVar[str]
    published: ClassVar[dict[str, Any]] = {}

    @classmethod
    @abstractmethod
    def network(cls) -> str:
        """The class of transformers that finds the network of a configuration."""

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> Self:
        """The network for so many classes; ``sizes``: further keys of its configuration."""
        module = _module(cls, config, _sizes(cls, config, classes, sizes))
        made = cls(module)
        made.head_name = _head(module, classes)
        return made


def _sizes(
    kind: type[HuggingFaceModel], config: HuggingFaceConfig, classes: int, sizes: dict[str, Any]
) -> Any:
    """The configuration of transformers; BenchError if the folder has none."""
    import transformers

    more: dict[str, Any] = {"num_labels": classes, **sizes, **config.changes}
    try:
        if not config.folder:
            return getattr(transformers, kind.default)(**{**kind.published, **more})
        found = transformers.AutoConfig.from_pretrained(
            config.folder, local_files_only=True, **more
        )
    except Exception as error:  # each class of transformers checks its keys in its own way
        raise BenchError(
            f"hf: no model can be made of {config.folder or kind.default} with changes "
            f"{config.changes}: {error}; give a folder with the config.json of a model"
        ) from error
    if kind.published and type(found).__name__ != kind.default:
        raise BenchError(
            f"{kind.registered_name}: {config.folder} has a {type(found).__name__}, not a "
            f"{kind.default}; give a folder of this family"
        )
    return found


def _module(kind: type[HuggingFaceModel], config: HuggingFaceConfig, sizes: Any) -> nn.Module:
    """The network of a class of models, with the folder's weights if it has some."""
    import transformers

    found = getattr(transformers, kind.network())
    dtype = getattr(torch, config.dtype)
    more: dict[str, Any] = {"attn_implementation": config.attention, "dtype": dtype}
    if has_weights(config.folder):
        return from_folder(found, config.folder, sizes, **more)
    try:
        return cast(nn.Module, found.from_config(sizes, **more))
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"hf: {config.folder or kind.default} gives no network for {kind.task}: {error}; look "
            "at its config.json"
        ) from error


def has_weights(folder: str) -> bool:
    """Whether a folder holds weights beside its config.json."""
    return bool(folder) and any(any(Path(folder).glob(pattern)) for pattern in FILES)


def from_folder(
    kind: Any, folder: str, sizes: Any, body: str | None = None, **more: Any
) -> nn.Module:
    """A network of a class of transformers with a folder's weights.

    A head or pooler that is missing or of another size keeps fresh weights, which one line says;
    ``body``: the name of all else in the network, "" if it has no head, None as transformers says.
    Raises BenchError if the weights cannot be read or do not fit ``sizes``.
    """
    try:
        module, report = kind.from_pretrained(
            folder, config=sizes, local_files_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True, **more,
        )  # fmt: skip
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise BenchError(f"weights {folder} cannot be read: {error}; save them anew") from error
    fresh = sorted({*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])})
    body = module.base_model_prefix if body is None else body
    body = f"{body}." if body else ""
    wrong = [name for name in fresh if name.startswith(body) and ".pooler." not in name]
    layers = tuple(body + layout.layers for layout in LAYOUTS)
    wrong += [name for name in report["unexpected_keys"] if name.startswith(layers)]
    if wrong:
        raise BenchError(
            f"weights {folder} do not fit at {min(wrong)}; set the sizes of the model in the folder"
        )
    if fresh:
        print(f"weights {folder}: fresh weights for {', '.join(fresh)}")
    return cast(nn.Module, module)


def _head(module: nn.Module, classes: int) -> str:
    """The last linear layer, or convolution, which gives one logit a class."""
    outputs = {
        name: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    found = [name for name, count in outputs.items() if count == classes]
    prefix = f"{cast(Any, module).base_model_prefix}."
    heads = [name for name in found if not name.startswith(prefix)]
    if not heads:
        raise BenchError(
            f"hf: {type(module).__name__} has no layer of {classes} outputs behind its body; name "
            "another architecture"
        )
    return heads[-1]
