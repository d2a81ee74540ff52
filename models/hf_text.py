"""Texts in networks of Hugging Face's transformers: encoders that classify them."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from bench import BenchError, register
from bench.contracts.data import Inputs

from .hf_blocks import TransformersModel
from .hugging_face import HuggingFaceConfig, HuggingFaceModel


class TextModel(TransformersModel):
    """A model whose module is one of transformers for texts or their tokens.

    Inputs are a dict of ``input_ids`` and ``attention_mask``, int64 tensors of shape (n, length).
    """

    def __call__(self, x: Inputs) -> Tensor:
        """Logits, (n, classes) of texts or (n, length, classes) of tokens."""
        given = {name: x[name] for name in ("input_ids", "attention_mask")}
        return logits_of(self.module, given)


def logits_of(module: nn.Module, given: dict[str, Tensor], **more: Any) -> Tensor:
    """What a network says of texts, alone or with images; BenchError for a token it lacks."""
    try:
        return cast(Tensor, module(**given, **more).logits)
    except IndexError as error:
        known = cast(Any, module).config.vocab_size
        if (highest := int(given["input_ids"].max())) < known:
            raise
        raise BenchError(
            f"a token has the number {highest}, and the model's vocabulary is {known}: give "
            "the data the vocabulary of this model"
        ) from error


@register(
    "model",
    "hf-tokens",
    task="token-classification",
    summary="A text encoder of transformers with a class for each token, as hf-tokens:FOLDER.",
)
@register("model", "hf")
class TextEncoder(TextModel, HuggingFaceModel):
    """A text encoder of transformers with a class for each text, written as hf:FOLDER.

    Inputs are a dict of ``input_ids`` and ``attention_mask``, int64 tensors of shape (n, length),
    made by the tokenizer of the same folder. Encoders with the layers of BERT or DistilBERT
    declare their blocks; to others LoRA, pruning and proxies do not apply.
    """

    input_shape = (128,)
    named_setting = "folder"
    default = "DistilBertConfig"
    conformance_config = {"changes": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}}

    @classmethod
    def network(cls) -> str:
        units = "Token" if cls.task == "token-classification" else "Sequence"
        return f"AutoModelFor{units}Classification"

    @classmethod
    def build(
        cls, config: HuggingFaceConfig, input_shape: tuple[int, ...], classes: int
    ) -> TextEncoder:
        """A model for texts of ``input_shape``, (length,) in tokens."""
        require_texts(input_shape)
        made = cls.made(config, classes)
        require_positions(made.module, input_shape[0])
        return made


def require_texts(input_shape: tuple[int, ...]) -> None:
    """BenchError unless samples are texts."""
    if len(input_shape) != 1:
        raise BenchError(
            f"hf: samples of shape {tuple(input_shape)} are no texts (tokens,); choose a "
            "stream of texts"
        )


def require_positions(module: nn.Module, length: int) -> None:
    """BenchError if texts are longer than the network has positions."""
    for name, layer in module.named_modules():
        names = ("position_embeddings", "embed_positions", "wpe")
        if name.endswith(names) and isinstance(layer, nn.Embedding):
            # RoBERTa counts from behind its padding's position, and OPT and BART from 2.
            first = 0 if layer.padding_idx is None else layer.padding_idx + 1
            first = int(getattr(layer, "offset", first))
            if length > layer.num_embeddings - first:
                raise BenchError(
                    f"hf: texts of {length} tokens are longer than the model's "
                    f"{layer.num_embeddings - first} positions; choose a stream of shorter texts"
                )
