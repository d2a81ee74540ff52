"""Rivals of mPnP-LLM: a modality among the words, with the decoder trained or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import register
from bench.contracts.data import Inputs

from .modality import ModalityConfig, ModalityMethod


class _Soft(nn.Module):
    """A projection of an encoder's tokens to the decoder's width, and prompts before them."""

    def __init__(self, width: int, to: int, prompts: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, to)
        self.prompts = nn.Parameter(0.02 * torch.randn(prompts, to))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, k, width) to (n, prompts + k, to)."""
        prompts = self.prompts.expand(len(tokens), -1, -1)
        return torch.cat([prompts, self.projection(tokens)], dim=1)


class _SoftMethod(ModalityMethod):
    """Modalities stand before the question as if they were words."""

    prompts: int = 0

    def connect(self, sample: Inputs) -> nn.Module:
        m = self.model
        made = {n: _Soft(m.encoder_width, m.width, self.prompts) for n in m.modalities}
        return nn.ModuleDict(made)

    def outputs(self, x: Inputs) -> Tensor:
        model = self.model
        soft = [self.links.get_submodule(m)(model.encoded(m, x)) for m in self.active]
        return model.answered(x, torch.cat(soft, dim=1))


@register("method", "full-modality")
class FullModality(_SoftMethod):
    """Full fine-tuning of the decoder, and of a projection of the new modality's tokens.

    The decoder is trained offline for the first modality, and online for the second; the encoders
    are frozen.
    """

    paper = "none: the full fine-tuning that arXiv 2312.07886 (2023) compares with"
    equation = "min over decoder and projection: CE with [P E(x); words] as the decoder's input"

    def trained(self, new: str) -> list[dict[str, Any]]:
        return [*super().trained(new), {"params": self.model.language_parameters()}]


class PromptFuseConfig(ModalityConfig):
    """Settings of PromptFuse beside those of `ModalityConfig`.

    ``prompts``: trained vectors before a modality's tokens, 20 as published.
    """

    prompts: int = Field(20, ge=1, le=100)


@register("method", "promptfuse")
class PromptFuse(_SoftMethod):
    """PromptFuse: trained prompts before a modality's tokens, encoders and decoder frozen.

    The published one has encoder and decoder of one width; here they differ, so that a projection
    is trained with the prompts.
    """

    Config = PromptFuseConfig
    config: PromptFuseConfig
    paper = (
        "Liang, Huang, Kong, Chen, Zhu: Modular and Parameter-Efficient Multimodal Fusion with "
        "Prompting, Findings of ACL 2022"
    )
    equation = "min over prompts and P: CE with [prompts; P E(x); words] as the decoder's input"

    def connect(self, sample: Inputs) -> nn.Module:
        self.prompts = self.config.prompts
        return super().connect(sample)


class EpAlmConfig(ModalityConfig):
    """Settings of eP-ALM beside those of `ModalityConfig`.

    ``prompts``: trained vectors before the question, 10 as published; ``share``: of the blocks,
    the last ones, that get an encoder's token.
    """

    prompts: int = Field(10, ge=0, le=100)
    share: float = Field(0.5, gt=0, le=1)


@register("method", "ep-alm")
class EpAlm(ModalityMethod):
    """eP-ALM as rivals of mPnP-LLM have it: [CLS] tokens of an encoder's layers into fixed blocks.

    A place before the words holds, in each of the last blocks, the projected token of the encoder's
    layer whose turn it is, deeper ones for deeper blocks. Before these blocks the place holds a
    trained vector; the published one adds the place there. One projection serves all blocks.
    """

    Config = EpAlmConfig
    config: EpAlmConfig
    paper = (
        "Shukor, Dancette, Cord: eP-ALM: Efficient Perceptual Augmentation of Language Models, "
        "ICCV 2023"
    )
    equation = "min over P and prompts: CE;  the first place of block b is P E_l(b)(x)"

    def connect(self, sample: Inputs) -> nn.Module:
        m, c = self.model, self.config
        made = {n: _Soft(m.encoder_width, m.width, c.prompts + 1) for n in m.modalities}
        return nn.ModuleDict(made)

    def outputs(self, x: Inputs) -> Tensor:
        model, n = self.model, len(x["input_ids"])
        links = [cast(_Soft, self.links.get_submodule(m)) for m in self.active]
        shown = [
            link.projection(model.encoded(m, x)) for link, m in zip(links, self.active, strict=True)
        ]
        # One place for each modality, then the prompts of all
        soft = [link.prompts[:1] for link in links] + [link.prompts[1:] for link in links]
        with _places(list(self._inserted()), torch.stack(shown, dim=1)):
            return model.answered(x, torch.cat(soft).expand(n, -1, -1))

    def _inserted(self) -> nn.ModuleList:
        """The blocks that get tokens."""
        layers = self.model.layers
        return layers[-max(round(self.config.share * len(layers)), 1) :]


@contextmanager
def _places(layers: list[nn.Module], shown: Tensor) -> Iterator[None]:
    """Inside, the first places of these blocks hold tokens; ``shown``: (n, places, k, width)."""
    places, k = shown.shape[1:3]

    def filled(number: int) -> Any:
        token = shown[:, :, number * k // len(layers)]

        def fill(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
            hidden, *rest = inputs
            return (torch.cat([token.to(hidden.dtype), hidden[:, places:]], dim=1), *rest), named

        return fill

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            handle = layer.register_forward_pre_hook(filled(number), with_kwargs=True)
            stack.callback(handle.remove)
        yield
