"""SAR: sharpness-aware entropy minimisation on reliable samples, with model recovery."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Block, FoundationModel, Method, MethodConfig, Unsupported, register, tunable
from bench.contracts.data import DomainView, Inputs, take
from bench.contracts.module_names import module_at
from bench.run.window import Window

from ._batchnorm import Statistics, set_statistics
from ._losses import affine_parameters, at_least_float32, entropy, train_only
from .eata import couples_samples


def lower_affine_parameters(model: FoundationModel, frozen_blocks: float) -> list[nn.Parameter]:
    """Scale and shift of the normalization layers below the top share of the blocks.

    The top ``frozen_blocks`` of the blocks, rounded down, and all that comes after them (the final
    normalization) are left out. A model without blocks is cut by its normalization layers.
    Raises Unsupported if nothing is left.
    """
    kept = affine_parameters(model)
    modules = dict(model.module.named_modules())
    names = [_block_name(block) for block in model.blocks()]
    found = [module_at(model.module, name) for name in names]
    if None in found:
        raise Unsupported(
            f"sar: blocks() of {type(model).__name__} names layers in "
            f"{names[found.index(None)]!r}, which is no module of its network; check it"
        )
    if not names:
        own = {id(p) for p in kept}
        names = [
            n for n, m in modules.items() if any(id(p) in own for p in m.parameters(recurse=False))
        ]
    frozen = int(frozen_blocks * len(names))
    if frozen and any(block in found[:-frozen] for block in found[-frozen:]):
        raise Unsupported(
            f"sar: the top blocks of {type(model).__name__} share their weights with those below "
            "and cannot be frozen by themselves; set frozen_blocks: 0"
        )
    if frozen:
        order = list(modules.values())
        first = order.index(model.module.get_submodule(names[-frozen]))
        left_out = {id(p) for m in order[first:] for p in m.parameters(recurse=False)}
        kept = [p for p in kept if id(p) not in left_out]
    if not kept:
        raise Unsupported(
            f"sar: frozen_blocks {frozen_blocks} leaves no normalization layer of "
            f"{type(model).__name__} to train; lower it"
        )
    return kept


def _block_name(block: Block) -> str:
    """The module that holds all layers of a block: what their names have in common."""
    layers = (*block.qkv, block.out, block.ff_in, block.ff_out)
    levels = zip(*(name.split(".") for name in layers), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


class SarConfig(MethodConfig):
    """Settings of SAR; defaults are the paper's for ViT-B/16.

    ``learning_rate``: of SGD with momentum 0.9, 1e-3 for batches of 64 in the paper; ``epochs``:
    passes over the adaptation split, one in the paper; ``entropy_share``: E_0 of eq. (2) as a
    share of ln(number of classes); ``rho``: radius of the perturbation, the 2-norm over all
    trained weights; ``recovery_threshold``: moving average of the loss, in nats, below which the
    model is set back (chosen for 1000 classes, where the largest entropy is 6.9; it is 2.3 for
    10); ``frozen_blocks``: share of the top blocks whose normalization stays as it is, with the
    final one: blocks 10 to 12 of 12 in the paper; ``recovery``: ``corrected`` begins a new moving
    average and forgets the momentum when the model was set back, ``faithful`` keeps both as the
    authors' code does, which sets the model back again at every step until the average has risen;
    ``unreliable``: a batch without a reliable sample is ``skipped``, or takes a step by
    ``momentum`` alone, as in the authors' code, where its gradient is 0; ``statistics``: ``batch``,
    the authors', lets BatchNorm layers normalize each batch by itself, in predictions too;
    ``running`` predicts by running averages.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    entropy_share: float = Field(0.4, gt=0, le=1.0)
    rho: float = tunable(0.05, 0.01, 0.5, log=True, ge=0, le=10.0)
    recovery_threshold: float = tunable(0.2, 0.0, 0.4, unit="nat", le=10.0)
    frozen_blocks: float = Field(0.25, ge=0, le=1.0)
    recovery: Literal["corrected", "faithful"] = "corrected"
    unreliable: Literal["skipped", "momentum"] = "skipped"
    statistics: Statistics = "batch"


