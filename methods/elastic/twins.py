"""Elastic twins of methods: their objective, over the tensors that pay most within a budget.

ElasticTrainer selects around any objective that steps of an optimizer lower. A twin is its method
but for what each step trains, so that the two differ by the selection alone.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from bench import DomainView, FoundationModel, Window, register

from ..edgeta.config import EdgeTAConfig
from ..edgeta.method import EdgeTA
from ..feature_alignment import FeatureAlignment, FeatureAlignmentConfig
from ..fine_tune import FineTune, FineTuneConfig
from ..tent import Tent, TentConfig
from .elastic_window import ElasticConfig, ElasticWindow, details_of, new_state


class Elastic:
    """What twins share; a twin derives from this, then from its method.

    The first step of each selection trains all of the method's tensors and tells their importance;
    it is charged, as are the profile of the tensors' costs, made once for each shape of a batch,
    and the choice. An optimizer keeps what it knows of a tensor that is not selected, which does
    not move. BatchNorm's running statistics follow the method, whatever is trained.
    """

    config: Any
    model: FoundationModel
    elastic: dict[str, Any]

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        """As the method."""
        super().prepare(model, source)  # type: ignore[misc]
        self.elastic = new_state()

    def adapt(self, domain: DomainView, window: Window) -> None:
        """As the method, over the selected tensors."""
        super().adapt(domain, self.selecting(domain, window))  # type: ignore[misc]

    def selecting(self, domain: DomainView, window: Window) -> Window:
        """The window for the method's own loop over ``model`` as it is now."""
        inside = ElasticWindow(window, self.model, domain, self.config, self.elastic)
        return cast(Window, inside)

    def details(self) -> dict[str, Any]:
        """What was selected, see `details_of`."""
        known = super().details()  # type: ignore[misc]
        return {**known, "elastic": details_of(self.elastic, self.config)}


class ElasticFineTuneConfig(ElasticConfig, FineTuneConfig):
    """Settings of fine-tune, and of the selection.

    ``cost_ratio``: of the costs of a step, forward and backward pass, that a step may have;
    ``select_interval``: passes after which tensors are selected anew, as at each new domain;
    ``select_by``: see `Probe.importance`, ``two-pass`` as published, ``taylor`` the same from one
    ordinary step; ``solver``: ``published`` misses the best choice at times; ``resolution``: units
    that a backward pass is divided into; ``probe``: ``early-stopped``, the step that tells
    importance trains only what the budget reaches, as GreenTrainer has it; ``cost``: what is
    divided, see `tensor_costs`: the paper's is time on the device; here devices are modelled and
    share a run, and what is measured on the machine that computes does not repeat to the bit;
    ``cost_device``: the modelled device whose time or energy is meant.
    """


@register("method", "elastic-fine-tune")
class ElasticFineTune(Elastic, FineTune):
    """ElasticTrainer around fine-tune: cross-entropy on target labels (Huang et al., 2023).

    Published on images with SGD, decoupled weight decay and a cosine schedule over 12 epochs, here
    with fine-tune's optimizer, as the twin of that; a domain's passes take the place of epochs.
    """

    Config = ElasticFineTuneConfig
    conformance_config: ClassVar[dict[str, Any]] = {"cost_ratio": 0.9}
    family = "PEFT"
    search_from = "fine-tune"
    paper = (
        "Huang, Yang, Gao: ElasticTrainer: Speeding Up On-Device Training with Runtime Elastic "
        "Tensor Selection, MobiSys 2023"
    )
    equation = (
        "max over masks M: sum_k M_k I_k, I_k = -g_k dw_k;  T_fp + T_dw(M) + T_dy(M) <= rho T;  "
        "then min over the selected: CE(target)"
    )


class GreenTrainerConfig(ElasticFineTuneConfig):
    """Settings of elastic-fine-tune, with GreenTrainer's where they differ."""

    select_interval: int = Field(2, ge=1, le=10_000)
    probe: Literal["whole", "early-stopped"] = "early-stopped"


