"""Settings of EdgeTA: its offline stage, the retraining of proxies, and the feedback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator

from bench import DomainView, MethodConfig, tunable

from .retraining import Selector

LORA = (
    "lora_rank", "lora_steps", "lora_learning_rate", "lora_schedule", "selection", "checkpoints",
)  # fmt: skip
"""The settings on which the first of the offline stages depends, the adaptation by LoRA."""
KNOWLEDGE_BASE = (
    "ratio", "matched", "attention", "kb_steps", "kb_learning_rate", "kb_weight_decay",
    "distillation",
)  # fmt: skip
"""Those on which the second depends besides, the knowledge base."""
INDEX = (
    "lora_in_feedback", "gate_reduction", "index", "index_neurons", "index_steps",
    "index_learning_rate", "index_weight_decay", "index_kb_learning_rate", "index_weight",
    "gate_l1", "gate_l1_of", "min_sparsity", "max_sparsity", "sampling",
)  # fmt: skip
"""Those on which the third depends besides, importances and index."""
OFFLINE = (*LORA, *KNOWLEDGE_BASE, *INDEX)
"""The settings on which what the offline stages make depends; the others need no new one."""


class ProxyConfig(MethodConfig):
    """What all of EdgeTA's variants have; the published values where the small model allows it.

    Retraining: ``learning_rate`` of AdamW; ``epochs`` over the adaptation samples, or as many whole
    passes as make at least ``iterations``; ``qkv_bias``: biases of query, key and value are
    retrained too (False: as released for ViT). Proxy: ``sparsity``, share of each gated layer's
    neurons left out; ``importance`` read from the ``mean`` over the domain's batch, from its
    ``first`` sample or from the one of largest output ``entropy``; ``neurons``: the ``important``
    ones are kept, or ``random`` or the ``unimportant`` ones (ablations).

    Feedback: ``full`` (proxy, knowledge base, model and back), ``direct`` (proxy to knowledge
    base alone: the model is not involved) or ``none``; ``kb_to_fm`` and ``fm_to_kb``: its rates
    alpha_1 and alpha_2. ``model_feedback``: the model gives its ``change``, W_kb += alpha_2 I
    (W_fm - W_fm before), or ``replace`` puts the model in the place of a share of the knowledge
    base, W_kb = alpha_2 I W_fm + (1 - alpha_2) W_kb, as released. Where I W_fm is not exactly W_kb,
    and of a sparse index it is not, ``replace`` harms the knowledge base though nothing was learned
    (at alpha_2 = 1 from 98.3 to 93.7 % on the source); ``max_residual`` bounds that: the largest
    product of alpha_2 and the index's relative residual (none: as released, W12).
    ``feedback_biases``: retrained biases go back too.

    Offline (drawn by the ``draw`` of the source): ``selection``: adapted model and
    distilled knowledge base keep their ``last`` weights or, as released, the ``best`` of those that
    are validated on held-out source samples, ``checkpoints`` times in each stage (the index always
    keeps the best). ``ratio``: the knowledge base's inner widths are divided by it; ``matched``:
    its neurons are cut together with what they meet (False: as released, defects W4 and W5);
    ``attention``: whole heads are cut and the rest factorised, so that attention neurons can be
    left out too (second generation); ``lora_rank``, ``lora_steps``, ``lora_learning_rate``: of the
    model's adaptation to the source, the rate ``constant`` or, as released, ``linear``: up, then
    down to 0 (``lora_schedule``); ``lora_in_feedback``: its product takes part in inference
    after feedback (False: as released, W10); ``kb_steps``, ``kb_learning_rate``,
    ``kb_weight_decay``: of the knowledge base's training by AdamW, with ``distillation`` the weight
    of its teacher; ``gate_reduction``: bottleneck of the importances. ``index``: ``sparse`` with
    ``index_neurons`` of the model for each neuron of the knowledge base, or ``dense`` as released
    (W8); ``index_steps``, ``index_learning_rate``, ``index_weight_decay``,
    ``index_kb_learning_rate``: of the joint training of index and knowledge base; ``index_weight``
    and ``gate_l1``: weights of its losses, the latter of the importances' L1 norm of a ``sample``
    on average or, as released, of the whole ``batch`` (``gate_l1_of``); ``min_sparsity``,
    ``max_sparsity``, ``sampling``: of the sparsities it draws, ``uniform`` or by the ``sandwich``
    rule. The index is validated at four sparsities each time.
    """

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 15, unit="passes", log=True, ge=1, le=100)
    iterations: int | None = Field(None, ge=1, le=100)
    qkv_bias: bool = True
    sparsity: float = Field(0.8, ge=0, lt=1)
    importance: Literal["mean", "first", "entropy"] = "mean"
    neurons: Literal["important", "random", "unimportant"] = "important"
    feedback: Literal["full", "direct", "none"] = "full"
    kb_to_fm: float = tunable(0.1, 1e-3, 1.0, log=True, ge=0, le=1)
    fm_to_kb: float = tunable(1.0, 1e-3, 1.0, log=True, ge=0, le=1)
    model_feedback: Literal["change", "replace"] = "change"
    max_residual: float | None = Field(0.1, gt=0, le=1000)
    feedback_biases: bool = True

    selection: Literal["last", "best"] = "last"
    ratio: int = Field(4, ge=1, le=4096)
    matched: bool = True
    attention: bool = False
    lora_rank: int = Field(8, ge=1, le=256)
    lora_steps: int = Field(200, ge=0, le=10_000_000)
    lora_learning_rate: float = Field(5e-4, gt=0, le=1)
    lora_schedule: Literal["constant", "linear"] = "constant"
    lora_in_feedback: bool = True
    kb_steps: int = Field(1000, ge=1, le=10_000_000)
    kb_learning_rate: float = Field(2e-3, gt=0, le=1)
    kb_weight_decay: float = Field(0.01, ge=0, le=100)
    distillation: float = Field(1.0, ge=0, le=1000)
    gate_reduction: int = Field(16, ge=1, le=4096)
    index: Literal["sparse", "dense"] = "sparse"
    index_neurons: int = Field(16, ge=1, le=65536)
    index_steps: int = Field(1000, ge=1, le=10_000_000)
    index_learning_rate: float = Field(3e-3, gt=0, le=1)
    index_weight_decay: float = Field(0.1, ge=0, le=100)
    index_kb_learning_rate: float = Field(1e-3, gt=0, le=1)
    index_weight: float = Field(1e-4, ge=0, le=1000)
    gate_l1: float = Field(1e-9, ge=0, le=1000)
    gate_l1_of: Literal["sample", "batch"] = "sample"
    min_sparsity: float = Field(0.0, ge=0, lt=1)
    max_sparsity: float = Field(0.9, ge=0, lt=1)
    sampling: Literal["uniform", "sandwich"] = "uniform"
    checkpoints: int = Field(5, ge=1, le=1000)

    @field_validator("max_sparsity")
    @classmethod
    def _above_the_least(cls, value: float, info: Any) -> float:
        if value < info.data.get("min_sparsity", 0.0):
            raise ValueError("is below min_sparsity")
        return value

    def offline(self) -> dict[str, Any]:
        """The settings on which what the offline stages make depends."""
        return self.only(OFFLINE)

    def only(self, names: Iterable[str]) -> dict[str, Any]:
        """The settings of these names."""
        return {name: getattr(self, name) for name in names}

    def passes(self, domain: DomainView) -> int:
        """How often the samples of a domain are adapted on."""
        if self.iterations is None:
            return self.epochs
        return math.ceil(self.iterations / domain.batches_per_pass)


class EdgeTAConfig(ProxyConfig):
    """Settings of EdgeTA: those of `ProxyConfig`, and of retraining by feature alignment.

    ``mmd_weight``: of the alignment; ``trained_share``: of the neurons of each retrained layer,
    1 for all; ``selector`` of those: the ones of the largest ``gradient``, ``inverse``: of the
    smallest, ``random`` ones, or ``released``: as released, arbitrary ones (W14).
    """

    mmd_weight: float = tunable(1.0, 0.1, 10.0, log=True, ge=0, le=100.0)
    trained_share: float = Field(1.0, gt=0, le=1)
    selector: Selector = "gradient"
