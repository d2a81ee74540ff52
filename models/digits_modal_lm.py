"""The embedded language model with two modalities: a small OPT and two small encoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench import BenchError, Block, ModelConfig, SourceTraining, register
from bench.contracts.data import Inputs
from bench.contracts.modal import ModalModel, require_modality

from .hf_blocks import TransformersModel

CAPTION, PRETRAINED = "caption", "pretraining_caption"
"""The input that says in words what a source sample shows, and its name in source training."""


EAGER: dict[str, Any] = {"attn_implementation": "eager"}
"""A keyword of configurations that is in no signature."""


class DigitsModalConfig(ModelConfig):
    """Sizes of the decoder: ``width``, ``depth`` in blocks, ``heads``; of both encoders:
    ``encoder_width``, ``encoder_depth``, ``patch`` in pixels.

    ``modalities``: names of the two inputs, the one that the model is deployed with first;
    ``tokens``: of each modality, the [CLS] tokens of so many last hidden states; ``vocabulary``:
    numbers that words may have.
    """

    modalities: tuple[str, str] = ("image", "range")
    width: int = Field(64, ge=8)
    depth: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    encoder_width: int = Field(48, ge=8)
    encoder_depth: int = Field(4, ge=1)
    patch: int = Field(8, ge=1)
    tokens: int = Field(4, ge=1)
    vocabulary: int = Field(64, ge=2)

    @model_validator(mode="after")
    def _fits(self) -> DigitsModalConfig:
        if self.modalities[0] == self.modalities[1]:
            raise ValueError("modalities: names one twice; give two")
        if self.width % self.heads or self.encoder_width % self.heads:
            raise ValueError("heads: must divide width and encoder_width")
        if self.tokens > self.encoder_depth:
            raise ValueError("tokens: there is one for each hidden state; at most encoder_depth")
        return self


class _Encoder(nn.Module):
    """A vision transformer of timm, its [CLS] token after each of the last blocks."""

    def __init__(self, c: DigitsModalConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.kept = c.tokens
        self.body = VisionTransformer(
            img_size=(shape[1], shape[2]), patch_size=c.patch, in_chans=shape[0], num_classes=0,
            embed_dim=c.encoder_width, depth=c.encoder_depth, num_heads=c.heads,
        )  # fmt: skip
        self.names = nn.Linear(c.encoder_width, c.vocabulary)  # for source training alone

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (n, kept, width), the last block's last."""
        body = cast(Any, self.body)
        hidden = body._pos_embed(body.patch_embed(2 * image - 1))
        found = []
        for block in body.blocks:
            hidden = block(hidden)
            found.append(hidden[:, 0])
        return cast(Tensor, body.norm(torch.stack(found[-self.kept :], dim=1)))


