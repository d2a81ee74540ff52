"""Foundation models for texts: their sizes, their blocks, and what surgery does to each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from bench import registry
from bench.conformance import check_component
from bench.contracts.data import Inputs, take
from bench.contracts.model import FoundationModel
from bench.errors import BenchError, Unsupported
from bench.models.surgery.gates import importance, insert_gates, require_gateable, set_sparsity
from bench.models.surgery.lora import fuse_lora, insert_lora
from bench.models.surgery.masking import require_prunable
from bench.models.surgery.proxy import make_proxy, most_important
from bench.models.surgery.pruning import cut, strongest, strongest_heads

BERT = {
    "hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": 64, "vocabulary": 20,
    "positions": 12,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "bert-base-tokens": BERT,
    "roberta-base": BERT,
    "roberta-base-tokens": BERT,
    "gpt-neo": {},
    "opt": {},
    "t5": {},
}
"""Tiny settings of each model that declares blocks; {}: those of its checks."""
CLASSES, N, LENGTH = 20, 6, 9


def build(name: str, classes: int = CLASSES, **settings: Any) -> Any:
    found: Any = registry.load("model", name)
    config = found.Config(**(settings or SMALL.get(name) or found.conformance_config))
    model = found.build(config, (LENGTH,), classes)
    model.train(False)
    return model


def texts() -> dict[str, Tensor]:
    """Texts of 3 to 9 tokens, of which the first 1 to 5 are a question."""
    places = torch.arange(LENGTH)
    ends, asked = torch.tensor([9, 9, 7, 5, 9, 3]), torch.tensor([3, 1, 5, 2, 4, 2])
    return {
        "input_ids": torch.randint(2, CLASSES, (N, LENGTH)),
        "attention_mask": (places < ends.unsqueeze(1)).long(),
        "prompt_mask": (places < asked.unsqueeze(1)).long(),
    }


@pytest.fixture(params=SMALL)
def made(request: Any) -> tuple[FoundationModel, Inputs]:
    """A model in evaluation mode, all its weights and biases of notable size, and 6 texts."""
    torch.manual_seed(0)
    model = build(request.param)
    with torch.no_grad():
        for layer in model.module.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(std=layer.in_features**-0.5)
                if layer.bias is not None:
                    layer.bias.normal_(std=0.3)
    return model, texts()


@torch.no_grad()
def test_lora_inserted_and_fused_changes_no_output(made) -> None:
    model, x = made
    before = model(x)
    adapters = insert_lora(model, rank=4, alpha=8)
    assert len(adapters) == 6 * len(model.blocks())
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    for p in adapters:
        p.normal_(std=0.05)
    trained = model(x)
    fuse_lora(model)
    torch.testing.assert_close(model(x), trained, rtol=0, atol=1e-5)
    assert float((trained - before).abs().max()) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("choose", [strongest, strongest_heads])
def test_sliced_is_masked_and_nothing_left_out_changes_nothing(made, choose) -> None:
    model, x = made
    before = model(x)
    same = model.clone()
    cut(same, choose(same, 1))
    assert torch.equal(same(x), before)
    if choose is strongest_heads and "T5" in type(model.module).__name__:
        with pytest.raises(Unsupported, match="relative positions has a bias for each of its 4"):
            require_prunable(model, x, choose, 2)
        return
    require_prunable(model, x, choose, 2)  # raises unless they are equal
    cut(model, choose(model, 2))
    assert float((model(x) - before).abs().max()) > 1e-2


@torch.no_grad()
def test_a_proxy_is_the_masked_model_on_its_sample(made) -> None:
    model, x = made
    require_gateable(model, x)
    insert_gates(model, 4)
    sample = take(x, torch.tensor([2]))
    outputs = []
    for sparsity in (0.0, 0.3, 0.8):
        set_sparsity(model, sparsity)
        found = {name: g[0] for name, g in importance(model, sample).items()}
        assert set(found) == {block.ff_in for block in model.blocks()}
        proxy, _ = make_proxy(model, found, most_important(found, sparsity))
        outputs.append(model(sample))
        torch.testing.assert_close(proxy(sample), outputs[-1], rtol=0, atol=1e-4)
    assert float((outputs[0] - outputs[-1]).abs().max()) > 1e-2


@torch.no_grad()
def test_importance_is_of_a_samples_own_tokens(made) -> None:
    """Not of its padding, nor of the texts beside it, also where a network joins all tokens."""
    model, x = made
    insert_gates(model, 4)
    together = importance(model, x)
    other = {**x, "input_ids": x["input_ids"].clone()}
    other["input_ids"][x["attention_mask"] == 0] = 3
    for name, g in importance(model, other).items():
        torch.testing.assert_close(g, together[name])
    for i in (0, 3):
        for name, g in importance(model, take(x, torch.tensor([i]))).items():
            assert g.shape == (1, together[name].shape[1])
            torch.testing.assert_close(g[0], together[name][i])


QUICK = ("bert-base-tokens", "t5", "bloom")
"""Of an encoder, of both, and of a decoder; the others are slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in (*SMALL, "bloom")
    ],
)
def test_the_conformance_suite(name: str) -> None:
    results = list(check_component("model", name))
    assert len(results) == 16
    assert not [result.line for result in results if not result.passed]


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "blocks"),
    [
        ("bert-base-tokens", 2, 108_893_186, 12),
        ("roberta-base", 2, 124_647_170, 12),
        ("roberta-base-tokens", 2, 124_056_578, 12),
        ("gpt-neo", 50257, 125_198_592, 12),
        ("opt", 50272, 125_239_296, 12),
        ("bloom", 250880, 559_214_592, 0),
        ("t5", 32128, 222_903_552, 24),
    ],
)
def test_the_sizes_are_the_published_ones(name, classes, parameters, blocks) -> None:
    found: Any = registry.load("model", name)
    with torch.device("meta"):
        model = found.build(found.Config(), (128,), classes)
    assert sum(p.numel() for p in model.module.parameters()) == parameters
    assert len(model.blocks()) == blocks