@register("method", "green-trainer")
class GreenTrainer(ElasticFineTune):
    """ElasticTrainer's selection by operations, for language models (Huang et al., ICLR 2024).

    Its budget is of operations, which are counted here as executed, elementwise ones too; the paper
    counts multiply-accumulates of matrices at the padded length. Tensors that the budget cannot
    reach are left out of the probe.
    """

    Config = GreenTrainerConfig
    search_from = "fine-tune"
    paper = (
        "Huang, Yin, Huang, Gao: Towards Green AI in Fine-tuning Large Language Models via "
        "Adaptive Backpropagation, ICLR 2024"
    )
    equation = (
        "max over masks M: sum_k M_k I_k, I_k = -g_k dw_k;  F_fp + F_dw(M) + F_dy(M) <= rho F;  "
        "then min over the selected: CE(target)"
    )


class ElasticFeatureAlignmentConfig(ElasticConfig, FeatureAlignmentConfig):
    """Settings of feature-alignment, and of the selection as in elastic-fine-tune."""


@register("method", "elastic-feature-alignment")
class ElasticFeatureAlignment(Elastic, FeatureAlignment):
    """ElasticTrainer's selection around feature-alignment, which needs no target labels."""

    Config = ElasticFeatureAlignmentConfig
    conformance_config: ClassVar[dict[str, Any]] = {"cost_ratio": 0.9}
    search_from = "feature-alignment"
    paper = (
        "Huang, Yang, Gao: ElasticTrainer, MobiSys 2023 (selection); Long, Cao, Wang, Jordan: Deep "
        "Adaptation Networks, ICML 2015 (objective)"
    )
    equation = (
        "max over masks M: sum_k M_k I_k, I_k = -g_k dw_k;  T_fp + T_dw(M) + T_dy(M) <= rho T;  "
        "then min over the selected: CE(source) + w MMD^2"
    )


class ElasticTentConfig(ElasticConfig, TentConfig):
    """Settings of tent, and of the selection as in elastic-fine-tune.

    ``cost_ratio`` is of tent's step, whose forward pass is about half of it.
    """

    cost_ratio: float = Field(0.8, gt=0, le=1)


@register("method", "elastic-tent")
class ElasticTent(Elastic, Tent):
    """ElasticTrainer's selection among the normalization tensors that tent trains."""

    Config = ElasticTentConfig
    conformance_config: ClassVar[dict[str, Any]] = {"cost_ratio": 1.0}
    provenance = "chosen-here"  # type: ignore[assignment]
    search_from = "tent"
    paper = (
        "Huang, Yang, Gao: ElasticTrainer, MobiSys 2023 (selection); Wang, Shelhamer, Liu, "
        "Olshausen, Darrell: Tent, ICLR 2021 (objective)"
    )
    equation = (
        "max over masks M: sum_k M_k I_k, I_k = -g_k dw_k;  T_fp + T_dw(M) + T_dy(M) <= rho T;  "
        "then min over the selected: mean_i H(p_i)"
    )


class ElasticEdgeTAConfig(ElasticConfig, EdgeTAConfig):
    """Settings of edgeta, and of the selection as in elastic-fine-tune."""


@register("method", "elastic-edgeta")
class ElasticEdgeTA(Elastic, EdgeTA):
    """EdgeTA whose proxies are retrained over the tensors that ElasticTrainer selects.

    Each domain's proxy is profiled anew, for it has other neurons.
    """

    Config = ElasticEdgeTAConfig
    conformance_config: ClassVar[dict[str, Any]] = {
        "cost_ratio": 0.9, "lora_steps": 20, "kb_steps": 100, "index_steps": 100,
    }  # fmt: skip
    provenance = "chosen-here"
    search_from = "edgeta"
    paper = (
        "Huang, Yang, Gao: ElasticTrainer, MobiSys 2023 (selection); Zhang et al.: EdgeTA, IEEE "
        "TMC 2025 (proxies and feedback)"
    )
    equation = (
        "EdgeTA's, with the proxy's step over max over masks M: sum_k M_k I_k, I_k = -g_k dw_k;  "
        "T_fp + T_dw(M) + T_dy(M) <= rho T"
    )

    def adapt(self, domain: DomainView, window: Window) -> None:
        EdgeTA.adapt(self, domain, window)

    def retrain(self, domain: DomainView, window: Window) -> bool:
        self.elastic.update(costs={}, domain="", selected=[])
        return EdgeTA.retrain(self, domain, self.selecting(domain, window))
