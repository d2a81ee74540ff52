"""Small transformers for trying every task: one encoder over patches, words or both, and a head."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import BenchError, ModelConfig, SourceTraining, register
from bench.contracts.data import Inputs

from .vit import TimmViT

DENSE = ("token-classification", "segmentation", "generation", "detection")
BOX, FIRST, PRIOR = 4, -2.0, -4.6
"""Numbers of a box; what makes the first boxes a quarter of the image, and of scores of 0.01."""


class SmallTransformerConfig(ModelConfig):
    """Sizes: ``patch`` in pixels, ``width`` of a token, ``depth`` in blocks, attention ``heads``.

    ``vocabulary``: numbers that words may have; ``words``: most tokens of a text.
    """

    patch: int = Field(8, ge=1)
    width: int = Field(64, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(8192, ge=2)
    words: int = Field(128, ge=1)


class SmallTransformerNet(nn.Module):
    """Patches of an image and embedded words, one after another, through timm's blocks to a head.

    ``images``: (channels, height, width), or None where there are texts alone. Padding is not
    attended to; for the generation of text no token sees a later one.
    """

    def __init__(
        self, c: SmallTransformerConfig, task: str, images: tuple[int, ...] | None, classes: int
    ) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.task, self.grid = task, (0, 0)
        if images is not None:
            channels, height, width = images
            self.grid = (height // c.patch, width // c.patch)
            self.patches = nn.Conv2d(channels, c.width, c.patch, c.patch)
            self.places = nn.Parameter(0.02 * torch.randn(1, self.grid[0] * self.grid[1], c.width))
        if images is None or task == "visual-question-answering":
            self.words = nn.Embedding(c.vocabulary, c.width)
            self.order = nn.Parameter(0.02 * torch.randn(1, c.words, c.width))
        blocks = (Block(c.width, c.heads, qkv_bias=True) for _ in range(c.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, classes + (BOX if task == "detection" else 0))
        if task == "detection":
            nn.init.constant_(self.head.bias[:classes], PRIOR)
            nn.init.constant_(self.head.bias[classes:], FIRST)

    def forward(self, x: Inputs) -> Tensor:
        """Outputs as the task has them."""
        hidden, seen = self._embedded(x)
        length = hidden.shape[1]
        mask = None if seen is None else seen[:, None, None, :].expand(-1, 1, length, -1)
        if self.task == "generation":
            earlier = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
            mask = earlier if mask is None else mask & earlier
        for block in self.blocks:
            hidden = block(hidden, attn_mask=mask)
        hidden = self.norm(hidden)
        if self.task in DENSE:
            logits: Tensor = self.head(hidden)
            if self.task == "segmentation":
                return logits.transpose(1, 2).unflatten(2, self.grid)
            return self._with_boxes(logits) if self.task == "detection" else logits
        if seen is None:
            pooled = hidden.mean(dim=1)
        else:
            weights = seen.unsqueeze(2).to(hidden.dtype)
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        logits = self.head(pooled)
        return logits

    def _with_boxes(self, raw: Tensor) -> Tensor:
        """Logits and boxes of the patches, which are given as distances from a patch's middle."""
        down, across = (
            (torch.arange(n, device=raw.device, dtype=raw.dtype) + 0.5) / n for n in self.grid
        )
        middle = torch.cartesian_prod(down, across).flip(1)
        to = raw[..., -BOX:].sigmoid()
        boxes = torch.cat([middle - to[..., :2], middle + to[..., 2:]], dim=2)
        return torch.cat([raw[..., :-BOX], boxes], dim=2)

    def _embedded(self, x: Inputs) -> tuple[Tensor, Tensor | None]:
        """Tokens (n, length, width), and which of them are no padding, None if all."""
        image = x.get("image") if isinstance(x, dict) else x
        parts, seen = [], []
        if image is not None:
            patches = self.patches(2 * image - 1).flatten(2).transpose(1, 2) + self.places
            parts.append(patches)
            seen.append(torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device))
        if isinstance(x, dict):
            ids, mask = x["input_ids"], x["attention_mask"].bool().clone()
            mask[:, 0] = True  # an empty text has its first token
            parts.append(self._embedded_words(ids) + self.order[:, : ids.shape[1]])
            seen.append(mask)
        if not isinstance(x, dict):
            return parts[0], None
        return torch.cat(parts, dim=1), torch.cat(seen, dim=1)

    def _embedded_words(self, ids: Tensor) -> Tensor:
        try:
            embedded: Tensor = self.words(ids)
        except IndexError as error:
            raise BenchError(
                f"a word has the number {int(ids.max())}, and the model's vocabulary is "
                f"{self.words.num_embeddings}: raise its setting 'vocabulary'"
            ) from error
        return embedded


@register("model", "small-classifier")
@register(
    "model",
    "small-tagger",
    task="token-classification",
    summary="Small transformer that gives each word of a text a class, 4 blocks of width 64.",
)
@register(
    "model",
    "small-segmenter",
    task="segmentation",
    summary="Small transformer that gives each patch of an image a class, 4 blocks of width 64.",
)
@register(
    "model",
    "small-detector",
    task="detection",
    summary="Small transformer that gives each patch of an image a box with the scores of classes.",
)
@register(
    "model",
    "small-vqa",
    task="visual-question-answering",
    summary="Small transformer over the patches of an image and the words of a question.",
)
@register(
    "model",
    "small-lm",
    task="generation",
    summary="Small transformer that predicts the next word of a text, 4 blocks of width 64.",
)
class SmallTransformer(TimmViT):
    """Small transformer for the classification of images or texts, 4 blocks of width 64.

    Blocks of timm's vision transformer. Images are tensors (n, channels, height, width) in [0, 1],
    texts dicts of ``input_ids`` and ``attention_mask``, int64 of shape (n, tokens). It stands in
    where a foundation model would be, to try data and methods in minutes.
    """

    Config = SmallTransformerConfig
    input_shape = (3, 32, 32)
    preload = ("timm.models.vision_transformer",)
    source_training = SourceTraining(epochs=20, learning_rate=1e-3)

    @classmethod
    def build(
        cls, config: SmallTransformerConfig, input_shape: tuple[int, ...], classes: int
    ) -> SmallTransformer:
        """For images of ``input_shape``, or texts of (tokens,); BenchError if sizes do not fit."""
        images: tuple[int, ...] | None = tuple(input_shape) if len(input_shape) == 3 else None
        name = getattr(cls, "registered_name", cls.__name__)
        if images is None and len(input_shape) != 1:
            raise BenchError(
                f"{name}: input shape {tuple(input_shape)} is neither (channels, height, width) "
                "nor (tokens,); choose a stream of images or texts"
            )
        if images is not None and any(side % config.patch for side in images[1:]):
            raise BenchError(
                f"{name}: images of {images[1]} x {images[2]} are no whole number of patches of "
                f"{config.patch}; change the size of the images, or 'patch'"
            )
        if images is None and input_shape[0] > config.words:
            raise BenchError(
                f"{name}: texts of {input_shape[0]} tokens are longer than 'words' = "
                f"{config.words}; raise it, or cut the texts"
            )
        if config.width % config.heads:
            raise BenchError(
                f"{name}: width {config.width} is not divisible by heads {config.heads}; change one"
            )
        module: Any = SmallTransformerNet(config, cls.task, images, classes)
        return cls(module)
