"""EdgeTA on the foundation models for texts, small: classes, tags and generated answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench import registry
from bench.contracts.data import DomainView, take
from bench.contracts.model import FoundationModel
from bench.errors import BenchError
from bench.methods.edgeta.offline import weights_of
from bench.models.surgery.gates import set_sparsity

SIZES = {
    "hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32, "vocabulary": 20,
    "positions": 12,
}  # fmt: skip
CLASSIFIERS = ("bert-base", "bert-base-tokens", "roberta-base", "roberta-base-tokens")
GENERATORS = ("gpt-neo", "opt", "t5")
LENGTH, CLASSES = 9, 4


def build(name: str) -> FoundationModel:
    found: Any = registry.load("model", name)
    generates = name in GENERATORS
    config = found.Config(**(found.conformance_config if generates else SIZES))
    torch.manual_seed(0)
    model: FoundationModel = found.build(config, (LENGTH,), 20 if generates else CLASSES)
    model.train(False)
    return model


def domain(model: FoundationModel, n: int, seed: int, labelled: bool) -> DomainView:
    """Texts of 6 to 9 tokens; answers are the tokens from the fourth on."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 20, (n, LENGTH), generator=draw)
    places = torch.arange(LENGTH)
    mask = (places < torch.randint(6, LENGTH + 1, (n, 1), generator=draw)).long()
    x: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask}
    if model.task == "generation":
        x["prompt_mask"] = (places < 3).long().expand(n, -1).clone()
        told = ids.roll(-1, dims=1)
        answer = (places >= 2) & (places < mask.sum(dim=1, keepdim=True) - 1)
        y = told.where(answer, torch.tensor(-100))
    elif model.task == "token-classification":
        y = torch.randint(CLASSES, (n, LENGTH), generator=draw)
        y = y.where(mask.bool(), torch.tensor(-100))
    else:
        y = torch.randint(CLASSES, (n,), generator=draw)
    return DomainView("d", x, y if labelled else None, 8, draw)


@pytest.mark.parametrize("name", [*CLASSIFIERS, *GENERATORS])
def test_a_proxy_is_made_retrained_and_gives_back(name, settings, adapt) -> None:
    generates = name in GENERATORS
    model = build(name)
    kind: Any = registry.load("method", "edgeta-supervised" if generates else "edgeta")
    more = {"train_head": False, "widen_head": False} if generates else {}
    config = kind.Config(**{**settings, **more}, importance="first", sparsity=0.7)
    method = kind(config)
    method.prepare(model, domain(model, 40, 1, labelled=True))
    target = domain(model, 20, 2, labelled=generates)
    before = {n: p.clone() for n, p in weights_of(method.fm).items()}
    adapt(method, target)
    after = weights_of(method.fm)
    for block in method.fm.blocks():
        for layer in (*block.qkv, block.ff_in, block.ff_out):
            assert not torch.equal(after[f"{layer}.weight"], before[f"{layer}.weight"]), layer
    with torch.no_grad():
        assert method.predict(target.x).isfinite().all()
        sample = take(target.x, torch.tensor([0]))
        proxy, _ = method.generate(sample)
        set_sparsity(method.kb, 0.7)
        torch.testing.assert_close(proxy(sample), method.kb(sample), rtol=0, atol=1e-4)
        set_sparsity(method.kb, 0.0)
        assert float((method.kb(sample) - proxy(sample)).abs().max()) > 1e-5


@pytest.mark.parametrize("name", GENERATORS)
def test_a_head_that_is_tied_to_the_embedding_is_not_trained_alone(name, settings) -> None:
    model = build(name)
    kind: Any = registry.load("method", "edgeta-supervised")
    with pytest.raises(BenchError, match=r"lm_head.* is tied to .*; untie them or use a method"):
        kind(kind.Config(**settings)).prepare(model, domain(model, 40, 1, labelled=True))