@torch.no_grad()
def test_an_encoder_decoder_sees_the_question_and_the_answer_so_far() -> None:
    torch.manual_seed(0)
    model, x = build("t5"), texts()
    found, features = model.with_features(x)
    torch.testing.assert_close(model.head(features), found)
    for i in range(N):
        asked, end = int(x["prompt_mask"][i].sum()), int(x["attention_mask"][i].sum())
        ids = x["input_ids"][i]
        told = torch.cat([torch.tensor([0]), ids[asked:end]])
        wanted = model.module(input_ids=ids[None, :asked], decoder_input_ids=told[None]).logits
        torch.testing.assert_close(found[i, asked - 1 : end], wanted[0], rtol=0, atol=1e-5)
        assert not found[i, : asked - 1].any()
    alone = {k: v for k, v in x.items() if k != "prompt_mask"}
    first = (torch.arange(LENGTH) == 0).long().expand(N, -1)
    assert torch.equal(model(alone), model({**x, "prompt_mask": first}))


@pytest.mark.parametrize("name", ["gpt-neo", "opt", "bloom", "t5"])
def test_answers_that_were_learned_are_generated(name: str) -> None:
    """Of four questions with answers of 1 to 4 tokens; there is no padding token."""
    torch.manual_seed(0)
    model = build(name)
    asked, told = torch.tensor([[4], [2], [3], [2]]), torch.tensor([[4], [2], [1], [3]])
    places, ids = torch.arange(LENGTH), torch.randint(5, CLASSES, (4, LENGTH))
    ids[torch.arange(4), (asked + told)[:, 0]] = 3  # the end
    inside = places <= asked + told
    ids = ids * inside
    x = {
        "input_ids": ids, "attention_mask": inside.long(),
        "prompt_mask": (places < asked).long(),
    }  # fmt: skip
    answer = (places >= asked - 1) & (places < asked + told)
    y = ids.roll(-1, dims=1).where(answer, torch.tensor(-100))
    optimizer = torch.optim.Adam(model.module.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        generated = model.rules.generate(model, x, y, torch.arange(4))
    assert torch.equal(generated, y)


@torch.no_grad()
def test_an_encoder_decoder_with_positions_of_its_own(tmp_path: Path) -> None:
    """BART counts the decoder's positions from the answer's beginning."""
    transformers.BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_position_embeddings=LENGTH, vocab_size=CLASSES,
    ).save_pretrained(tmp_path)  # fmt: skip
    torch.manual_seed(0)
    model, x = build("hf-seq2seq", folder=str(tmp_path)), texts()
    assert model.blocks() == []
    found = model(x)
    ids, first = x["input_ids"][0], model.module.config.decoder_start_token_id
    told = torch.cat([torch.tensor([first]), ids[3:9]])
    wanted = model.module(input_ids=ids[None, :3], decoder_input_ids=told[None]).logits[0]
    torch.testing.assert_close(found[0, 2:9], wanted, rtol=0, atol=1e-5)
    kind: Any = registry.load("model", "hf-seq2seq")
    with pytest.raises(BenchError, match="longer than the model's 9 positions"):
        kind.build(kind.Config(folder=str(tmp_path)), (LENGTH + 1,), CLASSES)


def test_gated_feed_forward_layers_and_blooms_order_declare_no_blocks(tmp_path: Path) -> None:
    changes = registry.load("model", "t5").conformance_config["changes"]
    assert build("t5", changes={**changes, "feed_forward_proj": "gated-gelu"}).blocks() == []
    assert build("bloom").blocks() == []


@torch.no_grad()
def test_rows_of_a_table_that_no_token_has_are_cut_off(tmp_path: Path) -> None:
    """As T5's 28: the tokenizer has 32,100 tokens, and the table 32,128 rows."""
    torch.manual_seed(0)
    build("opt").module.save_pretrained(tmp_path)
    x = texts()
    found = build("opt", CLASSES - 2, folder=str(tmp_path))
    x["input_ids"] = x["input_ids"].clamp_max(CLASSES - 3)
    assert torch.equal(found(x), build("opt", folder=str(tmp_path))(x)[..., :-2])
    for tokens in (CLASSES + 1, CLASSES - 300):
        with pytest.raises(BenchError, match=f"has 20 tokens, and the data {tokens}: give"):
            build("opt", tokens, folder=str(tmp_path))


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    build("opt").module.save_pretrained(tmp_path)
    with pytest.raises(
        BenchError, match=r"gpt-neo: .* has a OPTConfig, not a GPTNeoConfig"
    ) as told:
        build("gpt-neo", folder=str(tmp_path))
    assert "\n" not in str(told.value)


@torch.no_grad()
def test_robertas_positions_begin_behind_its_padding() -> None:
    torch.manual_seed(0)
    model = build("roberta-base")
    assert model.module.roberta.embeddings.position_embeddings.num_embeddings == 14
    assert model.head_name == "classifier.out_proj"
    x = {"input_ids": torch.full((2, 12), 5), "attention_mask": torch.ones(2, 12).long()}
    assert model(x).isfinite().all()
    kind: Any = registry.load("model", "roberta-base")
    with pytest.raises(
        BenchError, match=r"roberta-base: input shape \(13,\) is not \(length,\) with"
    ):
        kind.build(kind.Config(**BERT), (13,), 2)