@register("method", "sar")
class Sar(Method):
    """Sharpness-aware and reliable entropy minimisation (Niu et al., ICLR 2023).

    Scale and shift of the lower normalization layers descend the entropy's gradient at weights
    perturbed by rho along the gradient, eq. (4). Samples count that are reliable, eq. (2), before
    and again after the perturbation.
    """

    tasks = ("classification", "token-classification", "segmentation", "visual-question-answering")
    Config = SarConfig
    config: SarConfig
    paper = (
        "Niu, Wu, Zhang, Wen, Chen, Zhao, Tan: Towards Stable Test-Time Adaptation in Dynamic "
        "Wild World, ICLR 2023"
    )
    equation = (
        "min over normalization scale and shift w: max over |e| <= rho of mean over i with H(p_i)"
        " < E_0 of H(p_i(w + e))"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        set_statistics(model, self.config.statistics)
        self.batch_coupled = couples_samples(model)
        lower = lower_affine_parameters(model, self.config.frozen_blocks)
        self.trained = train_only(model, lower)
        self.start = [p.detach().clone() for p in self.trained]
        self.average: float | None = None
        self.optimizer = torch.optim.SGD(self.trained, lr=self.config.learning_rate, momentum=0.9)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs), data_dependent=True):
            loss = self._step(batch.x, window)
            if loss is not None:
                window.log(entropy=loss)
                self._recover(loss, window)

    def _step(self, x: Inputs, window: Window) -> float | None:
        """One update; the entropy at the perturbed weights, or None if no sample is reliable."""
        logits = self.model.units(self.model(x), x)
        margin = self.config.entropy_share * math.log(logits.shape[1])
        uncertainty = entropy(logits)
        chosen = uncertainty < margin
        window.declare(sum(chosen.tolist()))
        chosen = chosen.nonzero().squeeze(1)
        if not len(chosen):
            self._coast()
            return None
        gradients = torch.autograd.grad(
            uncertainty[chosen].mean(), self.trained, materialize_grads=True
        )
        here = [p.detach().clone() for p in self.trained]
        self._perturb(gradients)
        if self.batch_coupled:
            again = self.model.units(self.model(x), x)[chosen]
        else:
            again = self.model(take(x, chosen))
        uncertainty = entropy(again)
        reliable = uncertainty < margin
        window.declare(sum(reliable.tolist()))
        loss = uncertainty[reliable].mean() if reliable.any() else None
        self.optimizer.zero_grad()
        if loss is not None:
            loss.backward()
        self._set(here)
        if loss is None:
            self._coast()
            return None
        self.optimizer.step()
        return float(loss.detach())

    def _coast(self) -> None:
        """What a batch without a reliable sample does: nothing, or a step by momentum alone."""
        if self.config.unreliable == "momentum":
            for weight in self.trained:
                weight.grad = torch.zeros_like(weight)
            self.optimizer.step()

    @torch.no_grad()
    def _perturb(self, gradients: tuple[Tensor, ...]) -> None:
        """Add rho g / |g|, eq. (4)."""
        norm = torch.stack([at_least_float32(g).norm() for g in gradients]).norm() + 1e-12
        for weight, gradient in zip(self.trained, gradients, strict=True):
            weight.add_((self.config.rho / norm * gradient).to(weight.dtype))

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.trained, values, strict=True):
            weight.copy_(value)

    def _recover(self, loss: float, window: Window) -> None:
        """Back to the source where the model has become certain of everything."""
        self.average = loss if self.average is None else 0.9 * self.average + 0.1 * loss
        collapsed = self.average < self.config.recovery_threshold
        window.declare(int(collapsed))
        if collapsed:
            self._set(self.start)
            if self.config.recovery == "corrected":
                self.optimizer.state.clear()
                self.average = None
