"""What GreenTrainer's paper says that training a decoder takes, counted step by step.

One operation is a multiply-accumulate of a matrix product or of attention, at the padded length,
or an element of a normalization or bias (ICLR 2024, section 3, and the released tensor_flops.py).
Of tensors in the order of the forward pass a step takes the forward pass, the gradients of inputs
(t_dy) from the output down to the deepest tensor that is trained, its own included, and the
gradients of those that are trained (t_dw). A tied embedding is the deepest; what is no tensor of
the network, an adapter or a prefix, is taken to need the whole way and no gradient of its own, as
the paper's figures for LoRA and prefix tuning do. No optimizer, no elementwise operation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from bench import FoundationModel
from bench.contracts.data import Inputs
from bench.contracts.structure import pass_once
from bench.records.record import Amount

ADDED = "(added)"
"""The name of a tensor that is none of the network's."""
HOW = "by the formulas of GreenTrainer's paper: multiply-accumulates at the padded length"
"""What a record says of the count."""


@dataclass(frozen=True)
class _Part:
    """A tensor by its name, or an operation without one, ``""``, and what they take.

    Multiply-accumulates for each token, and for each pair of them; ``once``: of the gradient, for
    a batch.
    """

    tensor: str
    forward: int = 0
    way: int = 0
    own: int = 0
    pairs_forward: int = 0
    pairs_way: int = 0
    once: int = 0


@dataclass
class TrainingCount:
    """Multiply-accumulates of the steps that a method took, by the paper's count.

    ``parts``: in the order of the forward pass; ``why_not``: why nothing is counted.
    """

    parts: list[_Part] = field(default_factory=list)
    why_not: str = ""
    total: int = 0
    steps: int = 0

    @classmethod
    def of(cls, model: FoundationModel, x: Inputs) -> TrainingCount:
        """For a model that generates texts; ``x``: some samples, which are run through it once."""
        module: Any = model.module
        if not isinstance(x, dict) or "input_ids" not in x:
            return cls(why_not="the paper's count is of texts")
        if getattr(getattr(module, "config", None), "is_encoder_decoder", False):
            return cls(why_not="the count is of decoders; this is an encoder and a decoder")
        blocks = model.blocks()
        if not blocks:
            return cls(why_not=f"{type(module).__name__} declares no blocks, where attention is")
        return cls(_parts(model, x))

    def step(self, model: FoundationModel, optimizer: torch.optim.Optimizer, x: Inputs) -> None:
        """Add a step of an optimizer, over those of its tensors that are trained, on a batch."""
        if self.why_not or not isinstance(x, dict):
            return
        names = {id(p): name for name, p in model.module.named_parameters()}
        given = (p for group in optimizer.param_groups for p in group["params"])
        trained = {names.get(id(p), ADDED) for p in given if p.requires_grad}
        self.total += self.operations(trained, *x["input_ids"].shape)
        self.steps += 1

    def operations(self, trained: Collection[str], samples: int, tokens: int) -> int:
        """Of a step over the tensors of these names, on so many samples of so many tokens.

        Any other name is of something that was added to the network.
        """
        wanted = set(trained)
        places = [i for i, part in enumerate(self.parts) if part.tensor in wanted]
        added = wanted - {part.tensor for part in self.parts}
        deepest = 0 if added else min(places, default=len(self.parts))
        words, pairs = samples * tokens, samples * tokens**2
        counted = sum(words * p.forward + pairs * p.pairs_forward for p in self.parts)
        counted += sum(words * p.way + pairs * p.pairs_way for p in self.parts[deepest:])
        owns = (self.parts[i] for i in places)
        return counted + sum(words * p.own + p.once for p in owns)

    def amount(self) -> Amount:
        """For a record: of all steps."""
        if self.why_not:
            return Amount(value=None, unit="MAC", kind="unavailable", how=self.why_not)
        return Amount(value=self.total, unit="MAC", kind="modelled", how=HOW)


@torch.no_grad()
def _parts(model: FoundationModel, x: Inputs) -> list[_Part]:
    module = model.module
    called: list[nn.Module] = []
    handles = [
        m.register_forward_pre_hook(lambda m, *_: called.append(m))
        for m in module.modules()
        if next(m.parameters(recurse=False), None) is not None
    ]
    pass_once(model, x, handles)
    attention: dict[int, int] = {}  # behind the last called of query, key and value: its width
    for block in model.blocks():
        qkv = [module.get_submodule(name) for name in block.qkv]
        width = cast(Any, module.get_submodule(block.out)).in_features
        attention[id(max(qkv, key=called.index))] = width
    names = {id(p): name for name, p in module.named_parameters()}
    found: list[_Part] = []
    looked_up: dict[str, int] = {}
    for m in called:
        own = {key: names[id(p)] for key, p in m.named_parameters(recurse=False)}
        if isinstance(m, nn.Embedding):
            looked_up[own["weight"]] = len(found)
            found.append(_Part(own["weight"]))  # at no cost
        elif isinstance(m, nn.Linear):
            found += _matrix(m, own, found, looked_up)
        else:
            found += _flat(m, own)
        if id(m) in attention:
            width = attention[id(m)]
            found.append(_Part("", pairs_forward=2 * width, pairs_way=4 * width))
    return found


def _matrix(
    m: nn.Linear, own: dict[str, str], found: list[_Part], looked_up: dict[str, int]
) -> list[_Part]:
    """Of a linear layer; one that is tied to an embedding has its gradient there."""
    size, name = m.weight.numel(), own["weight"]
    if (tied := looked_up.get(name)) is not None:
        found[tied] = _Part(name, own=size, once=size)
        made = [_Part("", forward=size, way=size)]
    else:
        made = [_Part(name, forward=size, way=size, own=size)]
    if m.bias is not None:
        made.append(_Part(own["bias"], own=m.bias.numel()))
    return made


def _flat(m: nn.Module, own: dict[str, str]) -> list[_Part]:
    """Of a normalization, whose shift takes nothing; other tensors are looked up or added."""
    made = []
    for key, p in m.named_parameters(recurse=False):
        size = p.numel() if p.dim() == 1 and key == "weight" else 0
        made.append(_Part(own[key], way=size, own=size))
    return made
