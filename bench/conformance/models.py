"""Checks of models: that they answer in the right shapes and are what they declare."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydantic
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bench import defaults, registry
from bench.conformance.base import CheckFailed, check_of
from bench.conformance.method_fixture import unlimited_window
from bench.conformance.model_fixture import SAMPLES, ModelFixture
from bench.contracts.data import DomainView, Inputs, take
from bench.contracts.model import FoundationModel, ModelConfig, weights_digest
from bench.contracts.structure import (
    WrongBlocks,
    distinct_blocks,
    geometry,
    plain_linear,
    require_called,
)
from bench.contracts.task import Task
from bench.errors import BenchError

check = check_of("model")

ROUNDING = 1e-5
"""Largest difference that rounding explains, as a share of the largest output, or of 1."""
BATCH = 8
"""Samples in the batch that is compared with batches of one."""


@check
def declared(subject: ModelFixture) -> str:
    """Says what it is in its docstring, and its settings and shapes are valid."""
    model = subject.model_class
    if not (model.__doc__ or "").strip():
        raise CheckFailed("the class has no docstring: say in its first line what the model is")
    if not (isinstance(model.Config, type) and issubclass(model.Config, ModelConfig)):
        raise CheckFailed(f"Config is {model.Config!r}: make it a subclass of bench.ModelConfig")
    for settings in ({}, model.conformance_config):
        try:
            model.Config.model_validate(model.Config.model_validate(settings).model_dump())
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CheckFailed(f"setting {where!r} is not valid: {first['msg']}") from None
    shape: Any = model.input_shape
    if shape is not None and not (
        isinstance(shape, tuple) and shape and all(isinstance(n, int) and n > 0 for n in shape)
    ):
        raise CheckFailed(
            f"input_shape is {shape!r}: give (channels, height, width), or (tokens,) for texts"
        )
    return f"{len(model.Config.model_fields)} settings; samples of shape {subject.input_shape}"


@check
def outputs(subject: ModelFixture) -> str:
    """Gives finite outputs, as its task has them, for as many classes as are asked for."""
    rules, fixed = subject.model.rules, subject.model_class.fixed_classes
    with torch.no_grad():
        _require_logits(subject.outputs, SAMPLES, subject.classes, rules)
        _require_logits(subject.model(subject.some(0)), 1, subject.classes, rules)
        counts = sorted({subject.classes, fixed or 2}, reverse=True)
        _require_logits(subject.build(counts[-1])(subject.x), SAMPLES, counts[-1], rules)
    return f"gave it {SAMPLES} samples and 1, for {' and for '.join(map(str, counts))} classes"


def _require_logits(found: Any, samples: int, classes: int, rules: Task) -> None:
    if not isinstance(found, Tensor):
        raise CheckFailed(
            f"outputs are a {type(found).__name__}: return logits, a tensor, from __call__"
        )
    try:
        rules.require_outputs(tuple(found.shape), samples, classes, "random inputs")
    except BenchError as error:
        raise CheckFailed(
            f"outputs are {tuple(found.shape)} for {samples} samples and {classes} classes, {error}"
        ) from error
    if not (found.is_floating_point() and found.isfinite().all()):
        raise CheckFailed(
            f"outputs ({found.dtype}) are not all finite numbers: return logits, and check the "
            "initial weights"
        )


@check
def loss(subject: ModelFixture) -> str:
    """Its loss is a finite number with finite gradients, with and without label smoothing."""
    for smoothing in (0.0, 0.1):
        model = subject.model.clone()
        model.train()
        found = model.loss(model(subject.x), subject.y, label_smoothing=smoothing)
        if not isinstance(found, Tensor) or found.shape != () or not found.isfinite():
            shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CheckFailed(f"loss is {found} ({shown}): return the mean, a finite scalar")
        if not found.requires_grad:
            raise CheckFailed("loss has no gradient: detach nothing in __call__ and loss")
        found.backward()
        gradients = {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}
        wrong = [name for name, g in gradients.items() if not g.isfinite().all()]
        if wrong or not gradients:
            raise CheckFailed(f"gradients of {', '.join(wrong[:3]) or 'all'} are not finite")
    return f"{len(gradients)} parameters have finite gradients"


@check
def same_seed(subject: ModelFixture) -> str:
    """Two builds from one seed have the same weights, bit for bit."""
    if weights_digest(subject.build().module) != weights_digest(subject.model.module):
        raise CheckFailed(
            "two builds from one seed differ: draw weights from torch's global generator alone"
        )
    return "built it twice"


@check
def weights(subject: ModelFixture) -> str:
    """Its state dict holds all that it learns: loaded into another it gives the same outputs."""
    stream = io.BytesIO()
    torch.save(subject.model.module.state_dict(), stream)
    stream.seek(0)
    other = subject.build(seed=1)
    other.module.load_state_dict(torch.load(stream, weights_only=True))
    with torch.no_grad():
        if not torch.equal(other(subject.x), subject.outputs):
            raise CheckFailed(
                "a fresh model with the state dict of another gives other outputs: hold weights "
                "in parameters and buffers of the module"
            )
    return f"saved and loaded {stream.getbuffer().nbytes / 1e6:.1f} MB"


@check
def evaluation(subject: ModelFixture) -> str:
    """In evaluation mode outputs depend on the inputs alone, and nothing changes or is drawn."""
    model, random = subject.model, torch.get_rng_state()
    before = weights_digest(model.module)
    with torch.no_grad():
        again = model(subject.x)
    if not torch.equal(random, torch.get_rng_state()):
        raise CheckFailed("draws random numbers in evaluation mode: let train(False) reach all")
    if not torch.equal(again, subject.outputs):
        raise CheckFailed("gives other outputs for the same inputs: it has hidden state")
    if weights_digest(model.module) != before:
        raise CheckFailed("a forward pass changes buffers: let train(False) reach all layers")
    return f"predicted {SAMPLES} samples twice"


@check
def batch_size(subject: ModelFixture) -> str:
    """In evaluation mode outputs of a sample do not depend on the batch that it is in."""
    model, x = subject.model, subject.inputs(BATCH)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(take(x, torch.tensor([i]))) for i in range(BATCH)])
    away = float((together - alone).abs().max())
    if not away <= ROUNDING * max(float(together.abs().max()), 1.0):
        raise CheckFailed(
            f"outputs of a sample differ by {away:.2g} with the batch that it is in: use no "
            "statistics of the batch in evaluation mode"
        )
    return f"compared a batch of {BATCH} with batches of 1"


@check
def images(subject: ModelFixture) -> str:
    """It takes float images of values in [0, 1], sees what is between, and leaves them as is."""
    if len(subject.input_shape) == 1:
        return "nothing: its inputs are texts"
    model, grey = subject.model, subject.inputs(SAMPLES)
    given = tree_map(torch.clone, grey)
    with torch.no_grad():
        black, white = model(_painted(grey, 0.0)), model(_painted(grey, 1.0))
        between = model(given)
    if not all(map(torch.equal, tree_leaves(given), tree_leaves(grey))):
        raise CheckFailed("a call changes its inputs in place: normalize a copy of them")
    for name, found in (("black", black), ("white", white)):
        if not found.isfinite().all():
            raise CheckFailed(f"outputs of {name} images are not finite: check the preprocessing")
    if torch.equal(between, black) or torch.equal(between, white):
        raise CheckFailed(
            "images of values between 0 and 1 give the outputs of black or white ones: take floats "
            "in [0, 1], and let the model do its own preprocessing"
        )
    return f"gave it {SAMPLES} images of noise, black ones and white ones"


def _painted(x: Inputs, value: float) -> Inputs:
    """The same inputs with images of one value; ids, masks and boxes stay."""
    return tree_map(
        lambda t: torch.full_like(t, value) if t.is_floating_point() and t.ndim > 2 else t, x
    )


@check
def augment(subject: ModelFixture) -> str:
    """Augmented training inputs have the shapes and types of the inputs."""
    found = subject.model.augment(subject.x)
    wanted, given = _described(subject.x), _described(found)
    if wanted != given:
        raise CheckFailed(f"augment gave {given} for {wanted}: keep shapes and types")
    return f"augmented {SAMPLES} samples"


def _described(x: Inputs) -> Any:
    return tree_map(lambda t: (tuple(t.shape), t.dtype) if isinstance(t, Tensor) else t, x)


@check
def head(subject: ModelFixture) -> str:
    """Its head is a layer of the network, given one row of finite features for each unit."""
    model = subject.model
    found = model.head
    with torch.no_grad():
        logits, features = model.with_features(subject.x)
    if not torch.equal(logits, subject.outputs):
        raise CheckFailed("with_features gives other outputs than a call: make one forward pass")
    rows = model.unit_features(features, subject.x)
    units = len(model.units(logits, subject.x))
    if rows.ndim != 2 or len(rows) != units or not rows.isfinite().all():
        raise CheckFailed(
            f"features have shape {tuple(features.shape)} for {SAMPLES} samples of {units} units "
            "or are not finite: name in head_name the layer that gets (n, width)"
        )
    held = len(model.head_parameters())
    return f"{type(found).__name__} with {held} parameters, features of width {rows.shape[1]}"


@check
def blocks(subject: ModelFixture) -> str:
    """The blocks that it declares are linear layers of the network that fit each other."""
    model = subject.model
    if isinstance(declared := model.blocks(), list) and not declared:
        return "it declares none: LoRA, pruning and proxies do not apply to it"
    found = distinct_blocks(model, "blocks")

    def linear(name: str) -> nn.Linear:
        return plain_linear(model.module.get_submodule(name), name)

    sizes = {geometry(block, linear, "blocks") for block in found}
    require_called(model, subject.x, "blocks")
    shown = sorted(f"{s.heads} heads of {s.head_width}, {s.neurons} neurons" for s in sizes)
    shared = f" that share {len(found)}" if len(found) < len(declared) else ""
    return f"{len(declared)} blocks{shared}: {'; '.join(shown)}"


@check
def clone(subject: ModelFixture) -> str:
    """A clone has equal weights and none in common with the model."""
    model = subject.model
    before, twin = weights_digest(model.module), model.clone()
    if weights_digest(twin.module) != before:
        raise CheckFailed("a clone has other weights: copy all of the module, as the default does")
    with torch.no_grad():
        for tensor in (*twin.module.parameters(), *twin.module.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1.0)
        if weights_digest(model.module) != before or not torch.equal(
            model(subject.x), subject.outputs
        ):
            raise CheckFailed(
                "changing a clone changes the model: copy the module, as the default does"
            )
    return "changed every weight of a clone"


# --- surgery, by the components of `defaults.SURGERY` ----------------------------------------


@check
def pruning(subject: ModelFixture) -> str:
    """Narrower blocks compute as if the rest were zero, or it says why they cannot be narrower."""
    return _after_surgery(subject, "pruning")


@check
def lora(subject: ModelFixture) -> str:
    """Low-rank adapters can be trained in its attention, or it says why not."""
    return _after_surgery(subject, "lora")


@check
def proxy(subject: ModelFixture) -> str:
    """Its neurons can be gated and left out, or it says why not."""
    return _after_surgery(subject, "proxy")


@check
def low_rank(subject: ModelFixture) -> str:
    """Its attention can be cut to fewer heads and factorised, or it says why not."""
    return _after_surgery(subject, "low-rank")


def _after_surgery(subject: ModelFixture, what: str) -> str:
    kind, name, settings = defaults.SURGERY[what]
    component: Any = registry.load(kind, name)
    made = component(component.Config.model_validate(settings))
    torch.manual_seed(0)
    try:
        with _own_cache():
            predict = _operated(made, kind, subject.shortened(), subject.source())
    except WrongBlocks:
        raise
    except BenchError as reason:
        return f"does not apply ({reason})"
    with torch.no_grad():
        _require_logits(predict(subject.x), SAMPLES, subject.classes, subject.model.rules)
    return f"by the {kind} {name}"


def _operated(made: Any, kind: str, model: FoundationModel, source: DomainView) -> Any:
    """What predicts after the variant or method ``made`` has done its work."""
    if kind == "variant":
        return made.make(model, source)
    made.prepare(model, source)
    with unlimited_window(made) as window:
        made.adapt(source, window)
    return made.predict


@contextmanager
def _own_cache() -> Iterator[None]:
    """An empty cache of weights: what a check makes is of no use to others."""
    earlier = os.environ.get("BENCH_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["BENCH_CACHE"]
            if earlier is not None:
                os.environ["BENCH_CACHE"] = earlier
