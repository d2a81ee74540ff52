"""The adapter of transformers: encoders from a folder, their blocks, heads and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import transformers

from bench import registry
from bench.conformance import check_component
from bench.contracts.settings import file_digests
from bench.errors import BenchError
from bench.models.hf_text import TextEncoder
from bench.models.hugging_face import HuggingFaceConfig
from bench.study.plan import make_cells
from bench.study.suite import load_suite

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "intermediate_size": 64}  # fmt: skip
TEXT: dict[str, Any] = {"vocab_size": 50, "max_position_embeddings": 20}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(**SIZES, **TEXT),
    "roberta": transformers.RobertaConfig(**SIZES, **TEXT, pad_token_id=1),
    "electra": transformers.ElectraConfig(**SIZES, **TEXT, embedding_size=32),
    "distilbert": transformers.DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, **TEXT
    ),
    "albert": transformers.AlbertConfig(**SIZES, **TEXT, embedding_size=16),
}
SUITE = """\
name: mine
description: a suite for tests
stream: digits-shift
model: {model}
methods: [source-only]
seeds: 1
devices: xavier-nx
"""


def folder(kind: str, at: Path) -> Path:
    CONFIGS[kind].save_pretrained(at / kind)
    return at / kind


def build(at: Path | str, classes: int = 3, name: str = "hf", **more: Any) -> TextEncoder:
    torch.manual_seed(0)
    config = HuggingFaceConfig(folder=str(at), **more)
    model: TextEncoder = registry.load("model", name).build(config, (8,), classes)
    model.eval()
    return model


@pytest.fixture
def x() -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 50, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", CONFIGS)
def test_texts_and_tokens_are_classified_from_a_config_alone(tmp_path, x, kind) -> None:
    at = folder(kind, tmp_path)
    texts, tokens = build(at), build(at, 5, "hf-tokens")
    assert (texts.task, tokens.task) == ("classification", "token-classification")
    outputs, features = texts.with_features(x)
    assert outputs.shape == (4, 3)
    assert torch.equal(texts.head(features), outputs)
    outputs, features = tokens.with_features(x)
    assert outputs.shape == (4, 8, 5)
    assert features.shape == (4, 8, 32)
    assert {p.dtype for p in texts.module.parameters()} == {torch.float32}
    hidden = {**x, "input_ids": x["input_ids"].clone()}
    hidden["input_ids"][:, 6:] = 3
    torch.testing.assert_close(texts(hidden), texts(x))


@pytest.mark.parametrize(("kind", "count"), [("bert", 2), ("roberta", 2), ("electra", 2),
                                             ("distilbert", 2), ("albert", 0)])  # fmt: skip
def test_the_blocks_of_known_encoders_can_be_narrowed(tmp_path, x, kind, count) -> None:
    from bench.models.surgery.pruning import cut, strongest

    model = build(folder(kind, tmp_path))
    assert len(model.blocks()) == count
    if count:
        assert {block.heads for block in model.blocks()} == {4}
        size = sum(p.numel() for p in model.body_parameters())
        cut(model, strongest(model, 2))
        for block in model.blocks():
            layers = [model.module.get_submodule(name) for name in (*block.qkv, block.ff_in)]
            assert [layer.out_features for layer in layers] == [16, 16, 16, 32]
        assert sum(p.numel() for p in model.body_parameters()) < size
        assert model(x).isfinite().all()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_weights_come_back_but_for_a_head_of_other_classes(tmp_path, x, kind, capsys) -> None:
    at = folder(kind, tmp_path)
    model = build(at)
    with torch.no_grad():
        for p in model.module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.module.save_pretrained(at)  # type: ignore[operator]
    assert torch.equal(build(at)(x), model(x))
    assert "fresh weights" not in capsys.readouterr().out
    other = build(at, 4)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"weights {at}: fresh weights for {model.head_name}.bias, {model.head_name}.weight"
    )
    state = model.module.state_dict()
    for name, tensor in other.module.state_dict().items():
        if not name.startswith(f"{model.head_name}."):
            assert torch.equal(tensor, state[name]), name


def test_attention_dtype_and_changes_are_settings(tmp_path, x) -> None:
    at = folder("bert", tmp_path)
    plain, eager = build(at), build(at, attention="eager")
    torch.testing.assert_close(eager(x), plain(x))
    implementations = {m.module.config._attn_implementation for m in (plain, eager)}
    assert implementations == {"sdpa", "eager"}
    half = build(at, dtype="bfloat16", changes={"num_hidden_layers": 1})
    assert {p.dtype for p in half.module.parameters()} == {torch.bfloat16}
    assert len(half.blocks()) == 1


def test_weights_that_do_not_fit_the_config_are_one_line(tmp_path) -> None:
    at = folder("bert", tmp_path)
    build(at).module.save_pretrained(at)  # type: ignore[operator]
    for changes in ({"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"intermediate_size": 48}):
        with pytest.raises(BenchError, match=r"do not fit at bert\.") as caught:
            build(at, changes=changes)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "no model can be made of"),
     ('{"model_type": "vit"}', "gives no network for token-classification")],
)  # fmt: skip
def test_a_folder_that_holds_no_text_model_is_one_line(tmp_path, content, said) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BenchError, match=said) as caught:
        build(tmp_path, name="hf-tokens")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_told_at_once(tmp_path) -> None:
    for at in (tmp_path, tmp_path / "none"):
        with pytest.raises(pydantic.ValidationError, match=r"no config\.json there; give"):
            HuggingFaceConfig(folder=str(at))
    with pytest.raises(
        BenchError, match=r"^model 'hf:/none': key 'folder': '/none' is not allowed"
    ):
        next(check_component("model", "hf:/none"))


def test_texts_that_are_too_long_and_images_are_refused(tmp_path) -> None:
    for kind, most in (("bert", 20), ("roberta", 18)):
        config = HuggingFaceConfig(folder=str(folder(kind, tmp_path)))
        TextEncoder.build(config, (most,), 2)
        with pytest.raises(BenchError, match=f"longer than the model's {most} positions"):
            TextEncoder.build(config, (most + 1,), 2)
    with pytest.raises(BenchError, match=r"\(1, 32, 32\) are no texts"):
        TextEncoder.build(HuggingFaceConfig(), (1, 32, 32), 2)


def test_a_folders_content_is_part_of_the_identity_and_its_place_is_not(tmp_path) -> None:
    def identity(at: Path, more: str = "") -> str:
        suite = tmp_path / "mine.yaml"
        suite.write_text(SUITE.format(model=f"{{name: 'hf:{at}'{more}}}"))
        (cell,) = make_cells(*load_suite(str(suite)))
        assert cell.model.name == "hf"
        assert cell.model.files == file_digests(HuggingFaceConfig(folder=str(at)))
        return cell.identity

    at = folder("bert", tmp_path)
    first = identity(at)
    assert identity(at, ", attention: eager") != first
    assert identity(at.rename(tmp_path / "moved")) == first
    (tmp_path / "moved" / "config.json").write_text('{"model_type": "bert"}')
    assert identity(tmp_path / "moved") != first
