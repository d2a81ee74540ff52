"""The last blocks of a network, and what follows them, trained on the target's labels."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from bench import BenchError, DomainView, FoundationModel, Unsupported, register, take
from bench.contracts.data import Inputs
from bench.contracts.structure import distinct_blocks, pass_once

from ._supervised import SupervisedConfig, SupervisedMethod


class LastBlocksConfig(SupervisedConfig):
    """Settings of `SupervisedConfig`, and how much is trained.

    ``blocks``: how many of the last ones; 0 is what follows them alone, the last normalization and
    the head; ``tied_head``: a head whose weights are those of an earlier layer too, as often of the
    embedding, is ``frozen`` or ``trained``.
    """

    blocks: int = Field(2, ge=0, le=1000)
    tied_head: Literal["frozen", "trained"] = "frozen"


@register("method", "last-blocks")
class LastBlocks(SupervisedMethod):
    """Cross-entropy on target labels over the last blocks and all layers behind them.

    The rival that stops the backward pass early at a fixed depth. ``blocks: 0`` with ``tied_head:
    trained`` is FT-Top2 of GreenTrainer's paper, "the last two layers, usually the embedding layer
    and a LayerNorm": there the pass goes on to the network's first layer for the tied embedding,
    which is why its operations are published as 29.0 of 41.8 for OPT and 7.3 of 21.7 for FLAN-T5.
    """

    Config = LastBlocksConfig
    config: LastBlocksConfig
    paper = (
        "Huang, Yin, Huang, Gao: Towards Green AI in Fine-tuning Large Language Models via "
        "Adaptive Backpropagation, ICLR 2024 (FT-Top2)"
    )
    equation = "min over the last blocks, the last normalization and the head: CE(target)"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self._sample = take(source.x, torch.arange(1))
        super().prepare(model, source)
        del self._sample

    def trained(self, model: FoundationModel) -> list[nn.Parameter]:
        names, wanted = block_names(model), self.config.blocks
        if wanted > len(names):
            raise BenchError(
                f"last-blocks: blocks {wanted}, and {type(model).__name__} has {len(names)}; give "
                f"{len(names)} or fewer"
            )
        kept = names[len(names) - wanted :]
        inside = [p for name in kept for p in model.module.get_submodule(name).parameters()]
        own, tied = behind(model, names[-1], self._sample)
        chosen = [*inside, *own, *(tied if self.config.tied_head == "trained" else [])]
        if not chosen:
            raise Unsupported(
                f"last-blocks: nothing with weights follows the blocks of {type(model).__name__}; "
                "give blocks: 1 or more"
            )
        return list({id(p): p for p in chosen}.values())


def block_names(model: FoundationModel) -> list[str]:
    """Names of the modules that the declared blocks are, in their order.

    A block is the smallest module that holds all of its layers. Raises Unsupported where a model
    declares none, or where blocks have no module of their own.
    """
    found = []
    for block in distinct_blocks(model, "last-blocks"):
        parts = (*block.qkv, block.out, block.ff_in, block.ff_out)
        levels = zip(*(name.split(".") for name in parts), strict=False)
        same = itertools.takewhile(lambda level: len(set(level)) == 1, levels)
        found.append(".".join(level[0] for level in same))
    if "" in found or len(set(found)) < len(found):
        raise Unsupported(
            f"last-blocks: blocks of {type(model).__name__} share a module, so that they cannot be "
            "told apart; use a model whose blocks are modules of their own"
        )
    return found


@torch.no_grad()
def behind(
    model: FoundationModel, last: str, x: Inputs
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of the modules that are called after the module ``last``, for the samples ``x``.

    The second list has those that an earlier module has too.
    """
    earlier: dict[int, nn.Parameter] = {}
    later: dict[int, nn.Parameter] = {}
    passed = False

    def leave(*_: Any) -> None:
        nonlocal passed
        passed = True
        earlier.update(later)  # it is called again, and what came in between is not behind it
        later.clear()

    def enter(module: nn.Module, *_: Any) -> None:
        (later if passed else earlier).update({id(p): p for p in module.parameters(recurse=False)})

    handles = [m.register_forward_pre_hook(enter) for m in model.module.modules()]
    handles.append(model.module.get_submodule(last).register_forward_hook(leave))
    pass_once(model, x, handles)
    own = [p for key, p in later.items() if key not in earlier]
    return own, [p for key, p in later.items() if key in earlier]
