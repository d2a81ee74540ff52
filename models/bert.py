"""BERT for the classification of texts, by Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path

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

    @classmethod
    def build(cls, config: BertConfig, input_shape: tuple[int, ...], classes: int) -> Bert:
        """A model for texts of ``input_shape`` (length,) in tokens."""
        if len(input_shape) != 1 or input_shape[0] > config.positions:
            raise BenchError(
                f"bert-base: input shape {tuple(input_shape)} is not (length,) with at most "
                f"{config.positions} tokens; choose a stream of texts or raise 'positions'"
            )
        if config.hidden_size % config.heads:
            raise BenchError(
                f"bert-base: hidden_size {config.hidden_size} is not divisible by heads "
                f"{config.heads}; change one"
            )
        from transformers.models.bert import BertConfig as Sizes
        from transformers.models.bert.modeling_bert import BertForSequenceClassification

        sizes = Sizes(  # type: ignore[call-arg]  # its base takes num_labels
            vocab_size=config.vocabulary,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.positions,
            num_labels=classes,
        )
        kind = BertForSequenceClassification
        if config.weights and Path(config.weights).is_dir():
            return cls(from_folder(kind, config.weights, sizes, dtype=torch.float32))
        module = kind(sizes)
        if config.weights:
            load_weights(module, config.weights, cls.head_name)
        return cls(module)
