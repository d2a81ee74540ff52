"""The contract of a language model that answers questions about inputs of several modalities."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.model import FoundationModel
from bench.errors import BenchError


class ModalModel(FoundationModel):
    """A decoder of transformers with an encoder for each modality.

    Samples are a dict with an input for each modality, by its name, and a question as
    ``input_ids``, int64 of shape (n, words). Called, it answers by its first modality alone.

    Attributes
    ----------
    modalities : their names, the first one first
    encoder_width : of an encoder's tokens
    tokens_each : how many tokens an encoder gives for a sample
    width : of the decoder's embeddings
    encoder_blocks, encoder_patches, patch_values : an encoder's depth, the patches that it makes of
        a sample, and the numbers in one
    """

    modalities: tuple[str, ...]
    encoder_width: int
    tokens_each: int
    width: int
    encoder_blocks: int
    encoder_patches: int
    patch_values: int

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The decoder's blocks from input to output."""

    @abstractmethod
    def encoded(self, name: str, x: Inputs) -> Tensor:
        """A modality's tokens, (n, tokens_each, encoder_width), of the encoder's last hidden states
        in their order; BenchError if the samples do not have it, see `require_modality`.
        """

    @abstractmethod
    def answered(self, x: Inputs, soft: Tensor | None = None, cache: Any = None) -> Tensor:
        """Logits (n, classes) of the answers to the questions in ``x``.

        ``soft``: embeddings (n, k, width) that stand before the question's, as words would;
        ``cache``: a cache of transformers whose keys and values the question's words attend to.
        """

    @abstractmethod
    def language_parameters(self) -> list[nn.Parameter]:
        """Those of the decoder and its head, without encoders."""


def require_modality(name: str, x: Inputs) -> Tensor:
    """A modality's input; BenchError, with those that are there, if it is missing."""
    if isinstance(x, dict) and name in x:
        found: Tensor = x[name]
        return found
    there = ", ".join(k for k in x if k != "input_ids") if isinstance(x, dict) else "no names"
    raise BenchError(
        f"modality {name!r} is missing: the samples have {there}; take a stream that has it, or "
        "name another in the model's 'modalities'"
    )
