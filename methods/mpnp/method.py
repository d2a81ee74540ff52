"""mPnP-LLM: keys and values of a modality before those of the last blocks of a frozen decoder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import BenchError, register
from bench.contracts.data import Inputs

from .budget import Transformer, Workload, encoder, linked_blocks
from .connection import Connector, Gates, prefix_cache, without_prefix
from .modality import ModalityConfig, ModalityMethod


class MPnPConfig(ModalityConfig):
    """Settings of mPnP-LLM beside those of `ModalityConfig`.

    ``budget``: share of full training's operations that a step may have, by the published count,
    which says how many of the last blocks are linked; the default links 13 of the 24 of OPT-1.3B;
    ``blocks``: that number itself, 0 for what the budget allows; ``gate_rate``: learning rate of
    the gates; ``empty_keys``: in blocks that are not linked, ``faithful`` gives keys and values of
    zeros, which draw attention, ``corrected`` none; ``decoder_offline``: whether the projections of
    keys and values of the linked blocks are trained too while the first modality is connected,
    ``trained`` as the paper has it, or ``frozen``, as the released script does.
    """

    budget: float = Field(0.52, gt=0, le=1)
    blocks: int = Field(0, ge=0, le=1000)
    gate_rate: float = Field(0.1, ge=1e-6, le=10)
    empty_keys: Literal["faithful", "corrected"] = "corrected"
    decoder_offline: Literal["trained", "frozen"] = "trained"


@register("method", "mpnp-llm")
class MPnP(ModalityMethod):
    """mPnP-LLM: aligners and gates connect a modality to the last blocks of a frozen decoder.

    An aligner of keys and one of values make of a modality's tokens a prefix of each linked block's
    keys and values, times sigmoid of the block's gate. Several modalities stand one after another.
    Online the new modality's aligners and the gates are trained. LoRA in the linked blocks, an
    option of the published one, is not built.
    """

    Config = MPnPConfig
    config: MPnPConfig
    provenance = "chosen-here"
    paper = (
        "Huang, Yang, Gao: Modality Plug-and-Play: Elastic Modality Adaptation in Multimodal "
        "LLMs for Embodied AI, arXiv 2312.07886, 2023"
    )
    equation = (
        "min over aligners and w: CE;  block j of the last N attends to [sigmoid(w_j) K_m; K_text] "
        "with values [sigmoid(w_j) V_m; V_text]"
    )
    conformance_config: ClassVar[dict[str, Any]] = {
        "epochs": 2, "offline_epochs": 1, "blocks": 2,
    }  # fmt: skip

    def connect(self, sample: Inputs) -> nn.Module:
        model = self.model
        work = self.workload(sample["input_ids"].shape[1])
        self.linked = self._linked(work)
        self.count = {"step": work.step(self.linked), "full_step": work.full}
        made: dict[str, nn.Module] = {
            name: Connector(model.encoder_width, model.width) for name in model.modalities
        }
        return nn.ModuleDict({**made, "gates": Gates(self.linked)})

    def trained(self, new: str) -> list[dict[str, Any]]:
        gates = list(self.links.get_submodule("gates").parameters())
        return [*super().trained(new), {"params": gates, "lr": self.config.gate_rate}]

    def trained_offline(self) -> list[dict[str, Any]]:
        groups = super().trained_offline()
        if self.config.decoder_offline == "frozen":
            return groups
        attentions = [cast(Any, layer).self_attn for layer in self.model.layers[-self.linked :]]
        projections = [each for a in attentions for each in (a.k_proj, a.v_proj)]
        return [*groups, {"params": [p for each in projections for p in each.parameters()]}]

    def outputs(self, x: Inputs) -> Tensor:
        model = self.model
        pairs = [self.links.get_submodule(m)(model.encoded(m, x)) for m in self.active]
        keys, values = (torch.cat(list(part), dim=1) for part in zip(*pairs, strict=True))
        layers = model.layers
        heads = cast(Any, layers[0]).self_attn.num_heads
        gates = self.links.get_submodule("gates")()
        cache = prefix_cache(keys, values, gates, heads, len(layers))
        empty = layers[: len(layers) - self.linked]
        if self.config.empty_keys == "faithful":
            return model.answered(x, cache=cache)
        with without_prefix(list(empty), keys.shape[1]):
            return model.answered(x, cache=cache)

    def details(self) -> dict[str, Any]:
        """Linked blocks, their gates, and multiply-accumulates a sample by the published count."""
        gates = self.links.get_submodule("gates")()
        known = {"linked_blocks": self.linked, "blocks": len(self.model.layers), **self.count}
        return {**super().details(), "mpnp": {**known, "gates": gates.detach().tolist()}}

    def _linked(self, work: Workload) -> int:
        """How many blocks are linked; BenchError if none can be."""
        there, asked = len(self.model.layers), self.config.blocks
        if asked > there:
            raise BenchError(f"blocks {asked}: the decoder has {there}; give {there} or fewer")
        return asked or linked_blocks(work, self.config.budget)

    def workload(self, words: int) -> Workload:
        """What the published count says of one sample whose question has so many words."""
        model, several = self.model, 1 + (self.config.online == "add")
        tokens = words + several * model.tokens_each
        decoder = Transformer(len(model.layers), model.width, tokens)
        classes = cast(Any, model.head).out_features
        body = Transformer(model.encoder_blocks, model.encoder_width, model.encoder_patches + 1)
        return Workload(decoder, classes * model.width, several * encoder(body, model.patch_values))
