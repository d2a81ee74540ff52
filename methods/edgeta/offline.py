"""EdgeTA's offline stage: model with LoRA, knowledge base, importances and neuron index.

All of it is done before deployment, on source data, once for each content, and cached.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bench import BenchError, DomainView, FoundationModel
from bench.contracts.data import LazyInputs, subset
from bench.contracts.model import source_digest, weights_digest
from bench.contracts.structure import WrongBlocks
from bench.io.digest import digest
from bench.io.progress import advance, part
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.models.surgery.distillation import distil, rate
from bench.models.surgery.gates import insert_gates, recorded, require_gateable, set_sparsity
from bench.models.surgery.lora import LoraLinear, fuse_lora, insert_lora
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.masking import require_prunable
from bench.models.surgery.pruning import Kept, cut, strongest, strongest_heads
from bench.registry.component_code import code_digest

from .._losses import take_step, train_only
from .config import ProxyConfig
from .index import NeuronIndex, paired_groups, released_groups
from .retraining import first_batch

HELD_OUT = 0.2
"""Share of the source on which checkpoints are chosen."""
VALIDATED = 4
"""Sparsities at which a checkpoint is validated, evenly from the least to the largest."""


@dataclass
class Offline:
    """What EdgeTA brings to the device.

    ``fm``: the model, adapted to the source by LoRA; ``products``: LoRA products that are kept
    apart instead of fused into it, by the name in the index; empty unless as released; ``kb``: the
    gated knowledge base; ``accuracy``: its own on held-out source data, by sparsity.
    """

    fm: FoundationModel
    products: dict[str, Tensor]
    kb: FoundationModel
    index: NeuronIndex
    accuracy: dict[float, float]

    def fm_weights(self) -> dict[str, Tensor]:
        """The model's parameters by name, and the separate LoRA products."""
        return {**weights_of(self.fm), **self.products}


def weights_of(model: FoundationModel) -> dict[str, Tensor]:
    """A model's parameters by name, detached: changing them in place changes the model."""
    return {name: p.detach() for name, p in model.module.named_parameters()}


def offline(config: ProxyConfig, model: FoundationModel, source: DomainView) -> Offline:
    """The offline stage for a model that was trained on ``source``, from the cache if it is there.

    The ``draw`` of ``source`` is the seed of all that the stage draws.
    Torch's generator and the order of ``source`` are afterwards as they were before. Raises
    Unsupported if the model declares no blocks or they are not what the network is; BenchError if
    its widths do not divide by the ratio or the index's residual is above the limit.
    """
    like = next(model.module.parameters())
    dtype, place = like.dtype, like.device
    start = model.clone()
    start.module.float()  # bfloat16 rounds the small steps of training away
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.draw)
        made = _structure(config, start)
        inputs = [weights_digest(model.module), source_digest(source), config.offline()]
        blocks = [asdict(block) for block in model.blocks()]
        key = digest([*inputs, blocks, code_digest(Path(__file__))])
        path = cache_folder() / "edgeta" / f"{key[:20]}.pt"
        kept = cached(path, lambda: _trained(config, start, source))
    modules = {"fm": made.fm.module, "kb": made.kb.module, "index": made.index}
    for name, module in modules.items():
        module.load_state_dict(kept[name])
    made.products.update({name: product.to(place) for name, product in kept["products"].items()})
    made.accuracy.update(kept["accuracy"])
    made.index.require_residual(weights_of(made.kb), made.fm_weights(), config.max_residual)
    for module in modules.values():
        module.to(dtype).requires_grad_(False)
    made.products = {name: product.to(dtype) for name, product in made.products.items()}
    made.fm.train(False)
    made.kb.train(False)
    return made


def lora_products(fm: FoundationModel) -> dict[str, Tensor]:
    """Scale B A of every adapter, by the name under which the index knows it."""
    return {
        f"{name}.lora_product": layer.scale
        * torch.cat([b @ a for a, b in zip(layer.down, layer.up, strict=True)]).detach()
        for name, layer in fm.module.named_modules()
        if isinstance(layer, LoraLinear)
    }


