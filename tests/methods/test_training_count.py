"""The paper's count of training: its closed form, published totals, and what a run records."""

from __future__ import annotations

import pytest
from small_decoders import LENGTH, SIZES, WORDS, decoder, texts

from bench.costs.device_profile import load_device
from bench.methods._supervised import SupervisedConfig
from bench.methods._training_count import TrainingCount
from bench.methods.bias_only import BiasOnly
from bench.methods.elastic.paper_flops import (
    OPT_2_7B,
    PETA,
    Decoder,
    achieved,
    counted,
    fine_tuning,
    forward,
    rivals,
    way,
)
from bench.methods.elastic.twins import GreenTrainer, GreenTrainerConfig
from bench.methods.fine_tune import FineTune, FineTuneConfig
from bench.methods.lora import Lora, LoraConfig
from bench.methods.prefix_tuning import PrefixConfig, PrefixTuning

SMALL = Decoder(
    SIZES["opt"]["num_hidden_layers"], SIZES["opt"]["hidden_size"], SIZES["opt"]["ffn_dim"], WORDS
)


def test_all_tensors_are_the_closed_form():
    model = decoder()
    count = TrainingCount.of(model, texts(1)[0])
    names = [n for n, _ in model.module.named_parameters()]
    assert count.operations(names, 1992, 20) == fine_tuning(SMALL, 1992, 1, 20)
    assert count.operations([], 7, 20) == forward(SMALL, 7, 20)


@pytest.fixture(scope="module")
def opt_2_7b():
    """On tensors without values."""
    return counted(OPT_2_7B)


def test_published_totals_of_opt_2_7b_on_scitldr(opt_2_7b):
    found = {what: (published, total) for what, published, total in rivals(*opt_2_7b)}
    known = {what: pair for what, pair in found.items() if pair[0] is not None}
    assert len(known) == 4
    for what, (published, total) in known.items():
        assert total == pytest.approx(published, rel=0.015), what
    published, total = found["all tensors"]
    assert total == pytest.approx(41.8, rel=0.01)
    # The closed form takes the embedding's V D once in all, the steps once a batch
    assert total == pytest.approx(fine_tuning(OPT_2_7B, 1992, 5) / PETA, rel=1e-4)
    # So the published FT-Top2 is not the last two blocks, whose total is
    assert found["last 2 blocks, last norm"][1] == pytest.approx(16.2, abs=0.1)


def test_a_finer_resolution_uses_more_of_the_budget_and_never_more_than_it(opt_2_7b):
    shares = [achieved(opt_2_7b[0], 0.5, n)[0] for n in (10, 100, 1000, 10_000)]
    assert shares == sorted(shares)
    assert max(shares) <= 0.5
    assert shares[-1] > 0.49


def test_the_way_ends_at_the_deepest_tensor_by_hand():
    """Of block 1's fc1 weight: logits, the last norm, and fc2, fc1 themselves."""
    count = TrainingCount.of(decoder(), texts(1)[0])
    d, f, v, n, t = 8, 12, WORDS, 3, LENGTH
    at = "model.decoder.layers.1."
    on_the_way = v * d + d + 2 * d * f
    expected = forward(SMALL, n, t) + n * t * (on_the_way + d * f)
    assert count.operations([f"{at}fc1.weight"], n, t) == expected
    # Its bias lies behind the weight, whose way is not gone
    expected = forward(SMALL, n, t) + n * t * (on_the_way - d * f + f)
    assert count.operations([f"{at}fc1.bias"], n, t) == expected
    # The value's bias needs the gradient of attention too
    more = on_the_way + d + d * d
    expected = forward(SMALL, n, t) + n * t * (more + d) + 4 * n * t * t * d
    assert count.operations([f"{at}self_attn.v_proj.bias"], n, t) == expected


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (FineTune, FineTuneConfig(epochs=2), lambda n: fine_tuning(SMALL, n, 1, LENGTH)),
        (PrefixTuning, PrefixConfig(epochs=2), None),
        (Lora, LoraConfig(epochs=2, rank=2), None),
        (BiasOnly, SupervisedConfig(epochs=2), None),
        (GreenTrainer, GreenTrainerConfig(epochs=2, cost_ratio=0.6), None),
    ],
)
def test_a_run_records_its_count(view, adapt, kind, config, expected):
    method = kind(config)
    method.prepare(decoder(max_position_embeddings=64), view(*texts(4, seed=9)))
    adapt(method, view(*texts(12), batch_size=6))
    found = method.further_costs(load_device("xavier-nx"))["training_count"]
    assert (found.unit, found.kind) == ("MAC", "modelled")
    whole = 4 * (fine_tuning(SMALL, 6, 1, LENGTH))
    adapter = 4 * (forward(SMALL, 6, LENGTH) + way(SMALL, 6, LENGTH))
    if kind is FineTune:
        assert found.value == whole
    elif kind in (PrefixTuning, Lora):
        assert found.value == adapter
    else:
        assert 4 * forward(SMALL, 6, LENGTH) < found.value < whole


@pytest.mark.parametrize(
    ("name", "why"), [("t5", "of decoders; this is an encoder"), ("bloom", "declares no blocks")]
)
def test_what_is_not_counted_says_why(view, name, why):
    method = FineTune(FineTuneConfig())
    method.prepare(decoder(name), view(*texts(4)))
    found = method.further_costs(load_device("xavier-nx"))["training_count"]
    assert found.kind == "unavailable"
    assert why in found.how


def test_other_tasks_have_no_such_count(model, view, data):
    method = FineTune(FineTuneConfig())
    method.prepare(model, view(*data(4)))
    assert method.further_costs(load_device("xavier-nx")) == {}
