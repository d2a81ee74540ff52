"""PruneTrain: training with a group lasso, of a network whose dead channels are really removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import DomainView, FoundationModel, Unsupported, Window, register, take, tunable
from bench.contracts.data import Inputs
from bench.contracts.method import only_shapes
from bench.contracts.state import capture

from .._losses import at_least_float32, take_step, train_only
from .._optimizers import make_optimizer
from .._supervised import SupervisedConfig, SupervisedMethod
from .elastic_window import RECOUNTED

if TYPE_CHECKING:
    import torch_pruning

_SMOOTH = 1e-8
"""Added under the root of a group's norm, so that it has a gradient at zero; as released."""
_WEIGHTED = (nn.Conv2d, nn.Linear)
_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


class PruneTrainConfig(SupervisedConfig):
    """Settings of fine-tune, and of the pruning.

    ``penalty_ratio``: share of the group lasso in the whole loss at the first step, from which its
    weight is set once; ``threshold``: a channel is dead where no weight is as large; ``interval``:
    passes after which dead channels are removed. SGD with a momentum of 0.9, as published;
    ``learning_rate``: published 0.1 for training from scratch, here that of further training.
    """

    learning_rate: float = tunable(1e-2, 1e-4, 1e-1, log=True, ge=1e-8, le=1.0)
    optimizer: Literal["sgd"] = "sgd"
    penalty_ratio: float = tunable(0.2, 0.05, 0.5, ge=0.0, le=0.99)
    threshold: float = Field(1e-4, ge=0.0, le=1e9)
    interval: int = Field(5, ge=1, le=1000)


class Member(NamedTuple):
    """A layer of a group of channels.

    ``side``: its outputs (0) or its inputs (1), the dimension of its weights; ``channels``:
    to which of the group's channels each of these belongs.
    """

    layer: str
    side: int
    channels: list[int]


@register("method", "prune-train")
class PruneTrain(SupervisedMethod):
    """Cross-entropy and a group lasso on channels, which are removed once they are dead.

    The lasso has a group for the weights of each output and of each input channel of every layer,
    but for the network's inputs and outputs. Channels that layers share, by a residual connection
    or because one reads what the other makes, are removed where they are dead in all of them. The
    network's layers go on with fewer channels, and so do the optimizer's momenta. One channel of a
    layer always stays: the paper removes layers of residual branches, and enlarges the batch as
    memory becomes free, which here is the protocol's. It applies to networks of convolutions and
    BatchNorm: under another normalization removing a channel changes the others.
    """

    Config = PruneTrainConfig
    config: PruneTrainConfig
    tasks = ("classification",)
    preload = ("torch_pruning",)
    paper = (
        "Lym, Choukse, Zangeneh, Wen, Sanghavi, Erez: PruneTrain: Fast Neural Network Training by "
        "Dynamic Sparse Model Reconfiguration, SC 2019"
    )
    equation = "min over all weights: CE(target) + l sum_groups ||w_g||;  w_g < threshold: removed"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.sample = take(source.x, torch.arange(1))
        self.weight: float | None = None
        self.since, self.counted, self.reconfigurations = 0, dict[int, int](), 0
        self.history: list[Any] = []
        self.groups = channel_groups(model, self.sample)
        self.channels = [len(set(group[0].channels)) for group in self.groups]
        super().prepare(model, source)

    def train_only(self, parameters: list[nn.Parameter]) -> None:
        chosen = train_only(self.model, parameters)
        self.optimizer = make_optimizer("sgd", chosen, self.config.learning_rate, momentum=0.9)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.set_mode()
        if self.config.optimizer_state == "new" and domain.name != self.domain:
            self.optimizer.state.clear()
        self.domain = domain.name
        criterion = self._arrived(domain)
        every = self.config.interval * domain.batches_per_pass
        for batch in domain.batches(self.config.epochs):
            recount = self.counted.get(len(batch), 0) < RECOUNTED
            with window.step(batch, data_dependent=recount) as fits:
                if not fits:
                    return
                loss = criterion(self.outputs(batch.x), batch.y)
                lasso = group_lasso(self.model.module, self.groups)
                if self.weight is None:
                    share = self.config.penalty_ratio
                    own = 1.0 if only_shapes() else (loss / lasso).item()
                    self.weight = share / (1 - share) * own
                take_step(self.optimizer, loss + self.weight * lasso)
            self.counted[len(batch)] = self.counted.get(len(batch), 0) + 1
            window.log(loss=loss.detach(), lasso=lasso.detach())
            self.since += 1
            if self.since >= every:
                self.since, self.counted = 0, {}
                with window.section("reconfigure"):
                    self.remove(self.dead())
                    self.set_mode()

    def dead(self) -> list[list[int]]:
        """Channels of each group without a weight as large as the threshold in any layer.

        The one with the largest weight is never among them.
        """
        if only_shapes():
            return [[] for _ in self.groups]
        found = []
        for group in self.groups:
            largest = largest_weights(self.model.module, group)
            gone = largest < self.config.threshold
            gone[largest.argmax()] = False
            found.append(gone.nonzero().flatten().tolist())
        return found

    def remove(self, dead: list[list[int]]) -> None:
        """Remove channels, given for each group, from layers, gradients and momenta."""
        self.reconfigurations += 1
        if not any(dead):
            return
        module = self.model.module
        momenta = {}
        for name, parameter in module.named_parameters():
            momenta[name] = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            parameter.grad = momenta[name]  # gradients are cut with their weights
        graph = dependencies(self.model, self.sample)
        for group, channels in zip(self.groups, dead, strict=True):
            if channels:
                first, its = group[0].layer, group[0].channels
                self.history.append([first, [k for k, c in enumerate(its) if c in set(channels)]])
                cut(graph, *self.history[-1])
        del graph
        self.groups = channel_groups(self.model, self.sample)
        self.train_only(list(module.parameters()))
        for name, parameter in module.named_parameters():
            if momenta[name] is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = parameter.grad
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """As of other methods; ``groups`` follow from the channels that were removed."""
        return capture({name: value for name, value in vars(self).items() if name != "groups"})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """As of other methods; the channels that the state lacks are removed first."""
        _, history = state["history"]
        graph = dependencies(self.model, self.sample)
        for layer, channels in history:
            cut(graph, layer, channels)
        del graph
        self.groups = channel_groups(self.model, self.sample)
        self.train_only(list(self.model.module.parameters()))
        super().load_state(state)

    def details(self) -> dict[str, Any]:
        """Channels and how many of them are left, by group, and how often dead ones were sought."""
        left = [len(set(group[0].channels)) for group in self.groups]
        pruned = {
            "channels": self.channels, "left": left, "reconfigurations": self.reconfigurations,
        }  # fmt: skip
        return {**super().details(), "pruned": pruned}


