"""Networks of Hugging Face's transformers that generate texts: decoders, and encoder-decoders."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor

from bench import BenchError, Block, register
from bench.contracts.data import Inputs

from .hf_blocks import T5_DECODER, T5_ENCODER
from .hf_text import TextModel, logits_of, require_positions, require_texts
from .hugging_face import EagerConfig, HuggingFaceConfig, HuggingFaceModel, has_weights

FILLING = 256
"""Most rows of a table of tokens that no token has: it is filled up to a round number."""


class GenerativeModel(TextModel, HuggingFaceModel):
    """A network whose classes are the tokens of its vocabulary.

    ``tokens``: how many of them the data has.
    """

    tokens: int
    task = "generation"
    input_shape = (128,)
    named_setting = "folder"
    Config = EagerConfig

    @classmethod
    def build(cls, config: HuggingFaceConfig, input_shape: tuple[int, ...], classes: int) -> Self:
        """A model for texts of ``input_shape``, (length,) in tokens.

        Without weights in the folder the vocabulary is the data's, with no token of its own
        meaning.
        """
        require_texts(input_shape)
        sizes: dict[str, Any] = {"use_cache": False}  # each pass is over whole texts
        vocabulary = classes
        if has_weights(config.folder):
            vocabulary = _vocabulary(cls.registered_name, config.folder, classes)
        else:
            special = ("bos_token_id", "eos_token_id", "pad_token_id")
            sizes |= {"vocab_size": classes, **dict.fromkeys(special)}
        made = cls.made(config, vocabulary, **sizes)
        made.tokens = classes
        require_positions(made.module, input_shape[0])
        return made

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, length, classes): of the tokens that the data knows."""
        return self.logits(x)[..., : self.tokens]

    def logits(self, x: Inputs) -> Tensor:
        """Logits (n, length, vocabulary)."""
        return super().__call__(x)


@register(
    "model",
    "gpt-neo",
    published={
        "hidden_size": 768, "num_layers": 12, "num_heads": 12,
        "attention_types": [[["global", "local"], 6]],
    },
    summary="GPT-Neo (transformers), 12 blocks of width 768, 125 M parameters, as gpt-neo:FOLDER.",
)  # fmt: skip
@register(
    "model",
    "opt",
    default="OPTConfig",
    published={"hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072},
    conformance_config={
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64,
            "max_position_embeddings": 128, "word_embed_proj_dim": 32,
        }
    },
    summary="OPT (transformers), 12 blocks of width 768, 125 M parameters, as opt:FOLDER.",
)  # fmt: skip
@register(
    "model",
    "bloom",
    default="BloomConfig",
    published={"hidden_size": 1024, "n_layer": 24, "n_head": 16},
    conformance_config={"changes": {"hidden_size": 32, "n_layer": 2, "n_head": 4}},
    summary="BLOOM (transformers), 24 blocks of width 1024, 559 M parameters, as bloom:FOLDER.",
)  # fmt: skip
@register("model", "hf-lm")
class LanguageModel(GenerativeModel):
    """A causal language model of transformers, as GPT-Neo, written as hf-lm:FOLDER.

    Classes are the tokens of its vocabulary: give the data the folder's tokenizer.json. Networks
    with the layers of GPT-Neo or OPT declare their blocks; to others LoRA, pruning and proxies do
    not apply: the rows of BLOOM's query, key and value alternate head by head, and in Llama and its
    kin queries share keys, and neurons are products of two layers.
    """

    default = "GPTNeoConfig"
    conformance_config = {
        "changes": {
            "hidden_size": 32, "num_layers": 4, "num_heads": 4,
            "attention_types": [[["global", "local"], 2]], "max_position_embeddings": 128,
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "AutoModelForCausalLM"


@register(
    "model",
    "t5",
    published={"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    summary="T5 (transformers), 12 + 12 blocks of width 768, 223 M parameters, as t5:FOLDER.",
)
@register("model", "hf-seq2seq")
class EncoderDecoder(GenerativeModel):
    """An encoder-decoder of transformers that answers, as T5, written as hf-seq2seq:FOLDER.

    Inputs are as of a causal language model, question and answer in one text, with ``prompt_mask``
    (n, length): which tokens are the question (without it: the first). The encoder reads these
    alone. The decoder begins where they end: its first output is the answer's first token, and
    stands at the question's last, as in a causal model. Outputs before that are 0. Those of T5 1.0
    declare their blocks, in which the decoder's attention to the encoder stays whole; the neurons
    of T5 1.1 and FLAN-T5 are products of two layers, and other families are not known.
    """

    default = "T5Config"
    conformance_config = {
        "changes": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    }

    @classmethod
    def network(cls) -> str:
        return "AutoModelForSeq2SeqLM"

    def blocks(self) -> list[Block]:
        encoder = self.blocks_in(T5_ENCODER.layers, T5_ENCODER)
        return [*encoder, *self.blocks_in(T5_DECODER.layers, T5_DECODER)]

    def logits(self, x: Inputs) -> Tensor:
        ids, seen, asked, start = _divided(x)
        length = ids.shape[1]
        # The decoder's step k stands at the place start + k of the text.
        steps = torch.arange(length, device=ids.device) + start
        inside = (steps < length).to(ids.dtype)
        told = ids.gather(1, steps.clamp_max(length - 1))
        told[:, 0] = _first_token(self.module)
        given = {"input_ids": ids, "attention_mask": asked}
        decoder = {
            "decoder_input_ids": told,
            "decoder_attention_mask": inside * seen.gather(1, steps.clamp_max(length - 1)),
        }
        return _at_places(logits_of(self.module, given, **decoder), start)

    def with_features(self, x: Inputs) -> tuple[Tensor, Tensor]:
        outputs, features = super().with_features(x)
        return outputs, _at_places(features, _divided(x)[3])


def _divided(x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, which are no padding, which are the question, and the place of its last, (n, 1)."""
    parts = cast(dict[str, Tensor], x)
    ids, seen = parts["input_ids"], parts["attention_mask"]
    first = (torch.arange(ids.shape[1], device=ids.device) == 0).to(seen.dtype)
    asked = parts["prompt_mask"] if "prompt_mask" in parts else first.expand_as(seen)
    start = (asked.sum(dim=1, keepdim=True) - 1).clamp_min(0)
    return ids, seen, asked, start


def _first_token(module: Any) -> int:
    """The number that a decoder begins with: the one that its folder names, or its padding's."""
    named = (
        getattr(module.config, "decoder_start_token_id", None),
        module.generation_config.decoder_start_token_id,
        module.config.pad_token_id,
    )
    return next((int(number) for number in named if number is not None), 0)


def _at_places(steps: Tensor, start: Tensor) -> Tensor:
    """What the decoder has at each step, (n, length, ...), at its places in the text."""
    n, length = steps.shape[:2]
    back = torch.arange(length, device=steps.device) - start
    rows = torch.arange(n, device=steps.device).unsqueeze(1)
    return steps[rows, back.clamp_min(0)] * (back >= 0).unsqueeze(-1)


def _vocabulary(name: str, folder: str, tokens: int) -> int:
    """How many tokens a folder's network has: those of the data, and what fills up its tables."""
    from transformers import AutoConfig

    known = int(AutoConfig.from_pretrained(folder, local_files_only=True).vocab_size)
    if not tokens <= known <= tokens + FILLING:
        raise BenchError(
            f"{name}: {folder} has {known} tokens, and the data {tokens}: give the data the "
            "tokenizer.json of this model as 'vocabulary'"
        )
    return known
