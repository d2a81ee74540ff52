"""Prefix tuning: its update against OPT written out, what it begins with, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from small_decoders import LENGTH, decoder, opt_loss, texts, weights

from bench import BenchError, Unsupported
from bench.methods.prefix_tuning import PrefixConfig, PrefixTuning
from bench.testing import TinyModel


def prepared(model, view, **settings):
    torch.manual_seed(3)
    method = PrefixTuning(PrefixConfig(**{"prefix": 4, "epochs": 1} | settings))
    method.prepare(model, view(*texts(4, seed=9)))
    return method


def pairs(method):
    both = zip(method.prefix.keys, method.prefix.values, strict=True)
    return [(k.detach().clone(), v.detach().clone()) for k, v in both]


@pytest.mark.parametrize(("positions", "first"), [("moved", 4), ("kept", 0)])
@pytest.mark.parametrize("begin", ["normal", "words"])
def test_two_updates_follow_the_formulas_written_out(
    view, adapt, adam_by_hand, positions, first, begin
):
    model = decoder()
    before = weights(model)
    method = prepared(model, view, positions=positions, begin=begin, learning_rate=0.05, epochs=2)
    begun = pairs(method)
    x, y = texts(6)
    flat = [t for pair in begun for t in pair]
    gradients = [[] for _ in flat]
    now = flat
    for _ in range(2):
        leaves = [t.clone().requires_grad_() for t in now]
        joined = list(zip(leaves[::2], leaves[1::2], strict=True))
        loss = opt_loss(before, x["input_ids"], y, joined, first)
        for kept, g in zip(gradients, torch.autograd.grad(loss, leaves), strict=True):
            kept.append(g)
        now = [
            adam_by_hand(t, g, lr=0.05, weight_decay=0.01)
            for t, g in zip(flat, gradients, strict=True)
        ]
    adapt(method, view(x, y))
    found = [t for pair in pairs(method) for t in pair]
    for expected, value, start in zip(now, found, flat, strict=True):
        assert not torch.equal(value, start)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("positions", "first"), [("moved", 4), ("kept", 0)])
def test_predictions_are_made_with_the_prefix_and_the_model_without(view, positions, first):
    model = decoder()
    method = prepared(model, view, positions=positions)
    x, y = texts(5, seed=2)
    for given, outputs in (
        (pairs(method), method.predict(x)),
        ([], model(x)),  # nothing stays in the network
    ):
        expected = opt_loss(weights(model), x["input_ids"], y, given, first if given else 0)
        torch.testing.assert_close(model.loss(outputs, y), expected, rtol=1e-9, atol=1e-9)


def test_words_are_those_that_a_source_text_begins_with(view):
    """The prefix is what the network itself makes of them: as if they stood before the text."""
    model = decoder()
    method = prepared(model, view, begin="words", prefix=4)
    x, _ = texts(3, seed=5)
    words = texts(4, seed=9)[0]["input_ids"][:1, :4].expand(3, -1)
    whole = {
        "input_ids": torch.cat([words, x["input_ids"]], dim=1),
        "attention_mask": torch.ones(3, LENGTH + 4, dtype=torch.int64),
    }
    torch.testing.assert_close(method.predict(x), model(whole)[:, 4:], rtol=1e-9, atol=1e-9)


def test_padding_is_not_attended_to(view):
    model = decoder()
    method = prepared(model, view)
    x, _ = texts(2)
    shorter = {name: part[:, :5] for name, part in x.items()}
    x["attention_mask"][:, 5:] = 0
    torch.testing.assert_close(
        method.predict(x)[:, :5], method.predict(shorter), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", ["bloom", "gpt-neo"])
def test_other_decoders_learn_by_their_prefix_too(view, adapt, name):
    model = decoder(name)
    method = prepared(model, view, epochs=30, learning_rate=0.05)
    x, y = texts(6)
    before = float(model.loss(method.predict(x), y).detach())
    adapt(method, view(x, y))
    assert float(model.loss(method.predict(x), y).detach()) < before - 0.01


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("t5", {}, r"T5ForConditionalGeneration is no causal language model .*use lora"),
        ("bloom", {"positions": "kept"}, r"takes no position_ids.*set positions: moved"),
    ],
)
def test_what_it_does_not_apply_to_says_why(view, name, settings, said):
    with pytest.raises(Unsupported, match=said):
        prepared(decoder(name), view, **settings)


def test_other_networks_are_unsupported(model, view, data):
    assert isinstance(model, TinyModel)
    with pytest.raises(Unsupported, match="no causal language model"):
        PrefixTuning(PrefixConfig()).prepare(model, view(*data(4)))


def test_a_prefix_needs_positions_behind_it(view):
    with pytest.raises(BenchError, match=r"prefix: 30 places .* positions: kept"):
        prepared(decoder(), view, prefix=30)
    prepared(decoder(), view, prefix=30, positions="kept")


@pytest.mark.parametrize("name", ["opt", "gpt-neo", "bloom"])
def test_three_updates_are_those_of_peft(view, adapt, name):
    """Where that library is installed, which nothing else here needs."""
    peft = pytest.importorskip("peft")
    model = decoder(name)
    other = copy.deepcopy(model.module)
    method = prepared(model, view, epochs=3, learning_rate=0.05)
    settings = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    theirs = peft.get_peft_model(other, settings).double()
    table = theirs.prompt_encoder["default"].embedding.weight  # (places, layers * 2 * width)

    def flat():
        layers = torch.stack([t for pair in pairs(method) for t in pair])
        return layers.permute(2, 0, 1, 3).reshape(table.shape)

    with torch.no_grad():
        table.copy_(flat())
    x, y = texts(6)
    optimizer = torch.optim.AdamW([table], lr=0.05, weight_decay=0.01)
    theirs.train()
    for _ in range(3):
        logits = theirs(**x).logits
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits[y >= 0], y[y >= 0]).backward()
        optimizer.step()
    adapt(method, view(x, y))
    torch.testing.assert_close(flat(), table.detach(), rtol=1e-9, atol=1e-12)
