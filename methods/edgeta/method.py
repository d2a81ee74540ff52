"""EdgeTA on the device: a proxy for each domain, its retraining, and the feedback.

Defects of the release and where each can be chosen (numbers as in the project's list of them):
W4 feed-forward rows and columns cut apart, W5 query, key and value mixed: ``matched``.
W8 a dense index larger than the model: ``index``. W10 the LoRA half of the feedback does not
reach inference: ``lora_in_feedback``; models averaged one after another:
`bench.methods.edgeta.feedback.average_task_agnostic` takes all means first. W11 one sample stands
for a domain: ``importance``. W12 a bad index destroys the knowledge base: ``max_residual``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench import FoundationModel, Method, register
from bench.batch import DomainView, Inputs, take
from bench.errors import Unsupported
from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.feedback import full_feedback, proxy_to_kb
from bench.methods.edgeta.offline import Offline, offline, weights_of
from bench.methods.feature_alignment import FeatureAlignment, FeatureAlignmentConfig
from bench.models.gates import gated_layers, importance, set_sparsity
from bench.models.neurons import Slice
from bench.models.proxy import make_proxy, most_important
from bench.window import Window


def retrained(proxy: FoundationModel) -> list[str]:
    """The parameters of a proxy that EdgeTA trains: q, k, v, feed-forward and normalisation.

    Weights and biases; embeddings, the attention's output layer and the head stay.
    """
    layers = {name for block in proxy.blocks() for name in (*block.qkv, block.ff_in, block.ff_out)}
    norms = {id(p) for p in proxy.normalisation_parameters()}
    head = {id(p) for p in proxy.head_parameters()}
    return [
        name
        for name, p in proxy.module.named_parameters()
        if id(p) not in head
        and (id(p) in norms or any(name.startswith(f"{layer}.") for layer in layers))
    ]


class ProxyAlignment(FeatureAlignment):
    """Feature alignment of a proxy: of its parameters, only those that EdgeTA retrains."""

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.source = source
        named = dict(model.module.named_parameters())
        parameters = [named[name] for name in retrained(model)]
        model.freeze_except(parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.config.learning_rate)


@register("method", "edgeta")
class EdgeTA(Method):
    """Proxies of the neurons that a domain needs, retrained and fed back, with defects mended.

    For each domain the knowledge base is sliced to the neurons that are important for a batch of
    it; the proxy is retrained by feature alignment (source cross-entropy + multi-kernel
    MMD); then W_kb = (W_kb + W_proxy) / 2 on the kept neurons, W_fm += alpha_1 I^T dW_kb,
    W_kb = alpha_2 I W_fm + (1 - alpha_2) W_kb, from which the next domain starts. The
    attention's output layer, which no proxy trains, moves with its values in this last step.
    Between domains the last proxy predicts. Model, knowledge base, index and proxy are in memory.

    This is the paper's algorithm with the defects of its release mended; ``edgeta-faithful`` has
    them. The release is followed where the paper's text is not public.
    """

    Config = EdgeTAConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    equation = (
        "proxy: CE(source) + w MMD^2;  W_kb = (W_kb + W_proxy) / 2,  W_fm += a1 I^T dW_kb,  "
        "W_kb = a2 I W_fm + (1 - a2) W_kb"
    )
    starts_from_fm = True
    check_settings = {"lora_steps": 20, "kb_steps": 100, "index_steps": 100}

    config: EdgeTAConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        made: Offline = offline(self.config, model, source)
        self.fm, self.products = made.fm, made.products
        self.kb, self.index = made.kb, made.index
        self.source = source
        self.sparsity = self.config.sparsity
        with source.kept_order():
            first = next(source.batches())
        self.model, self.slices = self.generate(first.x)

    def adapt(self, domain: DomainView, window: Window) -> None:
        with window.section("proxy"):
            sample = take(domain.x, torch.arange(min(domain.batch_size, len(domain))))
            self.model, self.slices = self.generate(sample)
        self.retraining = self.retrainer()
        self.retraining.prepare(self.model, self.source)
        self.retraining.adapt(domain, window)
        trained = bool(self.retraining.optimiser.state)
        del self.retraining  # its optimiser was this proxy's
        if not trained:
            raise Unsupported(  # `register` gives the name
                f"{self.registered_name}: the window of {window.budget_s:.3g} s closes before the "  # type: ignore[attr-defined]
                "first iteration, for making a proxy takes most of it; lengthen window_s"
            )
        with window.section("feedback"):
            self.give_feedback()

    def retrainer(self) -> ProxyAlignment:
        """What retrains a proxy."""
        c = self.config
        return ProxyAlignment(
            FeatureAlignmentConfig(
                learning_rate=c.learning_rate, epochs=c.epochs, mmd_weight=c.mmd_weight
            )
        )

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
            return torch.rand(g.shape)
        return -g if self.config.neurons == "unimportant" else g

    def give_feedback(self) -> None:
        """What the proxy has learned goes to the knowledge base, and over the model back to it."""
        c = self.config
        if c.feedback == "none":
            return
        kb = weights_of(self.kb)
        names = [name for name in retrained(self.model) if c.feedback_biases or not _is_bias(name)]
        before = {name: tensor.clone() for name, tensor in kb.items() if name in names}
        proxy_to_kb(weights_of(self.model), kb, self.slices, names)
        if c.feedback == "full":
            fm = {**weights_of(self.fm), **self.products}
            full_feedback(self.index, {**kb, **before}, kb, fm, c.kb_to_fm, c.fm_to_kb)

    def predict(self, x: Inputs) -> Tensor:
        self.model.train(False)
        return self.model(x)

    def state(self) -> dict[str, Any]:
        return {
            "fm": _copied(self.fm.module.state_dict()),
            "products": _copied(self.products),
            "kb": _copied(self.kb.module.state_dict()),
            "proxy": _copied(self.model.module.state_dict()),
            "kept": {
                name: self.slices[f"{name}.linear.weight"].rows for name in gated_layers(self.kb)
            },
            "source": self.source.order_state,
            "sparsity": self.sparsity,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.fm.module.load_state_dict(state["fm"])
        self.products = _copied(state["products"])
        self.kb.module.load_state_dict(state["kb"])
        like = {n: torch.ones(g.linear.out_features) for n, g in gated_layers(self.kb).items()}
        self.model, self.slices = make_proxy(self.kb, like, state["kept"])
        self.model.module.load_state_dict(state["proxy"])
        self.model.train(False)
        self.source.order_state = state["source"]
        self.sparsity = state["sparsity"]


def _is_bias(name: str) -> bool:
    return name.endswith("bias")


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
