"""The adapter of timm: networks by name, their preprocessing, their blocks, their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pydantic
import pytest
import timm
import torch
from safetensors.torch import save_file

from bench import registry
from bench.contracts.data import Inputs
from bench.contracts.settings import file_digests
from bench.errors import BenchError
from bench.io.digest import file_digest
from bench.models.timm_model import TimmConfig, TimmModel
from bench.study.plan import make_cells
from bench.study.suite import load_suite

SUITE = """\
name: mine
description: a suite for tests
stream: digits-shift
model: {model}
methods: [source-only]
seeds: 1
devices: xavier-nx
"""


def build(
    name: str, shape: tuple[int, ...] = (3, 64, 64), classes: int = 3, size: int = 64, **more: Any
) -> TimmModel:
    torch.manual_seed(0)
    config = TimmConfig(architecture=name, image_size=size, **more)
    model = TimmModel.build(config, shape, classes)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("name", "head"),
    [("test_resnet", "fc"), ("mobilenetv2_035", "classifier"), ("test_efficientnet", "classifier"),
     ("test_convnext", "head.fc"), ("test_vit", "head")],
)  # fmt: skip
def test_a_network_is_built_by_its_name_with_its_own_head(name: str, head: str) -> None:
    model = build(name, (1, 64, 64))
    assert model.head_name == head
    outputs, features = model.with_features(torch.rand(2, 1, 64, 64))
    assert outputs.shape == (2, 3)
    assert torch.equal(model.head(features), outputs)


def test_plain_vision_transformers_alone_declare_their_blocks() -> None:
    assert len(build("test_vit").blocks()) == 6
    assert build("test_vit").blocks()[0].heads == 2
    assert build("test_resnet").blocks() == []
    assert build("mixer_s32_224").blocks() == []  # its blocks are no transformer's
    assert build("vit_relpos_small_patch16_224").blocks() == []


# --- preprocessing ---------------------------------------------------------------------------


def test_images_are_normalized_by_the_networks_own_mean_and_deviation() -> None:
    model, x = build("resnet18"), torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(model(x), model.module((x - mean) / std))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_normalized_by_the_averages(channels: int) -> None:
    model, x = build("resnet18", (channels, 64, 64)), torch.rand(2, channels, 64, 64)
    mean, std = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    torch.testing.assert_close(model(x), model.module((x - mean) / std))


@pytest.mark.parametrize(("size", "wanted"), [(None, 160), (64, 64)])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_the_network_is_given_images_of_its_size(name: str, size: Any, wanted: int) -> None:
    model = build(name, (3, 40, 32), size=size)
    seen: list[tuple[int, ...]] = []
    model.module.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    assert model(torch.rand(2, 3, 40, 32)).shape == (2, 3)
    assert seen == [(2, 3, wanted, wanted)]


def test_the_preprocessing_is_no_part_of_the_weights() -> None:
    assert set(build("test_resnet").module.state_dict()) == set(
        timm.create_model("test_resnet", num_classes=3).state_dict()
    )


# --- weights ---------------------------------------------------------------------------------


def saved(model: TimmModel, path: Path, wrapped: str = "") -> Path:
    state = model.module.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, path)
    return path


def outputs(model: TimmModel, x: Inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


@pytest.fixture
def trained() -> TimmModel:
    model = build("test_vit", classes=7)
    with torch.no_grad():
        for p in model.module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize(
    ("file", "wrapped"),
    [("w.safetensors", ""), ("w.pt", ""), ("w.pth", "state_dict"), ("w.bin", "model")],
)
def test_weights_come_back_from_a_file_and_from_its_folder(
    tmp_path: Path, trained: TimmModel, file: str, wrapped: str
) -> None:
    path, x = saved(trained, tmp_path / file, wrapped), torch.rand(2, 3, 64, 64)
    (tmp_path / "config.json").write_text("{}")
    for place in (path, tmp_path):
        again = build("test_vit", classes=7, weights=str(place))
        assert torch.equal(outputs(again, x), outputs(trained, x))


def test_a_head_of_other_classes_is_replaced_and_said_in_one_line(
    tmp_path: Path, trained: TimmModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(trained, tmp_path / "w.safetensors")
    model = build("test_vit", classes=4, weights=str(path))
    assert capsys.readouterr().out.splitlines() == [
        f"weights {path}: no head of this many classes; 'head' has fresh weights"
    ]
    for name, tensor in model.module.state_dict().items():
        if name.startswith("head."):
            assert len(tensor) == 4
        else:
            assert torch.equal(tensor, trained.module.state_dict()[name]), name


def test_weights_of_another_size_and_of_colour_images_are_fitted(
    tmp_path: Path, trained: TimmModel
) -> None:
    path = saved(trained, tmp_path / "w.pt")
    grey = build("test_vit", (1, 96, 96), 7, 96, weights=str(path))
    colour = trained.module.get_submodule("patch_embed.proj").weight
    summed = grey.module.get_submodule("patch_embed.proj").weight
    torch.testing.assert_close(summed, colour.sum(dim=1, keepdim=True))
    assert grey.module.state_dict()["pos_embed"].shape[1] == 1 + (96 // 16) ** 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"no weights", "cannot be read"),
        ([1, 2], "are not a state dict"),
        ({"other": torch.ones(2)}, "do not fit the model"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BenchError) as caught:
        build("test_resnet", weights=str(path))
    assert f"weights {path} {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_or_with_several_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no file \*\.safetensors.* in it; name the file"):
        build("test_resnet", weights=str(tmp_path))
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BenchError, match=r"2 files may hold them \(a\.pt, b\.pt\); name one"):
        build("test_resnet", weights=str(tmp_path))


def test_the_hub_is_asked_only_by_name_and_its_file_is_recorded(
    tmp_path: Path, trained: TimmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--timm--test_vit.r160_in1k" / "snapshots" / "0abc"
    place.mkdir(parents=True)
    path = saved(trained, place / "model.safetensors")
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    config = TimmConfig(architecture="test_vit", weights="hub")
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    assert config.weights == str(path)  # name, tag and commit
    assert file_digests(config) == {"weights": file_digest(path)}

    def fail(*_: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(pydantic.ValidationError, match=r"cannot be had .*check the network"):
        TimmConfig(architecture="test_vit", weights="hub")
    with pytest.raises(pydantic.ValidationError, match="no weights of mixer_s32_224 on the hub"):
        TimmConfig(architecture="mixer_s32_224", weights="hub")


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet_18", "timm knows no such architecture; did you mean 'resnet"),
        ("resnet18.a1_in1m", "resnet18 has no weights 'a1_in1m'; did you mean 'a1_in1k'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        TimmConfig(architecture=name)


def test_what_cannot_be_built_is_one_line() -> None:
    with pytest.raises(BenchError, match=r"has no single head .*; name an architecture"):
        build("deit_tiny_distilled_patch16_224")
    with pytest.raises(BenchError, match=r"\(64,\) are no images .*choose a stream of images"):
        build("test_resnet", (64,))


def test_both_ways_of_writing_a_name_are_one_cell(tmp_path: Path) -> None:
    cells = []
    for model in ("timm:test_resnet", "{name: timm, architecture: test_resnet}"):
        path = tmp_path / "mine.yaml"
        path.write_text(SUITE.format(model=model))
        cells += make_cells(*load_suite(str(path)))
    assert {cell.model.name for cell in cells} == {"timm:test_resnet"}
    assert len({cell.identity for cell in cells}) == 1
    assert registry.load("model", "timm:test_resnet").Config().architecture == "test_resnet"
    assert registry.load("model", "timm").Config().architecture == "resnet18"


def test_the_content_of_weights_is_part_of_the_identity_and_their_place_is_not(
    tmp_path: Path, trained: TimmModel
) -> None:
    def identity(file: Path) -> str:
        suite = tmp_path / "mine.yaml"
        suite.write_text(SUITE.format(model=f"{{name: timm:test_vit, weights: {file}}}"))
        (cell,) = make_cells(*load_suite(str(suite)))
        return cell.identity

    first = identity(saved(trained, tmp_path / "a.pt"))
    assert identity((tmp_path / "a.pt").rename(tmp_path / "b.pt")) == first
    saved(build("test_vit", classes=7), tmp_path / "b.pt")
    assert identity(tmp_path / "b.pt") != first


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "timm:resnet_18",
            "model 'timm:resnet_18': key 'architecture': 'resnet_18' is not allowed",
        ),
        ("'timm:'", "nothing to take behind the colon; write the architecture, as timm:NAME"),
        ("digits-vit:4", "nothing to take behind the colon; write digits-vit"),
        ("tim:resnet18", "unknown model 'tim:resnet18'"),
        ("{name: timm:resnet18, architecture: resnet34}", "the name gives it already"),
        ("{name: timm, weights: none.pt}", "none.pt cannot be read: No such file"),
    ],
)
def test_a_mistake_in_a_suite_is_one_line(tmp_path: Path, model: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.format(model=model))
    with pytest.raises(BenchError) as caught:
        make_cells(*load_suite(str(path)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
