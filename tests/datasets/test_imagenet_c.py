"""The published corruptions: what they are, that they draw from a seed, and what they refuse."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import BenchError, load
from bench.contracts.data import take
from bench.datasets import imagenet_c
from bench.run.validity import build_stream

needs_library = pytest.mark.skipif(
    find_spec("imagecorruptions") is None, reason="imagecorruptions-imaug is not installed"
)


def stream(root: Path, size: int = 32, part: str = "test", **settings: Any) -> Any:
    stream_class = load("stream", "domain-shift")
    data = {"name": "image-folder", "root": str(root), "size": size}
    config = stream_class.Config(data=data, source="near", **settings)
    return stream_class(config if part == "test" else stream_class.validation(config), 0)


def test_there_are_fifteen_and_four_at_five_severities() -> None:
    reported, tuned = imagenet_c.names("test", False), imagenet_c.names("validation", False)
    assert (len(reported), len(tuned)) == (75, 20)
    assert not set(reported) & set(tuned)
    assert reported[:15] == [f"{kind}-1" for kind in imagenet_c.KINDS["test"]]
    assert len(imagenet_c.names("test", dense=True)) == 70


@needs_library
@pytest.mark.parametrize("part", ["test", "validation"])
def test_each_is_the_librarys_and_draws_from_its_seed(part: Any) -> None:
    from imagecorruptions import corrupt

    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    for kind in imagenet_c.KINDS[part]:
        state = np.random.get_state()[1].copy()
        made = imagenet_c.corrupt(f"{kind}-3", image, 7)
        assert (np.random.get_state()[1] == state).all()
        assert torch.equal(made, imagenet_c.corrupt(f"{kind}-3", image, 7))
        assert made.shape == image.shape
        assert not torch.equal(made, image)
        np.random.seed(7)
        seeded = {"seed": 7} if kind in ("glass_blur", "impulse_noise") else {}
        expected = corrupt(pixels, 3, kind, **seeded)
        assert (made * 255).round().byte().permute(1, 2, 0).numpy() == pytest.approx(expected)


@needs_library
def test_gray_images_stay_gray() -> None:
    image = torch.rand(1, 32, 32)
    assert imagenet_c.corrupt("contrast-5", image, 0).shape == (1, 32, 32)


@needs_library
def test_a_stream_of_them_has_the_held_out_to_tune_on(image_folder: Path) -> None:
    made = stream(image_folder, corruptions=["gaussian_noise-5", "contrast-5"], test=0.5)
    built = build_stream(made)
    assert [d.name for d in built.domains] == ["gaussian_noise-5", "contrast-5"]
    x = built.domains[0].test.x
    first, backwards = take(x, torch.tensor([0, 1])), take(x, torch.tensor([1, 0]))
    assert torch.equal(first, backwards.flip(0))
    tuned = stream(image_folder, part="validation", corruptions=["gaussian_noise-5"])
    kinds = {name.rpartition("-")[0] for name in tuned.domain_names()}
    assert kinds == set(imagenet_c.KINDS["validation"])


@needs_library
def test_the_family_says_which_contrast_is_meant(image_folder: Path) -> None:
    own = stream(image_folder, corruptions="contrast-1").domain("contrast-1")
    published = stream(image_folder, corruptions="contrast-1", family="imagenet-c")
    other = published.domain("contrast-1")
    chosen = torch.arange(2)
    assert not torch.equal(take(own.test.x, chosen), take(other.test.x, chosen))
    assert own.test.x.digest() != other.test.x.digest()
    assert len(stream(image_folder, family="imagenet-c").domain_names()) == 75
    rising = stream(image_folder, corruptions="fog", change="gradual").domain_names()
    assert rising == [
        "fog-1", "fog-2", "fog-3", "fog-4", "fog-5", "fog-4@2", "fog-3@2", "fog-2@2", "fog-1@2"
    ]  # fmt: skip


def test_small_images_and_a_missing_library_are_one_line(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet_c, "find_spec", lambda _: object())
    with pytest.raises(BenchError, match="32 x 32 pixels or more, and these have 16 x 16: set si"):
        stream(image_folder, size=16, corruptions="fog-3")
    monkeypatch.setattr(imagenet_c, "find_spec", lambda _: None)
    with pytest.raises(BenchError, match="pip install imagecorruptions-imaug"):
        stream(image_folder, corruptions="fog-3")


def test_corruptions_of_two_families_are_refused(image_folder: Path) -> None:
    with pytest.raises(BenchError, match="inversion-1, fog-3 are not of one family"):
        stream(image_folder, corruptions=["inversion-1", "fog-3"])