class ModalNet(nn.Module):
    """Decoder, head, encoders, and the projection by which the first modality is read."""

    def __init__(self, c: DigitsModalConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        from transformers import OPTConfig, OPTModel

        sizes = OPTConfig(
            vocab_size=c.vocabulary, hidden_size=c.width, word_embed_proj_dim=c.width,
            ffn_dim=4 * c.width, num_hidden_layers=c.depth, num_attention_heads=c.heads,
            max_position_embeddings=128, dropout=0.0, pad_token_id=None, bos_token_id=None,
            eos_token_id=None, **EAGER,
        )  # fmt: skip
        self.language = OPTModel(sizes)
        self.head = nn.Linear(c.width, classes)
        self.encoders = nn.ModuleDict({m: _Encoder(c, shape) for m in c.modalities})
        self.projection = nn.Linear(c.encoder_width, c.width)


@register("model", "digits-modal-lm")
class DigitsModalLM(TransformersModel, ModalModel):
    """Small OPT that answers questions about digits that two encoders see, 6 blocks of width 64.

    No block is declared for surgery: OPT's feed-forward layers see the tokens of a batch as rows,
    and the mask, by which rows are given back to samples, does not count a modality's tokens.

    On the source the decoder learns to answer from captions in words, each encoder alone to name a
    caption's last word by a head that nothing uses later, and a projection of the first encoder's
    tokens to take the place of a caption while the decoder stays as it is. So the decoder has met
    no modality, and of the second one nothing but its encoder is trained. Logits are those of the
    answers alone, not of the whole vocabulary, of the last word.
    """

    Config = DigitsModalConfig
    input_shape = (1, 32, 32)
    preload = ("timm.models.vision_transformer", "transformers.models.opt.modeling_opt")
    source_training = SourceTraining(epochs=40, learning_rate=2e-3)

    @classmethod
    def build(
        cls, config: DigitsModalConfig, input_shape: tuple[int, ...], classes: int
    ) -> DigitsModalLM:
        """For both modalities of ``input_shape``, (channels, height, width)."""
        if len(input_shape) != 3 or any(side % config.patch for side in input_shape[1:]):
            raise BenchError(
                f"digits-modal-lm: samples of shape {tuple(input_shape)} are no images of whole "
                f"patches of {config.patch}; change the size of the images, or 'patch'"
            )
        module: Any = ModalNet(config, input_shape, classes)
        made = cls(module)
        made.modalities = config.modalities
        made.encoder_width, made.width = config.encoder_width, config.width
        made.tokens_each, made.encoder_blocks = config.tokens, config.encoder_depth
        made.patch_values = input_shape[0] * config.patch**2
        made.encoder_patches = input_shape[1] * input_shape[2] // config.patch**2
        return made

    def blocks(self) -> list[Block]:
        return []

    @property
    def net(self) -> ModalNet:
        return cast(ModalNet, self.module)

    @property
    def layers(self) -> nn.ModuleList:
        return self.net.language.decoder.layers

    def language_parameters(self) -> list[nn.Parameter]:
        return [*self.net.language.parameters(), *self.net.head.parameters()]

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, classes); in source training more, see `loss`."""
        if not isinstance(x, dict):
            raise TypeError(
                f"digits-modal-lm: samples are a {type(x).__name__}, not a dict of modalities and "
                "input_ids; take a stream of these"
            )
        if PRETRAINED in x:
            return self._pretraining(x)
        return self.answered(x, self.net.projection(self.encoded(self.modalities[0], x)))

    def encoded(self, name: str, x: Inputs) -> Tensor:
        return cast(Tensor, self.net.encoders[name](require_modality(name, x)))

    def answered(self, x: Inputs, soft: Tensor | None = None, cache: Any = None) -> Tensor:
        """What stands before a question, whatever its kind and number, has the positions 0 to
        ``tokens_each`` - 1 in turns, as captions have them; the question's follow.
        """
        hidden = self.net.language(**self._given(x["input_ids"], soft, cache)).last_hidden_state
        return cast(Tensor, self.net.head(hidden[:, -1]))

    def _given(self, ids: Tensor, soft: Tensor | None, cache: Any) -> dict[str, Any]:
        """What the decoder is called with."""
        embedded = self._embedded(ids)
        at = torch.arange(ids.shape[1], device=ids.device) + self.tokens_each
        past = 0 if cache is None else cache.get_seq_length()
        if soft is not None:
            embedded = torch.cat([soft.to(embedded.dtype), embedded], dim=1)
            at = torch.cat([torch.arange(soft.shape[1], device=at.device) % self.tokens_each, at])
        n, length = embedded.shape[:2]
        return {
            "inputs_embeds": embedded,
            "attention_mask": torch.ones(n, past + length, dtype=torch.int64, device=at.device),
            "position_ids": at.expand(n, -1),
            "past_key_values": cache,
            "use_cache": cache is not None,
        }

    def _embedded(self, ids: Tensor) -> Tensor:
        try:
            return cast(Tensor, self.net.language.decoder.embed_tokens(ids))
        except IndexError as error:
            raise BenchError(
                f"a word has the number {int(ids.max())}, and the model's vocabulary is "
                f"{self.net.language.config.vocab_size}: raise its setting 'vocabulary'"
            ) from error

    # --- source training -------------------------------------------------------------------------

    def augment(self, x: Inputs) -> Inputs:
        """Source samples with captions are trained on as the class says."""
        if not isinstance(x, dict) or CAPTION not in x:
            return x
        return {PRETRAINED if name == CAPTION else name: part for name, part in x.items()}

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The task's; in source training the mean over two answers to each question, and what
        naming the captions' words costs, which stands behind the logits.
        """
        classes = self.net.head.out_features
        answers = outputs[:, :classes]
        loss = super().loss(answers, y.repeat(len(outputs) // len(y)), label_smoothing)
        return loss + outputs[:, classes:].sum() / len(outputs)

    def _pretraining(self, x: Inputs) -> Tensor:
        """Answers by the caption, and by the projection with the decoder fixed, 2 n rows; behind
        their logits the cross-entropy of naming the caption's last word, a column each modality.
        """
        caption = x[PRETRAINED]
        by_caption = self.answered(x, self._embedded(caption))
        tokens = [self.encoded(name, x) for name in self.modalities]
        with _fixed(self.language_parameters()):
            by_first = self.answered(x, self.net.projection(tokens[0].detach()))
        named = [
            nn.functional.cross_entropy(
                cast(_Encoder, self.net.encoders[name]).names(found[:, -1]),
                caption[:, -1], reduction="none", label_smoothing=0.1,
            )
            for name, found in zip(self.modalities, tokens, strict=True)
        ]  # fmt: skip
        costs = torch.stack(named, dim=1).repeat(2, 1)
        return torch.cat([torch.cat([by_caption, by_first]), costs], dim=1)


@contextmanager
def _fixed(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Inside, no gradient of what is computed reaches these parameters."""
    needed = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p, was in zip(parameters, needed, strict=True):
            p.requires_grad_(was)
