"""A body of transformers with a linear head of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench import BenchError

from ..hugging_face import HuggingFaceConfig, from_folder, has_weights

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files of which a folder with a tokenizer has one."""


class BodyWithHead(nn.Module):
    """``body``: a network of transformers; ``head``: on the features that ``taken`` finds in what
    the body gives, (n, ..., width).
    """

    base_model_prefix = "body"

    def __init__(self, body: Any, head: nn.Linear, taken: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.taken = taken

    @property
    def config(self) -> Any:
        """The body's configuration."""
        return cast(Any, self.body).config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.head.weight.dtype

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (n, ..., classes)."""
        return cast(Tensor, self.head(self.taken(self.body(pixel_values=pixel_values))))


def folder_config(config: HuggingFaceConfig, name: str) -> Any:
    """What the folder's config.json says; BenchError if it cannot be read.

    ``name``: of the model, for the message.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(config.folder, local_files_only=True)
    except Exception as error:  # each class of transformers checks its keys in its own way
        raise wrong_config(config, name, error) from error


def wrong_config(config: HuggingFaceConfig, name: str, error: Exception | str) -> BenchError:
    """What to say of a folder, or of changes to its configuration, of which no network is made."""
    said = " ".join(str(error).split())
    return BenchError(
        f"{name}: no model can be made of {config.folder or 'the default sizes'} with changes "
        f"{config.changes}: {said}; give a folder with the config.json of {name}"
    )


def tokens_of(config: HuggingFaceConfig, name: str, texts: list[str], **more: Any) -> Any:
    """What the folder's tokenizer makes of texts; BenchError if it has none.

    transformers makes an empty tokenizer where there are no files of one.
    """
    from transformers import AutoTokenizer

    folder = Path(config.folder)
    if not config.folder or not any((folder / file).is_file() for file in VOCABULARIES):
        raise BenchError(
            f"{name}: {config.folder or 'no folder'} has no tokenizer (none of "
            f"{', '.join(VOCABULARIES)}); names need the one of the model beside its weights"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts, **more)
    except Exception as error:  # of damaged files, of many kinds
        said = " ".join(str(error).split())
        raise BenchError(
            f"{name}: the tokenizer in {folder} cannot be read ({said}); save it anew"
        ) from error


def changed(config: HuggingFaceConfig, name: str, kind: Any, sizes: Any) -> Any:
    """Sizes of a class of transformers with the settings' ``changes``; None: the default ones."""
    try:
        given = {} if sizes is None else sizes.to_dict()
        return kind(**{**given, **config.changes})
    except Exception as error:  # as in `folder_config`
        raise wrong_config(config, name, error) from error


def network(
    config: HuggingFaceConfig, name: str, kind: Any, sizes: Any, body: str = ""
) -> nn.Module:
    """A network of a class of transformers, with the folder's weights if it has some.

    ``body``: as of `from_folder`.
    """
    dtype = getattr(torch, config.dtype)
    if has_weights(config.folder):
        more: Any = {"attn_implementation": config.attention, "dtype": dtype}
        return from_folder(kind, config.folder, sizes, body, **more)
    try:
        made = kind._from_config(sizes, attn_implementation=config.attention, dtype=dtype)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        raise wrong_config(config, name, error) from error
    return cast(nn.Module, made)