def dependencies(model: FoundationModel, x: Inputs) -> torch_pruning.DependencyGraph:
    """Which layers share channels, from one pass over ``x``; the model is left in eval mode."""
    try:
        import torch_pruning
    except ImportError as error:
        raise Unsupported(
            "prune-train needs torch-pruning: pip install 'edge-adaptation-bench[pruning]'"
        ) from error
    graph = torch_pruning.DependencyGraph()
    return graph.build_dependency(
        model.module, example_inputs=x, forward_fn=lambda _, inputs: model(inputs), verbose=False
    )


def channel_groups(model: FoundationModel, x: Inputs) -> list[list[Member]]:
    """Channels that can only be removed together, as the layers with weights that have them.

    The first member of each group makes them. Raises Unsupported where PruneTrain does not apply.
    """
    modules = dict(model.module.named_modules())
    if sum(isinstance(m, nn.Conv2d) for m in modules.values()) < 2:
        raise Unsupported(
            "prune-train removes channels that one convolution makes and another reads, and "
            f"{type(model).__name__} has no two convolutions"
        )
    if others := {type(m).__name__ for m in modules.values() if isinstance(m, _OVER_CHANNELS)}:
        raise Unsupported(
            f"prune-train: {', '.join(sorted(others))} of {type(model).__name__} normalizes over "
            "channels together, so that removing one changes the others; use a model with BatchNorm"
        )
    names = {module: name for name, module in modules.items()}
    found = []
    for group in dependencies(model, x).get_all_groups([modules[model.head_name]], _WEIGHTED):
        members = []
        for item in group:
            layer = item.dep.target.module
            if isinstance(layer, _WEIGHTED) and getattr(layer, "groups", 1) == 1:
                side = int(item.dep.handler.__name__ == "prune_in_channels")
                of = dict(zip(item.idxs, item.root_idxs, strict=True))
                members.append(Member(names[layer], side, [of[k] for k in sorted(of)]))
        found.append(sorted(members, key=lambda member: member.side))
    return found


def cut(graph: torch_pruning.DependencyGraph, layer: str, channels: list[int]) -> None:
    """Remove output channels of a layer, and with them what belongs to them in others."""
    module = graph.model.get_submodule(layer)
    remove = graph.get_pruner_of_module(module).prune_out_channels
    graph.get_pruning_group(module, remove, channels).prune()


def weight_of(module: nn.Module, member: Member) -> tuple[Tensor, list[int]]:
    """A layer's weights, and the dimensions that are not the member's channels."""
    weight = cast(nn.Linear, module.get_submodule(member.layer)).weight
    return weight, [k for k in range(weight.dim()) if k != member.side]


def group_lasso(module: nn.Module, groups: list[list[Member]]) -> Tensor:
    """The sum of the norms of all channels of all layers, a scalar."""
    squares: dict[str, Tensor] = {}
    norms = []
    for member in (member for group in groups for member in group):
        weight, others = weight_of(module, member)
        if member.layer not in squares:
            squares[member.layer] = at_least_float32(weight).square()
        norms.append(squares[member.layer].sum(others))
    return torch.cat(norms).add(_SMOOTH).sqrt().sum()


@torch.no_grad()
def largest_weights(module: nn.Module, group: list[Member]) -> Tensor:
    """Of each channel of a group, the largest absolute weight in any of its layers."""
    made, _ = weight_of(module, group[0])
    largest = made.new_zeros(1 + max(group[0].channels))
    for member in group:
        weight, others = weight_of(module, member)
        channels = torch.tensor(member.channels, device=weight.device)
        largest = largest.scatter_reduce(0, channels, weight.abs().amax(others), "amax")
    return largest
