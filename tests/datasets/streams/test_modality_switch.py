"""Questions about digits by two sensors: that answers are true, and who sees what."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from bench import BenchError, registry
from bench.contracts.data import DomainView
from bench.datasets.streams.modality_switch import (
    ANSWERS,
    LENGTH,
    QUESTIONS,
    WORDS,
    ModalitySwitch,
    ModalitySwitchConfig,
)
from bench.run.validity import build_stream

SMALL = {"size": 16, "source_samples": 100, "test_samples": 60, "samples": (20, 50)}
NUMBERS = {word: i for i, word in enumerate(ANSWERS[:10])}


def stream(seed: int = 0, **settings: Any) -> ModalitySwitch:
    return ModalitySwitch(ModalitySwitchConfig(**{**SMALL, **settings}), seed)


def said(ids: torch.Tensor) -> str:
    return " ".join(WORDS[i] for i in ids.tolist()).lstrip(". ")


def true_answer(question: str, digit: int) -> str:
    if question == "which digit is it ?":
        return ANSWERS[digit]
    if question == "which digit ends one more ?":
        return ANSWERS[int(str(digit + 1)[-1])]
    if question == "is it even ?":
        return "yes" if digit in (0, 2, 4, 6, 8) else "no"
    assert question == "is it above four ?"
    return "yes" if digit in (5, 6, 7, 8, 9) else "no"


def test_answers_are_true_and_captions_say_the_digit() -> None:
    source = stream().source().adaptation
    asked = set()
    for i in range(len(source)):
        caption, question = said(source.x["caption"][i]), said(source.x["input_ids"][i])
        digit = NUMBERS[caption.rsplit(" ", 1)[1]]
        assert caption.startswith(("it is a ", "the digit is "))
        assert ANSWERS[int(source.y[i])] == true_answer(question, digit)
        asked.add(question)
    assert asked == set(QUESTIONS)
    assert source.x["input_ids"].shape[1] == LENGTH == 6


def test_captions_are_in_no_sample_that_is_tested_or_arrives() -> None:
    made = build_stream(stream())
    assert "caption" in made.source.adaptation.x
    others = [made.source.test, *(s for d in made.domains for s in (d.adaptation, d.test))]
    assert all(set(each.x) == {"image", "range", "input_ids"} for each in others)


def test_the_second_modality_is_the_distance_to_the_first_ink_from_each_side() -> None:
    x = stream().source().test.x
    for image, seen in zip(x["image"][:5, 0], x["range"][:5, 0], strict=True):
        for side in range(4):
            turned = np.rot90(image.numpy(), side)
            distances = []
            for column in turned.T:
                ink = [row for row, grey in enumerate(column) if grey > 0.5]
                distances.append((ink[0] if ink else 16) / 16)
            for row in seen[4 * side : 4 * side + 4]:
                assert row.tolist() == pytest.approx(distances)


def test_at_night_the_images_alone_are_dimmed_and_blurred() -> None:
    made = stream()
    clean, night = made.source().test, made.domain("night-50").test
    assert torch.equal(clean.x["range"], night.x["range"])
    assert torch.equal(clean.y, night.y)
    assert torch.equal(stream(dimming=0.8, blur=0).domain("night-50").test.x["image"],
                       (1 - 0.8) * clean.x["image"])  # fmt: skip
    blurred = stream(dimming=0.0).domain("night-50").test.x["image"]
    point = torch.zeros(1, 1, 31, 31)
    point[0, 0, 15, 15] = 1
    from torchvision.transforms.v2 import functional as F

    kernel = F.gaussian_blur(point, kernel_size=[11, 11], sigma=[2.5, 2.5])[0, 0, 10:21, 10:21]
    padded = torch.nn.functional.pad(clean.x["image"], (5,) * 4, mode="reflect")
    by_hand = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 11, 11))
    torch.testing.assert_close(blurred, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(night.x["image"], 0.2 * blurred)


def test_fewer_samples_are_the_beginning_of_more_and_none_is_tested() -> None:
    made = build_stream(stream())  # which refuses samples that are learned and tested
    few, more = (domain.adaptation for domain in made.domains)
    assert [len(few), len(more)] == [20, 50]
    assert torch.equal(few.x["image"], more.x["image"][:20])
    assert len(made.source.adaptation) == 100
    assert len(made.domains[0].test) == 60
    other = stream(1)
    assert torch.equal(other.source().adaptation.x["image"], made.source.adaptation.x["image"])
    assert not torch.equal(other.domain("night-50").adaptation.x["image"], more.x["image"])


def test_the_validation_stream_is_made_of_the_source_under_another_shift() -> None:
    config = ModalitySwitch.validation(stream().config)
    names = {row.numpy().tobytes() for row in stream().source().adaptation.x["range"]}
    made = ModalitySwitch(config, 0)
    for split in (made.source().adaptation, made.domain("night-50").adaptation):
        assert {row.numpy().tobytes() for row in split.x["range"]} <= names
    pixels = made.domain("night-20").test.x["image"]
    assert float(pixels.max()) > 0.5  # not dimmed


def written(root: Path, classes: int = 10, each: int = 12) -> dict[str, Any]:
    """Images whose greys say their class and their number: 20 class + number."""
    y = np.repeat(np.arange(classes), each).astype(np.uint8)
    grey = (20 * y + np.tile(np.arange(each), classes)).astype(np.uint8)
    x = np.broadcast_to(grey[:, None, None], (len(y), 16, 16))
    root.mkdir()
    for name, array in (("images-idx3", x), ("labels-idx1", y)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (root / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return {"name": "idx", "root": str(root), "size": 16}


def test_other_data_are_paired_by_class_and_no_partner_is_in_two_splits(tmp_path: Path) -> None:
    made = stream(second=written(tmp_path / "other"))
    domain = made.domain("night-50")
    seen = {}
    for name, split in (("source", made.source().adaptation), ("learned", domain.adaptation),
                        ("tested", domain.test)):  # fmt: skip
        grey = (split.x["idx"][:, 0, 0, 0] * 255).round().long()
        for value, ids, answer in zip(grey, split.x["input_ids"], split.y, strict=True):
            assert ANSWERS[int(answer)] == true_answer(said(ids), int(value) // 20)
        seen[name] = set(grey.tolist())
    assert not seen["source"] & seen["learned"]
    assert not seen["source"] & seen["tested"]
    assert not seen["learned"] & seen["tested"]
    assert made.data_digest(made.config) != stream().data_digest(stream().config)


def test_too_many_samples_and_other_classes_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"samples: 1700 with 100 .* are 1860, and digits has 17"):
        stream(samples=(1700,)).source()
    data = written(tmp_path / "few", each=2)
    with pytest.raises(BenchError, match="digit 0 has 2 samples in all, too few"):
        stream(second=data).source()
    data = written(tmp_path / "large")
    with pytest.raises(BenchError, match=r"idx: its samples are \(1, 8, 8\), and the stream's"):
        stream(second={**data, "size": 8}).source()
    data = written(tmp_path / "twelve", classes=12)
    with pytest.raises(BenchError, match="idx: class '10' is no digit"):
        stream(second=data).source()
    for wrong in ((), (5, 5), (0,)):
        with pytest.raises(pydantic.ValidationError):
            ModalitySwitchConfig(samples=wrong)
    with pytest.raises(BenchError, match="no domain 'day'; it has night-20, night-50"):
        stream().domain("day")


def test_the_embedded_model_learns_it_and_answers_by_the_first_modality() -> None:
    """A short training by captions, then by what the projection makes of images."""
    made = stream()
    source = made.source()
    kind = registry.load("model", "digits-modal-lm")
    torch.manual_seed(0)
    sizes = kind.Config(width=32, depth=2, encoder_width=16, encoder_depth=2, tokens=2)
    model = kind.build(sizes, made.input_shape, made.classes)
    view = DomainView("source", source.adaptation.x, source.adaptation.y, 50,
                      torch.Generator().manual_seed(0))  # fmt: skip
    optimizer = torch.optim.AdamW(model.module.parameters(), 1e-2)
    losses = []
    for _, batch in zip(range(25), view.infinite(), strict=False):
        loss = model.loss(model(model.augment(batch.x)), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    x = source.adaptation.x
    with torch.no_grad():
        answers = model(x)
        assert torch.equal(
            answers, model({**x, "range": 0 * x["range"], "caption": 0 * x["caption"]})
        )
        assert not torch.equal(answers, model({**x, "image": 0 * x["image"]}))
