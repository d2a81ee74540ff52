"""What EdgeTA's variants share on the device: proxies, and the feedback from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench import DomainView, FoundationModel, Method, Unsupported, Window, take
from bench.contracts.data import Inputs, on_device
from bench.contracts.method import Provenance
from bench.models.surgery.gates import gated_layers, importance, set_sparsity
from bench.models.surgery.neurons import Slice
from bench.models.surgery.proxy import make_proxy, most_important

from .config import ProxyConfig
from .offline import offline, weights_of
from .retraining import first_batch, retrained


@torch.no_grad()
def proxy_to_kb(
    proxy: Mapping[str, Tensor],
    kb: dict[str, Tensor],
    slices: Mapping[str, Slice],
    names: Sequence[str],
    head: Sequence[str] = (),
) -> None:
    """W_kb = (W_kb + W_proxy) / 2 where the proxy has it, in place; the rest stays.

    ``slices``: what the proxy holds of each parameter; ``names``: the parameters that go back;
    those of ``head`` are copied outright.
    """
    for name in names:
        own, part = kb[name], slices[name]
        mean = (part.gather(own) + proxy[name]) / 2
        own.copy_(part.scatter(own, mean))
    for name in head:
        kb[name].copy_(slices[name].scatter(kb[name], proxy[name]))


class ProxyMethod(Method):
    """A proxy for each domain, retrained by a subclass's `retrain`, and feedback from it.

    ``fm``, ``products``, ``kb``, ``index``: what the offline stage made (`Offline`), changed by
    feedback; ``model``, ``slices``: the current proxy, and what it holds of the knowledge base;
    ``sparsity``: of the next proxy; ``head``: names of the head's parameters that go back as they
    are.
    """

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering",
    )  # fmt: skip
    protocols = ("periodic",)
    provenance: ClassVar[Provenance] = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    makes_own_model = True
    conformance_config = {"lora_steps": 20, "kb_steps": 100, "index_steps": 100}

    config: ProxyConfig
    head: tuple[str, ...] = ()

    @classmethod
    def offline_settings(cls, config: ProxyConfig) -> dict[str, Any]:
        return config.offline()

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        if self.config.importance == "entropy" and model.rules.dense:
            raise Unsupported(
                f"{self.registered_name}: importance: entropy chooses a sample by its own entropy, "
                f"and in {model.task} a sample has several units; use mean or first"
            )
        made = offline(self.config, model, source)
        self.fm, self.products, self.kb, self.index = made.fm, made.products, made.kb, made.index
        self.offline_facts = {"draw": source.draw, **made.facts()}
        self.offline_curves = made.curves
        self.sparsity = self.config.sparsity
        with source.preserve_rng():
            first = next(source.batches())
        self.model, self.slices = self.generate(first.x)

    def details(self) -> dict[str, Any]:
        return {"offline": self.offline_facts}

    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        return {f"offline/{name}": points for name, points in self.offline_curves.items()}

    def adapt(self, domain: DomainView, window: Window) -> None:
        with window.section("proxy"):
            self.model, self.slices = self.generate(first_batch(domain))
        if not self.retrain(domain, window):
            raise Unsupported(
                f"{self.registered_name}: the window of {window.budget_s:.3g} s closes before the "
                "first iteration, for making a proxy takes most of it; lengthen window_s"
            )
        with window.section("feedback"):
            if self.give_to_model():
                self.take_from_model()

    @abstractmethod
    def retrain(self, domain: DomainView, window: Window) -> bool:
        """Retrain the proxy within the window; whether there was time for an iteration."""

    @torch.no_grad()
    def generate(self, x: Inputs) -> tuple[FoundationModel, dict[str, Slice]]:
        """A proxy for samples of a domain, and what it holds of the knowledge base."""
        c = self.config
        set_sparsity(self.kb, self.sparsity)
        if c.importance == "first":
            x = take(x, torch.arange(1))
        elif c.importance == "entropy":
            logs = self.kb(x).log_softmax(dim=-1)
            entropy = -(logs.exp() * logs).sum(dim=-1)
            x = take(x, entropy.argmax().reshape(1))
        found = {name: g.mean(dim=0) for name, g in importance(self.kb, x).items()}
        ranked = {name: self._ranked(g) for name, g in found.items()}
        proxy, slices = make_proxy(self.kb, found, most_important(ranked, self.sparsity))
        proxy.train(False)
        return proxy, slices

    def _ranked(self, g: Tensor) -> Tensor:
        """What the neurons to keep are the largest of."""
        if self.config.neurons == "random":
            return on_device(torch.rand(g.shape), g.device)
        return -g if self.config.neurons == "unimportant" else g

    @torch.no_grad()
    def give_to_model(self) -> bool:
        """W_kb = (W_kb + W_proxy) / 2 on the kept neurons, then W_fm += alpha_1 I^T dW_kb.

        Returns whether the model took part: the ``feedback`` is ``full``. `take_from_model` then
        has to follow.
        """
        c = self.config
        if c.feedback == "none":
            return False
        proxy, kb = weights_of(self.model), weights_of(self.kb)
        names = retrained(self.model, c.qkv_bias)
        if not c.feedback_biases:
            names = [name for name in names if not name.endswith("bias")]
        before = {**kb, **{name: kb[name].clone() for name in names}}
        proxy_to_kb(proxy, kb, self.slices, names, self.head)
        if c.feedback == "direct":
            return False
        fm = self.fm_weights()
        if c.model_feedback == "change":
            self.read_before = self.index.read(fm)
        self.index.to_fm(before, kb, fm, c.kb_to_fm)
        for name in self.head:
            fm[name].copy_(proxy[name])
        return True

    def take_from_model(self) -> None:
        """W_kb += alpha_2 I dW_fm; to ``replace``, W_kb = alpha_2 I W_fm + (1 - alpha_2) W_kb.

        dW_fm is the model's change since `give_to_model`, by it and by what came after it.
        """
        kb, fm, rate = weights_of(self.kb), self.fm_weights(), self.config.fm_to_kb
        if self.config.model_feedback == "replace":
            self.index.to_kb(kb, fm, rate)
        else:
            self.index.change_to_kb(self.read_before, kb, fm, rate)
            del self.read_before

    def fm_weights(self) -> dict[str, Tensor]:
        """The model's parameters by name, and the separate LoRA products."""
        return {**weights_of(self.fm), **self.products}

    def state(self) -> dict[str, Any]:
        return {
            "fm": copied(self.fm.module.state_dict()),
            "products": copied(self.products),
            "kb": copied(self.kb.module.state_dict()),
            "proxy": copied(self.model.module.state_dict()),
            "kept": {n: self.slices[f"{n}.linear.weight"].rows for n in gated_layers(self.kb)},
            "sparsity": self.sparsity,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.fm.module.load_state_dict(state["fm"])
        self.products = copied(state["products"])
        self.kb.module.load_state_dict(state["kb"])
        like = {n: torch.ones_like(g.linear.weight[:, 0]) for n, g in gated_layers(self.kb).items()}
        self.model, self.slices = make_proxy(self.kb, like, state["kept"])
        self.model.module.load_state_dict(state["proxy"])
        self.model.train(False)
        self.sparsity = state["sparsity"]


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory with what they were copied from."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
