"""BERT and RoBERTa of base size for texts and their tokens, by Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field

from bench import BenchError, LocalPath, ModelConfig, register

from .hf_text import TextModel
from .hugging_face import from_folder
from .weights import load_weights


class BertConfig(ModelConfig):
    """Sizes of the transformer, by default those of BERT base, and where its weights are.

    ``hidden_size`` of a token, ``layers``, ``heads``, ``intermediate_size`` of the feed-forward
    layers, ``vocabulary`` in tokens, ``positions`` the longest text in tokens. ``weights``: a
    folder as transformers saves it, or the file of a state dict saved by torch; empty: random.
    """

    hidden_size: int = Field(768, ge=1)
    layers: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    vocabulary: int = Field(30522, ge=1)
    positions: int = Field(512, ge=1)
    weights: LocalPath = Field("")


@register(
    "model",
    "bert-base-tokens",
    task="token-classification",
    summary="BERT (transformers), 12 blocks of width 768, with a class for each token of a text.",
)
@register("model", "bert-base")
class Bert(TextModel):
    """BERT (transformers), 12 blocks of width 768, 109.5 M parameters, for classifying texts.

    Devlin et al., NAACL 2019. Inputs are a dict of ``input_ids`` and ``attention_mask``, int64
    tensors of shape (n, length).
    """

    Config = BertConfig
    preload = ("transformers.models.bert.modeling_bert",)
    input_shape = (128,)
    conformance_config = {"hidden_size": 64, "layers": 3, "heads": 4, "intermediate_size": 128}
    head_name = "classifier"
    family: ClassVar[str] = "Bert"
    """How the names of transformers' classes begin."""
    first_position: ClassVar[int] = 0
    """The position of a text's first token; those before it belong to no token."""
    published: ClassVar[dict[str, Any]] = {}
    """What the published network has otherwise than transformers' configuration."""

    @classmethod
    def build(cls, config: BertConfig, input_shape: tuple[int, ...], classes: int) -> Self:
        """A model for texts of ``input_shape`` (length,) in tokens."""
        name = getattr(cls, "registered_name", cls.__name__)
        if len(input_shape) != 1 or input_shape[0] > config.positions:
            raise BenchError(
                f"{name}: input shape {tuple(input_shape)} is not (length,) with at most "
                f"{config.positions} tokens; choose a stream of texts or raise 'positions'"
            )
        if config.hidden_size % config.heads:
            raise BenchError(
                f"{name}: hidden_size {config.hidden_size} is not divisible by heads "
                f"{config.heads}; change one"
            )
        import transformers

        units = "Token" if cls.task == "token-classification" else "Sequence"
        kind: Any = getattr(transformers, f"{cls.family}For{units}Classification")
        sizes = getattr(transformers, f"{cls.family}Config")(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.positions + cls.first_position,
            num_labels=classes,
            **cls.published,
        )
        if config.weights and Path(config.weights).is_dir():
            return cls(from_folder(kind, config.weights, sizes, dtype=torch.float32))
        module = kind(sizes)
        if config.weights:
            load_weights(module, config.weights, cls.head_name)
        return cls(module)


class RobertaConfig(BertConfig):
    """As `BertConfig`, by default the sizes of RoBERTa base."""

    vocabulary: int = Field(50265, ge=1)


@register(
    "model",
    "roberta-base-tokens",
    task="token-classification",
    head_name="classifier",
    summary="RoBERTa (transformers), 12 blocks of width 768, with a class for each token.",
)
@register("model", "roberta-base")
class Roberta(Bert):
    """RoBERTa (transformers), 12 blocks of width 768, 124.6 M parameters, for classifying texts.

    Liu et al., 2019. Inputs as of BERT. A token of the number 1 is padding to it, which has no
    position of its own: give the data RoBERTa's vocabulary.
    """

    Config = RobertaConfig
    preload = ("transformers.models.roberta.modeling_roberta",)
    family = "Roberta"
    first_position = 2
    published = {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    head_name = "classifier.out_proj"
