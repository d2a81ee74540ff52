"""Whether a model's declared blocks are what its network is, before surgery relies on them.

A block that is listed, or called, several times has one set of weights (as in ALBERT): it is one
block. Layers that share weights with anything else cannot be changed by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bench.contracts.data import Inputs
from bench.contracts.model import Block, FoundationModel
from bench.contracts.module_names import module_at, nearest_module
from bench.errors import Unsupported


class WrongBlocks(Unsupported):
    """``blocks()`` says of the network what it is not."""


def distinct_blocks(model: FoundationModel, purpose: str) -> list[Block]:
    """The declared blocks, each set of layers once; messages begin with ``purpose``.

    Raises WrongBlocks where ``blocks()`` names what is not there, Unsupported if it declares none
    or if a layer shares weights with another part of the network.
    """
    slots = _Slots(model.module)
    owners: dict[int, str] = {}
    blocks: dict[tuple[int, ...], Block] = {}
    for block in _declared(model, purpose):
        layers = _layers(model, block, purpose)
        key = tuple(map(id, layers.values()))
        if key in blocks:
            if blocks[key].heads != block.heads:
                raise WrongBlocks(
                    f"{purpose}: {block.out} is listed with {blocks[key].heads} and with "
                    f"{block.heads} heads; list a shared block with one number"
                )
            continue
        blocks[key] = block
        for name, layer in layers.items():
            other = owners.get(id(layer)) or slots.shared_with(name, layer)
            owners[id(layer)] = name
            if other:
                raise Unsupported(
                    f"{purpose}: {name} shares its weights with {other}, which a change would "
                    "reach too; use a model whose layers are its own"
                )
    return list(blocks.values())


def _declared(model: FoundationModel, purpose: str) -> list[Block]:
    who = f"{purpose}: {type(model).__name__}"
    try:
        blocks = list(model.blocks() or ())
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise WrongBlocks(
            f"{who}: blocks() raised {type(error).__name__}: {error}; make it name layers of the "
            "network, or return []"
        ) from error
    if not blocks:
        raise Unsupported(f"{who} declares no blocks; implement blocks()")
    for block in blocks:
        if not isinstance(block, Block) or isinstance(block.qkv, str):
            raise WrongBlocks(f"{who}: blocks() gave {block!r}; give Block(qkv=(name, ...), ...)")
        if len(block.qkv) not in (1, 3) or len(set(block.qkv)) < len(block.qkv):
            raise WrongBlocks(
                f"{who}: qkv names {', '.join(map(str, block.qkv)) or 'nothing'}; give one fused "
                "layer, or three: query, key and value"
            )
    return blocks


def _layers(model: FoundationModel, block: Block, purpose: str) -> dict[str, nn.Module]:
    """The layers that a block names, by name."""
    names = (*block.qkv, block.out, block.ff_in, block.ff_out)
    found: dict[str, nn.Module] = {}
    for name in (*names, *([block.attention] if block.attention else [])):
        layer = module_at(model.module, name)
        if layer is None:
            raise WrongBlocks(
                f"{purpose}: blocks() of {type(model).__name__} names {name!r}, which is no module "
                f"of its network; {nearest_module(model.module, name)}"
            )
        found[name] = layer
    found.pop(block.attention, None)
    return found


class _Slots:
    """Where each module and each parameter of a network is held."""

    def __init__(self, module: nn.Module) -> None:
        self.holders: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.modules: dict[int, str] = {}
        for name, each in module.named_modules():
            self.modules[id(each)] = name
            held: Iterable[tuple[str, nn.Module | nn.Parameter | None]] = [
                *each._modules.items(),
                *each._parameters.items(),
            ]
            for child, thing in held:
                if thing is not None:
                    self.holders[id(thing)].append((id(each), child))

    def shared_with(self, name: str, layer: nn.Module) -> str:
        """A place outside ``layer`` that holds it or one of its parameters too; "" if none."""
        inside = {id(each) for each in layer.modules()}
        places = self.holders[id(layer)] if len(self.holders[id(layer)]) > 1 else []
        places = [*places, *(place for p in layer.parameters() for place in self.holders[id(p)])]
        outside = [f"{self.modules[h]}.{a}".lstrip(".") for h, a in places if h not in inside]
        return next((place for place in outside if place != name), "")


def plain_linear(layer: nn.Module, name: str) -> nn.Linear:
    """``layer`` if it is a linear layer whose weights can be changed; Unsupported otherwise."""
    if not isinstance(layer, nn.Linear) or type(layer).forward is not nn.Linear.forward:
        raise Unsupported(
            f"{name} is {type(layer).__name__}, not a plain Linear; undo earlier surgery on it "
            "first, or check blocks()"
        )
    if not isinstance(layer._parameters.get("weight"), nn.Parameter):
        raise Unsupported(
            f"{name}: its weight is computed from other parameters; remove the parametrization or "
            "weight norm first"
        )
    return layer


@dataclass(frozen=True)
class Geometry:
    """Sizes of one block: ``heads`` of ``head_width`` each, feed-forward ``neurons``."""

    heads: int
    head_width: int
    neurons: int


def geometry(block: Block, linear: Callable[[str], nn.Linear], purpose: str) -> Geometry:
    """A block's sizes, which its layers agree on; ``linear`` gives the layer of a name.

    Raises WrongBlocks where sizes contradict the declaration, Unsupported for attention in which
    query, key and value have different widths.
    """
    names = (*block.qkv, block.out, block.ff_in, block.ff_out)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise WrongBlocks(f"{purpose}: blocks() names {twice} twice in a block; check it")
    width, ff = linear(block.out).in_features, linear(block.ff_in).out_features
    if not isinstance(block.heads, Integral) or block.heads < 1 or width % block.heads:
        raise WrongBlocks(
            f"{purpose}: {block.heads} heads do not divide the width {width} of {block.out}; "
            "check heads in blocks()"
        )
    wanted, head_width = (3 * width if block.fused else width), width // block.heads
    for name in block.qkv:
        rows = linear(name).out_features
        if rows < wanted and not rows % head_width and (block.fused or name != block.qkv[0]):
            raise Unsupported(
                f"{purpose}: {name} has {rows} rows for {wanted} (grouped or multi-query "
                "attention); use a model whose query, key and value are equally wide"
            )
        if rows != wanted:
            raise WrongBlocks(
                f"{purpose}: {name} has {rows} rows, and {wanted} belong to the {width} columns of "
                f"{block.out}; check qkv and out in blocks()"
            )
    if linear(block.ff_out).in_features != ff:
        raise WrongBlocks(
            f"{purpose}: {block.ff_out} takes {linear(block.ff_out).in_features} inputs and "
            f"{block.ff_in} gives {ff} (a gated feed-forward layer?); name two layers that meet"
        )
    return Geometry(block.heads, head_width, ff)


@torch.no_grad()
def calls(model: FoundationModel, names: Iterable[str], x: Inputs) -> Mapping[str, int]:
    """How often each of these modules is called in a forward pass in evaluation mode."""
    counts = dict.fromkeys(names, 0)

    def counting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_: nn.Module, __: tuple[Tensor, ...]) -> None:
            counts[name] += 1

        return count

    handles = [
        model.module.get_submodule(name).register_forward_pre_hook(counting(name))
        for name in counts
    ]
    pass_once(model, x, handles)
    return counts


def pass_once(model: FoundationModel, x: Inputs, handles: Iterable[RemovableHandle]) -> None:
    """One forward pass in evaluation mode, for hooks that are removed after it."""
    training = model.module.training
    model.train(False)
    try:
        model(x)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()


def require_called(
    model: FoundationModel, x: Inputs, purpose: str, *, once: bool = False, qkv_only: bool = False
) -> Mapping[str, int]:
    """`calls` of the blocks' layers for the samples ``x``, each at least, or exactly, one.

    ``qkv_only``: of query, key and value alone. Raises WrongBlocks for a layer that takes no part
    in a forward pass: what is put in its place would do nothing; Unsupported, if ``once``, for one
    that is called several times.
    """
    blocks = distinct_blocks(model, purpose)
    rest = [] if qkv_only else [n for b in blocks for n in (b.out, b.ff_in, b.ff_out)]
    names = [*(n for b in blocks for n in b.qkv), *rest]
    counts = calls(model, names, x)
    for name, count in counts.items():
        if not count:
            raise WrongBlocks(
                f"{purpose}: {name} is not called in a forward pass (its weights are not used, or "
                "read by another module); name layers that are called"
            )
        if once and count > 1:
            raise Unsupported(
                f"{purpose}: {name} is called {count} times in a forward pass, by layers that "
                "share it, and its neurons matter differently in each; use a model without shared "
                "blocks"
            )
    return counts
