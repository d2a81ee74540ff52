"""EdgeTA's offline stages: model with LoRA, knowledge base, importances and neuron index.

All of it is done before deployment, on source data. Each stage is cached by its own content and by
that of the stages before it, so that other settings of the index train no other knowledge base.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bench import BenchError, DomainView, FoundationModel
from bench.contracts.data import LazyInputs, subset
from bench.contracts.method import only_shapes
from bench.contracts.model import source_digest, weights_digest
from bench.contracts.structure import WrongBlocks
from bench.io.digest import digest
from bench.io.progress import part
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.models.surgery.gates import insert_gates, require_gateable
from bench.models.surgery.lora import LoraLinear, fuse_lora, insert_lora
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.masking import require_prunable
from bench.models.surgery.pruning import Kept, cut, strongest, strongest_heads
from bench.registry.component_code import code_digest

from .config import INDEX, KNOWLEDGE_BASE, LORA, ProxyConfig
from .index import NeuronIndex, paired_groups, released_groups
from .retraining import first_batch
from .stages import Curves, adapt_lora, train_index, train_kb

HELD_OUT = 0.2
"""Share of the source on which checkpoints are chosen."""
STAGES = ("lora", "knowledge-base", "index")
"""The names of the stages, in their order."""


@dataclass
class Offline:
    """What EdgeTA brings to the device.

    ``fm``: the model, adapted to the source by LoRA; ``products``: LoRA products that are kept
    apart instead of fused into it, by the name in the index; empty unless as released; ``kb``: the
    gated knowledge base; ``accuracy``: its own on held-out source data, by sparsity; ``residuals``
    of the index by group; ``curves``: losses and metrics of the stages' trainings, by
    ``STAGE/NAME``.
    """

    fm: FoundationModel
    products: dict[str, Tensor]
    kb: FoundationModel
    index: NeuronIndex
    accuracy: dict[float, float]
    residuals: dict[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What a record tells of the stages: the ends of all curves, and the index's residuals."""
        if not self.residuals:
            return {}  # nothing was trained, only its shapes are counted
        found: dict[str, Any] = {}
        for name, points in self.curves.items():
            stage, _, what = name.partition("/")
            if points and "residual of" not in what and "at sparsity" not in what:  # told below
                found.setdefault(stage, {})[what] = points[-1][1]
        worst = max(self.residuals, key=lambda name: self.residuals[name])
        found["index"] |= {
            "accuracy by sparsity": {f"{s:g}": value for s, value in self.accuracy.items()},
            "mean residual": sum(self.residuals.values()) / len(self.residuals),
            "largest residual": self.residuals[worst],
            "largest residual of": worst,
        }
        return found

    def fm_weights(self) -> dict[str, Tensor]:
        """The model's parameters by name, and the separate LoRA products."""
        return {**weights_of(self.fm), **self.products}


def weights_of(model: FoundationModel) -> dict[str, Tensor]:
    """A model's parameters by name, detached: changing them in place changes the model."""
    return {name: p.detach() for name, p in model.module.named_parameters()}