def _structure(config: ProxyConfig, model: FoundationModel) -> Offline:
    """An untrained result with the shapes of a trained one."""
    fm, kb = model.clone(), model.clone()
    _cut(config, kb)
    insert_gates(kb, config.gate_reduction)
    if not config.lora_in_feedback:
        insert_lora(fm, config.lora_rank, config.lora_rank)
    products = {} if config.lora_in_feedback else lora_products(fm)
    return Offline(fm, products, kb, _index(config, kb, fm, products), {})


def _cut(config: ProxyConfig, kb: FoundationModel) -> None:
    cut(kb, _chooser(config)(kb, config.ratio, config.matched))
    if config.attention:
        factorise(kb)


def _chooser(config: ProxyConfig) -> Callable[..., list[Kept]]:
    return strongest_heads if config.attention else strongest


def _index(
    config: ProxyConfig, kb: FoundationModel, fm: FoundationModel, products: dict[str, Tensor]
) -> NeuronIndex:
    sparse = config.index == "sparse"
    groups = (paired_groups if sparse else released_groups)(kb, fm)
    neurons = config.index_neurons if sparse else None
    return NeuronIndex(groups, weights_of(kb), {**weights_of(fm), **products}, neurons)


def _trained(config: ProxyConfig, model: FoundationModel, source: DomainView) -> Weights:
    with source.preserve_rng():
        generator = torch.Generator().manual_seed(source.draw)
        order = torch.randperm(len(source), generator=generator)
        held = max(round(HELD_OUT * len(source)), 1)
        if held >= len(source):
            raise BenchError(
                f"EdgeTA: {len(source)} source samples leave none to train on; give 2 or more"
            )
        train, validation = _part(source, order[held:]), _part(source, order[:held])
        sample = first_batch(train)
        require_prunable(model, sample, _chooser(config), config.ratio)
        require_gateable(model, sample)
        made = _train_stages(config, model, train, validation)
    modules = {"fm": made.fm.module, "kb": made.kb.module, "index": made.index}
    weights = {name: module.state_dict() for name, module in modules.items()}
    return {**weights, "products": made.products, "accuracy": made.accuracy}


def _part(source: DomainView, chosen: Tensor) -> DomainView:
    """The chosen samples, in the single precision in which the stage trains."""
    x = subset(source.x, chosen)
    if not isinstance(x, LazyInputs):  # these are float32, and stay in their files
        x = tree_map(lambda t: t.float() if t.is_floating_point() else t, x)
    return DomainView(
        "source",
        x,
        source.y[chosen],
        source.batch_size,
        torch.Generator().manual_seed(source.draw),
        least_batch=source.least_batch,
        draw=source.draw,
    )


def _train_stages(
    config: ProxyConfig, model: FoundationModel, train: DomainView, validation: DomainView
) -> Offline:
    fm = model.clone()
    _adapt_lora(config, fm, train)
    fused = copy.deepcopy(fm)
    fuse_lora(fused)
    _require_equal(fm, fused, validation)
    kb = fused.clone()
    _cut(config, kb)
    c = config
    steps = c.lora_steps + c.kb_steps + c.index_steps
    with part(c.lora_steps, steps):
        distil(kb, fused, train, c.kb_steps, c.kb_learning_rate, c.kb_weight_decay, c.distillation)
    insert_gates(kb, config.gate_reduction)
    kept = fused if config.lora_in_feedback else fm
    products = {} if config.lora_in_feedback else lora_products(fm)
    made = Offline(kept, products, kb, _index(config, kb, kept, products), {})
    with part(c.lora_steps + c.kb_steps, steps):
        made.accuracy = _train_index(config, made, train, validation)
    return made


def _adapt_lora(config: ProxyConfig, fm: FoundationModel, train: DomainView) -> None:
    """Train low-rank adapters on q, k and v and the head on the source; they stay inserted."""
    adapters = insert_lora(fm, config.lora_rank, config.lora_rank)
    parameters = train_only(fm, adapters + fm.head_parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.lora_learning_rate)
    fm.train()
    for _, batch in zip(range(config.lora_steps), train.infinite(), strict=False):
        take_step(optimizer, fm.loss(fm(fm.augment(batch.x)), batch.y))
    optimizer.zero_grad()
    fm.train(False)


