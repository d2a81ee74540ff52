"""GreenTrainer on tiny decoders and an encoder-decoder: steps keep the budget as executed."""

from __future__ import annotations

import pytest
import torch
from small_decoders import decoder, texts

from bench.costs.step_tracer import StepTracer
from bench.methods.elastic.twins import GreenTrainer, GreenTrainerConfig

FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
"""What tells FLAN-T5 from T5."""


def executed(model, x, trained) -> float:
    """Operations of a forward and a backward pass that trains the parameters of these names."""
    for name, p in model.module.named_parameters():
        p.requires_grad_(name in trained)
    with StepTracer() as tracer:
        outputs = model(x)
        outputs.backward(torch.ones_like(outputs))
    return sum(flops for _, (flops, _, _) in tracer.log)


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("opt", {}), ("bloom", {}), ("gpt-neo", {}), ("t5", {}), ("t5", FLAN)],
)
def test_what_is_selected_costs_no_more_than_asked(view, adapt, name, changes, ratio):
    model = decoder(name, **changes)
    method = GreenTrainer(GreenTrainerConfig(cost_ratio=ratio, epochs=1, learning_rate=0.01))
    method.prepare(model, view(*texts(4, seed=9)))
    x, y = texts(12)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    adapt(method, view(x, y, batch_size=6))
    chosen = set(method.elastic["selected"])
    assert chosen
    moved = {n for n, p in model.module.named_parameters() if not torch.equal(p, before[n])}
    assert chosen <= moved
    whole = executed(model, x, set(before))
    assert executed(model, x, chosen) / whole <= ratio * 1.01


def test_a_tied_embedding_is_not_selected_within_half_a_step(view, adapt):
    """Since the pass would go down to the words; its importance is the greatest of all."""
    model = decoder()
    method = GreenTrainer(
        GreenTrainerConfig(cost_ratio=0.6, epochs=1, probe="whole", select_by="weight")
    )
    method.prepare(model, view(*texts(4, seed=9)))
    adapt(method, view(*texts(6)))
    assert "model.decoder.embed_tokens.weight" not in method.elastic["selected"]
    assert method.elastic["selected"]