def offline(config: ProxyConfig, model: FoundationModel, source: DomainView) -> Offline:
    """The offline stages for a model that was trained on ``source``, from the cache if they are
    there.

    The ``draw`` of ``source`` is the seed of all that they draw, and of what they hold out. Torch's
    generator and the order of ``source`` are afterwards as they were before. Raises
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
        if not only_shapes():
            inputs = [weights_digest(model.module), source_digest(source), source.draw]
            _take(made, _Stages(config, start, source, inputs).index(), config, place)
    for module in (made.fm.module, made.kb.module, made.index):
        module.to(dtype).requires_grad_(False)
    made.products = {name: product.to(dtype) for name, product in made.products.items()}
    made.fm.train(False)
    made.kb.train(False)
    return made


def _take(made: Offline, kept: Weights, config: ProxyConfig, place: torch.device) -> None:
    """What the stages made, into its structure."""
    for name, module in {"fm": made.fm.module, "kb": made.kb.module, "index": made.index}.items():
        module.load_state_dict(kept[name])
    made.products.update({name: product.to(place) for name, product in kept["products"].items()})
    made.accuracy.update(kept["accuracy"])
    made.curves.update({name: [(s, v) for s, v in kept["curves"][name]] for name in kept["curves"]})
    kb, fm = weights_of(made.kb), made.fm_weights()
    made.residuals.update(made.index.residuals(kb, fm))
    made.curves.update(
        {f"index/residual of {n}": [(config.index_steps, r)] for n, r in made.residuals.items()}
    )
    if config.feedback == "full" and config.model_feedback == "replace":
        made.index.require_residual(kb, fm, config.fm_to_kb, config.max_residual)


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


class _Stages:
    """The stages of a model on a source; each is read from the cache, or trained.

    Torch's generators and the order of the batches go on from stage to stage, so what a stage
    leaves of them is kept with its weights: a stage that is trained alone gives the bits that it
    gives when all are trained in a row. ``inputs``: what the first depends on beside its settings.
    """

    def __init__(
        self, config: ProxyConfig, model: FoundationModel, source: DomainView, inputs: list[Any]
    ) -> None:
        self.config, self.model, self.source = config, model, source
        self.begin = _random_state()
        blocks = [asdict(block) for block in model.blocks()]
        # What the untrained structure drew counts too: the first stage draws after it.
        drawn = [state.tolist() for state in self.begin]
        key: Any = [*inputs, blocks, drawn, code_digest(Path(__file__))]
        self.paths = []
        for name, names in zip(STAGES, (LORA, KNOWLEDGE_BASE, INDEX), strict=True):
            key = digest([key, name, config.only(names)])
            self.paths.append(cache_folder() / "edgeta" / f"{name}-{key[:20]}.pt")
        self.before = [0, config.lora_steps, config.lora_steps + config.kb_steps]
        self.steps = self.before[2] + config.index_steps

    def lora(self) -> Weights:
        return cached(self.paths[0], self._train_lora)

    def kb(self) -> Weights:
        return cached(self.paths[1], self._train_kb)

    def index(self) -> Weights:
        """All that the device gets, with the curves of the stages."""
        return cached(self.paths[2], self._train_index)

    def _train_lora(self) -> Weights:
        with self.source.preserve_rng():
            train, validation = self._split()
            _set_random_state(self.begin)
            fm = self.model.clone()
            with part(self.before[0], self.steps):
                curves = adapt_lora(self.config, fm, train, validation)
            return self._kept("lora", fm, curves, train)

    def _train_kb(self) -> Weights:
        first = self.lora()
        with self.source.preserve_rng():
            train, validation = self._split()
            fm, fused = self._adapted(first)
            _require_equal(fm, fused, validation)
            _resume(first, train)
            kb = fused.clone()
            _cut(self.config, kb)
            with part(self.before[1], self.steps):
                curves = train_kb(self.config, kb, fused, train, validation)
            return self._kept("knowledge-base", kb, curves, train, first)

    def _train_index(self) -> Weights:
        config = self.config
        with self.source.preserve_rng():
            train, validation = self._split()
            sample = first_batch(train)  # refused before what takes long
            require_prunable(self.model, sample, _chooser(config), config.ratio)
            require_gateable(self.model, sample)
        first, second = self.lora(), self.kb()
        with self.source.preserve_rng():
            fm, fused = self._adapted(first)
            kb = fused.clone()
            _cut(config, kb)
            kb.module.load_state_dict(second["weights"])
            _resume(second, train)
            insert_gates(kb, config.gate_reduction)
            fm = fused if config.lora_in_feedback else fm
            products = {} if config.lora_in_feedback else lora_products(fm)
            made = Offline(fm, products, kb, _index(config, kb, fm, products), {})
            with part(self.before[2], self.steps):
                accuracy, curves = train_index(
                    config, kb, made.index, made.fm_weights(), train, validation
                )
        modules = {"fm": fm.module, "kb": kb.module, "index": made.index}
        weights = {name: module.state_dict() for name, module in modules.items()}
        named = {f"index/{name}": points for name, points in curves.items()}
        more = {"products": products, "accuracy": accuracy}
        return {**weights, **more, "curves": {**second["curves"], **named}}

    def _split(self) -> tuple[DomainView, DomainView]:
        """What the stages train on, and what they hold out."""
        train, held = split(self.source)
        if not len(train):
            raise BenchError(
                f"EdgeTA: {len(self.source)} source samples leave none to train on; give 2 or more"
            )
        return _part(self.source, train), _part(self.source, held)

    def _adapted(self, first: Weights) -> tuple[FoundationModel, FoundationModel]:
        """The model with the adapters of the first stage, and with them fused."""
        fm = self.model.clone()
        insert_lora(fm, self.config.lora_rank, self.config.lora_rank)
        fm.module.load_state_dict(first["weights"])
        fm.train(False)
        fused = copy.deepcopy(fm)
        fuse_lora(fused)
        return fm, fused

    @staticmethod
    def _kept(
        stage: str,
        model: FoundationModel,
        curves: Curves,
        train: DomainView,
        before: Weights | None = None,
    ) -> Weights:
        named = {f"{stage}/{name}": points for name, points in curves.items()}
        return {
            "weights": model.module.state_dict(),
            "random": _random_state(),
            "order": train.rng_state,
            "curves": {**(before or {"curves": {}})["curves"], **named},
        }


def _random_state() -> list[Tensor]:
    """The states of torch's generators: of the CPU, and of the GPU where one computes."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *gpu]


def _set_random_state(states: Iterable[Tensor]) -> None:
    cpu, *gpu = states
    torch.set_rng_state(cpu)
    for state in gpu:
        torch.cuda.set_rng_state(state)


def _resume(stage: Weights, train: DomainView) -> None:
    """Draw on from where an earlier stage ended."""
    _set_random_state(stage["random"])
    train.rng_state = stage["order"]


def split(source: DomainView) -> tuple[Tensor, Tensor]:
    """Ids of the source samples that the stages train on, and of those that they hold out."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(source.draw))
    held = max(round(HELD_OUT * len(source)), 1)
    return order[held:], order[:held]


def _part(source: DomainView, chosen: Tensor) -> DomainView:
    """The chosen samples, in the single precision in which the stages train."""
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


@torch.no_grad()
def _require_equal(fm: FoundationModel, fused: FoundationModel, data: DomainView) -> None:
    batch = next(data.batches(shuffle=False))
    away = float((fm(batch.x) - fused(batch.x)).abs().max())
    if not away < 1e-3:
        raise WrongBlocks(
            f"EdgeTA: fusing LoRA changes outputs by {away:.2g}; check the model's blocks()"
        )
