"""Text encoders of Hugging Face's transformers, from a local folder with a config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from bench import BenchError, Block, FoundationModel, LocalPath, ModelConfig, register
from bench.contracts.data import Inputs

from .weights import FILES


@dataclass(frozen=True)
class Layout:
    """Names in one family of encoders: of the list of layers, and relative to one of them."""

    layers: str
    qkv: tuple[str, ...]
    out: str
    ff_in: str
    ff_out: str
    attention: str
    heads: str


BERT = Layout(
    layers="encoder.layer",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    ff_in="intermediate.dense",
    ff_out="output.dense",
    attention="attention.self",
    heads="num_attention_heads",
)
"""Also of RoBERTa, ELECTRA, CamemBERT and XLM-RoBERTa."""
DISTILBERT = Layout(
    layers="transformer.layer",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out="attention.out_lin",
    ff_in="ffn.lin1",
    ff_out="ffn.lin2",
    attention="attention",
    heads="n_heads",
)
LAYOUTS = (BERT, DISTILBERT)


class TextEncoder(FoundationModel):
    """A model whose module is one of transformers for texts or their tokens.

    Inputs are a dict of ``input_ids`` and ``attention_mask``, int64 tensors of shape (n, length).
    """

    def blocks(self) -> list[Block]:
        prefix = str(cast(Any, self.module).base_model_prefix)
        names = dict(self.module.named_modules())
        for layout in LAYOUTS:
            layers = f"{prefix}.{layout.layers}"
            parts = (*layout.qkv, layout.out, layout.ff_in, layout.ff_out, layout.attention)
            if all(f"{layers}.0.{part}" in names for part in parts):
                count = len(cast(Any, names[layers]))
                return [self._block(f"{layers}.{i}.", layout) for i in range(count)]
        return []

    def _block(self, layer: str, layout: Layout) -> Block:
        attention = self.module.get_submodule(layer + layout.attention)
        return Block(
            qkv=tuple(layer + part for part in layout.qkv),
            out=layer + layout.out,
            ff_in=layer + layout.ff_in,
            ff_out=layer + layout.ff_out,
            heads=cast(int, getattr(attention, layout.heads)),
            attention=layer + layout.attention,
        )

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention = cast(Any, self.module.get_submodule(block.attention))
        name = next(each.heads for each in LAYOUTS if hasattr(attention, each.heads))
        setattr(attention, name, heads)
        attention.attention_head_size = head_width
        attention.scaling = head_width**-0.5

    def __call__(self, x: Inputs) -> Tensor:
        """Logits, (n, classes) of texts or (n, length, classes) of tokens."""
        given = {name: x[name] for name in ("input_ids", "attention_mask")}
        try:
            return cast(Tensor, self.module(**given).logits)
        except IndexError as error:
            known = cast(Any, self.module).config.vocab_size
            if (highest := int(given["input_ids"].max())) < known:
                raise
            raise BenchError(
                f"a token has the number {highest}, and the model's vocabulary is {known}: give "
                "the data the vocabulary of this model"
            ) from error


class HuggingFaceConfig(ModelConfig):
    """``folder``: as transformers saves it, with a config.json, and weights unless they are to be
    random; empty: a DistilBERT with random weights. ``changes`` of what the config.json says, by
    its keys. ``attention``: the implementation. ``dtype`` of the weights.
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


@register(
    "model",
    "hf-tokens",
    task="token-classification",
    summary="A text encoder of transformers with a class for each token, as hf-tokens:FOLDER.",
)
@register("model", "hf")
class HuggingFaceModel(TextEncoder):
    """A text encoder of transformers with a class for each text, written as hf:FOLDER.

    Inputs are a dict of ``input_ids`` and ``attention_mask``, int64 tensors of shape (n, length),
    made by the tokenizer of the same folder. Encoders with the layers of BERT or DistilBERT
    declare their blocks; to others LoRA, pruning and proxies do not apply.
    """

    Config = HuggingFaceConfig
    input_shape = (128,)
    preload = ("transformers.modeling_utils",)
    named_setting = "folder"
    conformance_config = {"changes": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}}

    @classmethod
    def build(
        cls, config: HuggingFaceConfig, input_shape: tuple[int, ...], classes: int
    ) -> HuggingFaceModel:
        """A model for texts of ``input_shape``, (length,) in tokens."""
        if len(input_shape) != 1:
            raise BenchError(
                f"hf: samples of shape {tuple(input_shape)} are no texts (tokens,); choose a "
                "stream of texts"
            )
        sizes = _sizes(config, classes)
        module = _module(cls.task, config, sizes)
        _require_positions(module, input_shape[0])
        made = cls(module)
        made.head_name = _head(module, classes)
        return made


def _sizes(config: HuggingFaceConfig, classes: int) -> Any:
    """The configuration of transformers; BenchError if the folder has none."""
    from transformers import AutoConfig, DistilBertConfig

    more: dict[str, Any] = {**config.changes, "num_labels": classes}
    try:
        if not config.folder:
            return DistilBertConfig(**more)
        return AutoConfig.from_pretrained(config.folder, local_files_only=True, **more)
    except Exception as error:  # each class of transformers checks its keys in its own way
        raise BenchError(
            f"hf: no model can be made of {config.folder or 'DistilBERT'} with changes "
            f"{config.changes}: {error}; give a folder with the config.json of a model"
        ) from error


def _module(task: str, config: HuggingFaceConfig, sizes: Any) -> nn.Module:
    """The network of a task, with the folder's weights if it has some."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kinds: dict[str, Any] = {
        "classification": AutoModelForSequenceClassification,
        "token-classification": AutoModelForTokenClassification,
    }
    dtype = getattr(torch, config.dtype)
    more: dict[str, Any] = {"attn_implementation": config.attention, "dtype": dtype}
    folder = config.folder
    if folder and any(any(Path(folder).glob(pattern)) for pattern in FILES):
        return from_folder(kinds[task], folder, sizes, **more)
    try:
        return cast(nn.Module, kinds[task].from_config(sizes, **more))
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"hf: {folder or 'DistilBERT'} gives no network for {task}: {error}; look at its "
            "config.json"
        ) from error


def from_folder(kind: Any, folder: str, sizes: Any, **more: Any) -> nn.Module:
    """A network of a class of transformers with a folder's weights.

    A head or pooler that is missing or of another size keeps fresh weights, which one line says.
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
    body = f"{module.base_model_prefix}."
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


def _require_positions(module: nn.Module, length: int) -> None:
    """BenchError if texts are longer than the network has positions."""
    for name, layer in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(layer, nn.Embedding):
            # RoBERTa counts from behind its padding's position.
            first = 0 if layer.padding_idx is None else layer.padding_idx + 1
            if length > layer.num_embeddings - first:
                raise BenchError(
                    f"hf: texts of {length} tokens are longer than the model's "
                    f"{layer.num_embeddings - first} positions; choose a stream of shorter texts"
                )


def _head(module: nn.Module, classes: int) -> str:
    """The last linear layer, which gives one logit a class."""
    linear = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    found = [name for name, layer in linear.items() if layer.out_features == classes]
    prefix = f"{cast(Any, module).base_model_prefix}."
    heads = [name for name in found if not name.startswith(prefix)]
    if not heads:
        raise BenchError(
            f"hf: {type(module).__name__} has no linear layer of {classes} outputs; name another "
            "architecture"
        )
    return heads[-1]
