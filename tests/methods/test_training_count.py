"""The paper's count of training: its closed form, published totals, and what a run records."""

from __future__ import annotations

import pytest
import torch
from small_decoders import LENGTH, SIZES, WORDS, decoder, texts

from bench.costs.device_profile import load_device
from bench.methods._supervised import SupervisedConfig
from bench.methods._training_count import TrainingCount
from bench.methods.bias_only import BiasOnly
from bench.methods.elastic.paper_flops import OPT_2_7B, Decoder, fine_tuning, forward, way
from bench.methods.elastic.twins import GreenTrainer, GreenTrainerConfig
from bench.methods.fine_tune import FineTune, FineTuneConfig
from bench.methods.lora import Lora, LoraConfig
from bench.methods.prefix_tuning import PrefixConfig, PrefixTuning

SMALL = Decoder(
    SIZES["opt"]["num_hidden_layers"], SIZES["opt"]["hidden_size"], SIZES["opt"]["ffn_dim"], WORDS
)
STEPS = 1992 // 4
PETA = 1e15


@pytest.fixture(scope="module")
def opt_2_7b() -> TrainingCount:
    """On tensors without values."""
    from transformers import OPTConfig, OPTForCausalLM

    from bench.models.hf_language import LanguageModel

    sizes = OPTConfig(
        hidden_size=2560, num_hidden_layers=32, ffn_dim=10240, num_attention_heads=32,
        vocab_size=50272, word_embed_proj_dim=2560, attn_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        model = LanguageModel(OPTForCausalLM(sizes))
        model.tokens = 50272
        ids = torch.zeros(1, 4, dtype=torch.int64)
        count = TrainingCount.of(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    count.names = [n for n, _ in model.module.named_parameters()]  # type: ignore[attr-defined]
    return count


def of_scitldr(count: TrainingCount, trained: list[str]) -> float:
    return 5 * STEPS * count.operations(trained, 4, 512) / PETA


def test_all_tensors_are_the_closed_form():
    model = decoder()
    count = TrainingCount.of(model, texts(1)[0])
    names = [n for n, _ in model.module.named_parameters()]
    assert count.operations(names, 1992, 20) == fine_tuning(SMALL, 1992, 1, 20)
    assert count.operations([], 7, 20) == forward(SMALL, 7, 20)


def test_published_totals_of_opt_2_7b_on_scitldr(opt_2_7b):
    names = opt_2_7b.names
    last = "model.decoder.final_layer_norm"
    top2 = ["model.decoder.embed_tokens.weight", f"{last}.weight", f"{last}.bias"]
    assert of_scitldr(opt_2_7b, names) == pytest.approx(41.8, rel=0.01)
    assert of_scitldr(opt_2_7b, top2) == pytest.approx(29.0, rel=0.01)
    assert of_scitldr(opt_2_7b, ["an adapter"]) == pytest.approx(27.9, rel=0.015)
    assert 5 * fine_tuning(OPT_2_7B, 1992, 1) / PETA == pytest.approx(41.76, abs=0.01)
    # So FT-Top2 cannot be the last two blocks
    blocks = [n for n in names if "layers.30." in n or "layers.31." in n or n.startswith(last)]
    assert of_scitldr(opt_2_7b, blocks) == pytest.approx(16.2, abs=0.1)


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