@torch.no_grad()
def _require_equal(fm: FoundationModel, fused: FoundationModel, data: DomainView) -> None:
    batch = next(data.batches(shuffle=False))
    away = float((fm(batch.x) - fused(batch.x)).abs().max())
    if not away < 1e-3:
        raise WrongBlocks(
            f"EdgeTA: fusing LoRA changes outputs by {away:.2g}; check the model's blocks()"
        )


def _train_index(
    config: ProxyConfig, made: Offline, train: DomainView, validation: DomainView
) -> dict[float, float]:
    """Train knowledge base, importances and index together; returns accuracy by sparsity.

    L = task(kb at a random sparsity) + w_idx sum |I F - K|^2 + w_l1 sum |g|_1, the model frozen.
    The checkpoint of the best mean accuracy over the validated sparsities stays.
    """
    kb, index, fm = made.kb, made.index, made.fm_weights()
    kb.module.requires_grad_(True)
    of_kb = {"params": list(kb.module.parameters()), "lr": config.index_kb_learning_rate}
    of_index = {"params": list(index.parameters()), "lr": config.index_learning_rate}
    decay = {"weight_decay": config.index_weight_decay}
    optimizer = torch.optim.AdamW([of_kb, of_index | decay])
    steps = config.index_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    every = max(steps // config.checkpoints, 1)
    best: tuple[float, Weights, Weights, dict[float, float]] | None = None
    kb.train()
    sparsities = _sparsities(config)
    for step, batch in zip(range(steps), train.infinite(), strict=False):
        set_sparsity(kb, next(sparsities))
        with recorded(kb) as gates:
            outputs = kb(kb.augment(batch.x))
        size = torch.stack([g.abs().sum() for g in gates.values()]).sum() / len(batch)
        misfit = index.loss(dict(kb.module.named_parameters()), fm)
        loss = kb.loss(outputs, batch.y) + config.index_weight * misfit + config.gate_l1 * size
        take_step(optimizer, loss)
        schedule.step()
        advance(step + 1, steps)
        if (step + 1) % every == 0 or step + 1 == steps:
            accuracy = _validated(config, kb, validation)
            score = sum(accuracy.values()) / len(accuracy)
            if best is None or score > best[0]:
                weights = (kb.module.state_dict(), index.state_dict())
                best = (score, *copy.deepcopy(weights), accuracy)
            kb.train()
    optimizer.zero_grad()
    assert best is not None
    kb.module.load_state_dict(best[1])
    index.load_state_dict(best[2])
    kb.train(False)
    set_sparsity(kb, 0.0)
    index.refit(weights_of(kb), fm)
    return best[3]


def _sparsities(config: ProxyConfig) -> Iterator[float]:
    low, high = config.min_sparsity, config.max_sparsity

    def drawn() -> float:
        return low + (high - low) * float(torch.rand(()))

    while True:
        if config.sampling == "sandwich":  # Yu and Huang, ICCV 2019
            yield from (low, drawn(), drawn(), high)
        else:
            yield drawn()


@torch.no_grad()
def _validated(
    config: ProxyConfig, kb: FoundationModel, validation: DomainView
) -> dict[float, float]:
    """Metric of the masked knowledge base, set to evaluation, at evenly spaced sparsities."""
    low, high = config.min_sparsity, config.max_sparsity
    found = {}
    kb.train(False)
    for i in range(VALIDATED):
        sparsity = round(low + (high - low) * i / (VALIDATED - 1), 6)
        set_sparsity(kb, sparsity)
        score = kb.rules.score()
        for batch in validation.batches(shuffle=False):
            score.update(kb(batch.x), batch.y)
        where = "the source samples that EdgeTA holds out"
        found[sparsity] = kb.rules.metric.checked(score.compute(), where)
    return found
