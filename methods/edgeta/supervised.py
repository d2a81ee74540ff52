"""EdgeTA for new tasks: proxies retrained with labels, plainly, by EWC or by GEM.

The retraining is Avalanche's loop over the proxy, as for the methods of these names. A proxy
lives for one domain, so what EWC knows of parameters is kept in the knowledge base's shape and
read through the proxy's slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

from bench import DomainView, FoundationModel, Window, register, tunable
from bench.contracts.method import Need
from bench.models.surgery.linear import own_head, widen_head

from ..ewc import parameter_data, tensors
from .config import ProxyConfig
from .proxies import ProxyMethod, copied
from .retraining import retrained

_OUTER = "module."
"""What Avalanche puts before a parameter's name."""


class SupervisedConfig(ProxyConfig):
    """Settings of `ProxyConfig`, and of the head.

    ``train_head``: it is trained with the proxy (False: as released for sentences, W13: the rows
    of new classes keep what they began with); ``widen_head``: these rows begin at zero.
    """

    train_head: bool = True
    widen_head: bool = True


class EwcProxyConfig(SupervisedConfig):
    """As `SupervisedConfig`, with ``penalty``: lambda of elastic weight consolidation."""

    penalty: float = tunable(100.0, 1.0, 1e6, log=True, ge=0, le=1e12)


class GemProxyConfig(SupervisedConfig):
    """As `SupervisedConfig`, with those of GEM.

    ``patterns_per_domain``: samples kept of each domain, the source included; ``margin``: gamma.
    """

    patterns_per_domain: int = Field(64, ge=1, le=1_000_000)
    margin: float = tunable(0.5, 0.0, 1.0, ge=0, le=10.0)


class SupervisedProxies(ProxyMethod):
    """Proxies retrained on labels by Avalanche's loop, with what a subclass's `plugins` add."""

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering", "generation",
    )  # fmt: skip
    family = "CL"
    shifts = ("domain", "class")
    needs: ClassVar[tuple[Need, ...]] = ("target_labels",)
    preload = ("bench.methods.avalanche.without_wandb",)
    Config = SupervisedConfig
    config: SupervisedConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        known = model.rules.present(source.y)
        if self.config.train_head:  # refused before the offline stage, which takes long
            own_head(model, "train_head")
        if self.config.widen_head:
            widen_head(model.clone(), known)
        super().prepare(model, source)
        if self.config.widen_head:
            for each in (self.fm, self.kb, self.model):
                widen_head(each, known)
        if self.config.train_head:
            own = {id(p) for p in self.model.head_parameters()}
            named = self.model.module.named_parameters()
            self.head = tuple(name for name, p in named if id(p) in own)
        self.experiences = 0

    def plugins(self) -> list[Any]:
        """Avalanche's plugins for the retraining of the current proxy."""
        return []

    def keep(self, window: Window) -> None:
        """Keep of ``self.strategy`` what the next proxy needs; default: nothing."""

    def strategy_for(self, batch_size: int) -> Any:
        """A strategy that retrains the current proxy."""
        from ..avalanche.loop import Supervised

        c = self.config
        named = dict(self.model.module.named_parameters())
        parameters = [named[name] for name in (*retrained(self.model, c.qkv_bias), *self.head)]
        self.model.freeze_except(parameters)
        optimizer = torch.optim.AdamW(parameters, lr=c.learning_rate)
        strategy = Supervised.over(self.model, optimizer, batch_size, plugins=self.plugins())
        strategy.clock.train_exp_counter = self.experiences
        return strategy

    def retrain(self, domain: DomainView, window: Window) -> bool:
        # An attribute while it lasts: its optimizer is in the device's memory.
        self.strategy = self.strategy_for(domain.batch_size)
        passes = self.config.passes(domain)
        self.strategy.learn(domain, window, passes, lambda batch: (batch.x, batch.y))
        trained = bool(self.strategy.optimizer.state)
        self.keep(window)
        del self.strategy
        self.experiences += 1
        return trained

    def state(self) -> dict[str, Any]:
        return {**super().state(), "experiences": self.experiences}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.experiences = state["experiences"]


