"""BERT for the classification of texts, by Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pydantic import Field
from torch import Tensor, nn

from bench import BenchError, Block, FoundationModel, LocalPath, ModelConfig, register
from bench.contracts.data import Inputs

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
class Bert(FoundationModel):
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
        if config.weights and Path(config.weights).is_dir():
            return cls(_from_folder(BertForSequenceClassification, config.weights, sizes))
        module = BertForSequenceClassification(sizes)
        if config.weights:
            load_weights(module, config.weights, cls.head_name)
        return cls(module)

    def blocks(self) -> list[Block]:
        layers = cast(Any, self.module.get_submodule("bert.encoder.layer"))
        names = [f"bert.encoder.layer.{i}" for i in range(len(layers))]
        return [
            Block(
                qkv=tuple(f"{name}.attention.self.{p}" for p in ("query", "key", "value")),
                out=f"{name}.attention.output.dense",
                ff_in=f"{name}.intermediate.dense",
                ff_out=f"{name}.output.dense",
                heads=layer.attention.self.num_attention_heads,
                attention=f"{name}.attention.self",
            )
            for name, layer in zip(names, layers, strict=True)
        ]

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention = cast(Any, self.module.get_submodule(block.attention))
        attention.num_attention_heads, attention.attention_head_size = heads, head_width
        attention.all_head_size = heads * head_width
        attention.scaling = head_width**-0.5

    def __call__(self, x: Inputs) -> Tensor:
        return cast(Tensor, self.module(**x).logits)


def _from_folder(kind: Any, folder: str, sizes: Any) -> nn.Module:
    """A model from a folder; a head that is missing or has other classes keeps fresh weights."""
    try:
        module, report = kind.from_pretrained(
            folder, config=sizes, local_files_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise BenchError(f"weights {folder} cannot be read: {error}; save them anew") from error
    fresh = [*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])]
    wrong = [name for name in fresh if not name.startswith(f"{Bert.head_name}.")]
    wrong += [name for name in report["unexpected_keys"] if name.startswith("bert.encoder.")]
    if wrong:
        raise BenchError(
            f"weights {folder} do not fit at {min(wrong)}; set the sizes of the model in the folder"
        )
    return cast(nn.Module, module)