@register("method", "edgeta-supervised")
class SupervisedEdgeTA(SupervisedProxies):
    """EdgeTA whose proxies learn new tasks with labels, with nothing against forgetting.

    As ``edgeta``, but the proxy is retrained on cross-entropy with the labels. The head's rows of
    classes that the source does not have begin at zero; after each domain the head is copied from
    the proxy to knowledge base and model.
    """

    equation = (
        "proxy: CE(y, f(x));  W_kb = (W_kb + W_proxy) / 2,  W_fm += a1 I^T dW_kb,  W_kb += a2 "
        "I dW_fm;  the head is copied"
    )


@register("method", "edgeta-ewc")
class EwcEdgeTA(SupervisedProxies):
    """EdgeTA whose proxies learn new tasks under elastic weight consolidation.

    As ``edgeta-supervised`` with EWC's penalty on each proxy, anchored at the weights that it
    begins with. The importances, summed over domains, have the knowledge base's shape: a
    proxy adds to those of the neurons that it has. The release's penalty, 1e8 on the head alone,
    is for another loss scale.
    """

    Config = EwcProxyConfig
    config: EwcProxyConfig
    paper = (
        "Zhang et al.: EdgeTA, IEEE TMC 2025; Kirkpatrick et al.: Overcoming catastrophic "
        "forgetting in neural networks, PNAS 2017"
    )
    equation = "proxy: CE(y, f(x)) + lambda sum_i F_i (w_i - w*_i)^2; feedback as in edgeta"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        kb = dict(self.kb.module.named_parameters())
        self.importances = {
            name: torch.zeros(kb[name].shape, device=kb[name].device) for name in self.slices
        }
        strategy = self.strategy_for(source.batch_size)
        strategy.remember(source)
        self._add_importances(strategy.plugins[0])
        self.experiences = 1

    def plugins(self) -> list[Any]:
        from ..avalanche.plugins import BatchedEWC

        plugin = BatchedEWC(self.config.penalty, mode="online", decay_factor=1.0)
        if self.experiences:
            last = self.experiences - 1
            named = dict(self.model.module.named_parameters())
            of = {name: part.gather(self.importances[name]) for name, part in self.slices.items()}
            anchor = {f"{_OUTER}{name}": named[name].detach().clone() for name in of}
            known = {f"{_OUTER}{name}": value for name, value in of.items()}
            plugin.importances[last] = parameter_data(known)
            plugin.saved_params[last] = parameter_data(anchor)
        return [plugin]

    def keep(self, window: Window) -> None:
        with window.section("importances"):
            self._add_importances(self.strategy.plugins[0])

    @torch.no_grad()
    def _add_importances(self, plugin: Any) -> None:
        """Put the proxy's importances, earlier ones included, in their places."""
        for name, value in tensors(plugin.importances[self.experiences]).items():
            inner = name.removeprefix(_OUTER)
            known = self.importances[inner]
            known.copy_(self.slices[inner].scatter(known, value))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "importances": copied(self.importances)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.importances = copied(state["importances"])


@register("method", "edgeta-gem")
class GemEdgeTA(SupervisedProxies):
    """EdgeTA whose proxies learn new tasks under gradient episodic memory.

    As ``edgeta-supervised``, each step's gradient projected as by ``gem``: the memories' gradients
    are taken on the current proxy.
    """

    Config = GemProxyConfig
    config: GemProxyConfig
    needs = ("target_labels", "replay_memory")
    paper = (
        "Zhang et al.: EdgeTA, IEEE TMC 2025; Lopez-Paz, Ranzato: Gradient Episodic Memory for "
        "Continual Learning, NeurIPS 2017"
    )
    equation = (
        "proxy: min_z |z - g|^2 subject to <z, g_k> >= 0 for each memory k; feedback as in edgeta"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        from ..avalanche.plugins import DrawnGEM

        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        c = self.config
        self.memory = DrawnGEM(c.patterns_per_domain, c.margin, self.generator)
        super().prepare(model, source)
        self.strategy_for(source.batch_size).remember(source)
        self.experiences = 1

    def plugins(self) -> list[Any]:
        return [self.memory]

    def state(self) -> dict[str, Any]:
        kept = {"memory": self.memory.remembered(), "generator": self.generator.get_state()}
        return {**super().state(), **kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.memory.put_back(state["memory"])
        self.generator.set_state(state["generator"])
