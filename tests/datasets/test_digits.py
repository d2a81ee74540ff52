"""What every stream made of the digits promises: who is adapted on, tested, and never both."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.contracts.stream import Domain, Split, Stream
from bench.datasets import digits
from bench.datasets.streams.digits_shift import DigitsShift
from bench.datasets.streams.digits_tasks import DigitsMixed, DigitsTasks

SCENARIOS = (DigitsShift, DigitsTasks, DigitsMixed)
PARTS = ("test", "validation")
EACH = pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.registered_name)
BOTH_PARTS = pytest.mark.parametrize("part", PARTS)


def make(kind: type[Stream], part: str = "test", seed: int = 0, **settings: Any) -> Stream:
    return kind(kind.Config(part=part, **settings), seed)


def keys(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def domains(stream: Stream) -> list[Domain]:
    return [stream.domain(name) for name in stream.domain_names()]


@pytest.fixture
def unshifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Domains of clean images, by which one can tell which image is where."""
    monkeypatch.setattr(digits, "apply_shift", lambda name, images, *_: images)


@cache
def every_image() -> dict[bytes, int]:
    """All 1,797 images at the default size with their labels, straight from scikit-learn."""
    from sklearn.datasets import load_digits

    table = load_digits()
    small = torch.tensor(table.images / 16.0, dtype=torch.float32).unsqueeze(1)
    large = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear")
    return dict(zip(keys(large), table.target.tolist(), strict=True))


@cache
def turned_images() -> dict[bytes, bytes]:
    """The images of 0 to 3 by a quarter turn, as validation tasks have them, and what they were."""
    upright = [k for k, label in every_image().items() if label < 4]
    flat = torch.tensor(np.frombuffer(b"".join(upright), dtype=np.float32))
    turned = torch.rot90(flat.view(-1, 1, 32, 32), dims=(-2, -1))
    return dict(zip(keys(turned), upright, strict=True))


def originals(images: Tensor) -> list[bytes]:
    """The images, those that were turned as they were before."""
    return [turned_images().get(k, k) for k in keys(images)]


@EACH
@BOTH_PARTS
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_no_image_is_adapted_on_in_one_domain_and_tested_in_another(
    kind: type[Stream], part: str, seed: int, unshifted: None
) -> None:
    stream = make(kind, part, seed)
    made = domains(stream)
    adapted = {k for domain in made for k in originals(domain.adaptation.x)}
    tested = {k for domain in [*made, stream.source()] for k in originals(domain.test.x)}
    trained = set(keys(stream.source().adaptation.x))
    assert adapted
    assert tested
    assert not adapted & tested
    assert not trained & tested
    assert not trained & adapted
    assert adapted | tested | trained <= set(every_image())


@EACH
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_validation_stream_is_made_of_source_images_alone(
    kind: type[Stream], seed: int, unshifted: None
) -> None:
    source = make(kind, "test", seed).source()
    allowed = set(keys(source.adaptation.x))
    validation = make(kind, "validation", seed)
    for domain in [validation.source(), *domains(validation)]:
        for split in (domain.adaptation, domain.test):
            assert set(originals(split.x)) <= allowed


@EACH
@BOTH_PARTS
def test_every_label_is_that_of_its_image(kind: type[Stream], part: str, unshifted: None) -> None:
    """A turned digit is a class of its own, behind the 4 that the source knows."""
    labels = every_image() | {k: every_image()[was] + 4 for k, was in turned_images().items()}
    stream = make(kind, part)
    for domain in [stream.source(), *domains(stream)]:
        for split in (domain.adaptation, domain.test):
            assert [labels[k] for k in keys(split.x)] == split.y.tolist()


@EACH
@BOTH_PARTS
@pytest.mark.parametrize("seed", [0, 1])
def test_splits_are_stratified(kind: type[Stream], part: str, seed: int) -> None:
    """Every class has its share of a split, up to one image for each step of splitting."""
    of_class = torch.tensor(list(every_image().values())).bincount(minlength=10).tolist()
    sizes = {"test": (1000, 497, 300), "validation": (600, 250, 150)}[part]
    stream = make(kind, part, seed)

    def check(split: Split, size: int) -> None:
        for label, count in enumerate(split.y.bincount(minlength=10).tolist()):
            if count:
                assert abs(count - of_class[label] * size / 1797) <= 2

    check(stream.source().adaptation, sizes[0])
    check(stream.source().test, sizes[2])
    for domain in domains(stream):
        check(domain.adaptation, sizes[1])
        check(domain.test, sizes[2])


@EACH
@BOTH_PARTS
def test_a_stream_is_bit_equal_for_the_same_seed(kind: type[Stream], part: str) -> None:
    torch.manual_seed(1)
    first = make(kind, part)
    expected = [first.source(), *domains(first)]
    torch.manual_seed(2)
    again = make(kind, part)
    last_first = [again.domain(name) for name in reversed(list(again.domain_names()))][::-1]
    for a, b in zip(expected, [again.source(), *last_first], strict=True):
        assert a.name == b.name
        assert torch.equal(a.adaptation.x, b.adaptation.x)
        assert torch.equal(a.test.x, b.test.x)
        assert torch.equal(a.adaptation.y, b.adaptation.y)
        assert torch.equal(a.test.y, b.test.y)


@EACH
@BOTH_PARTS
def test_a_seed_changes_the_splits_but_not_what_the_source_model_is_trained_on(
    kind: type[Stream], part: str, unshifted: None
) -> None:
    one, two = make(kind, part, 0), make(kind, part, 1)
    assert torch.equal(one.source().adaptation.x, two.source().adaptation.x)
    assert torch.equal(one.source().adaptation.y, two.source().adaptation.y)
    assert one.source_settings() == two.source_settings()
    assert set(keys(one.source().test.x)) != set(keys(two.source().test.x))
    for a, b in zip(domains(one), domains(two), strict=True):
        assert set(keys(a.adaptation.x)) != set(keys(b.adaptation.x))
        assert set(keys(a.test.x)) != set(keys(b.test.x))


@EACH
def test_source_models_of_the_two_parts_are_not_confused(kind: type[Stream]) -> None:
    test, validation = make(kind, "test"), make(kind, "validation")
    assert test.source_settings() != validation.source_settings()
    assert test.source_settings() != make(kind, "test", size=16).source_settings()
    assert test.classes == validation.classes == 10
    assert test.input_shape == validation.input_shape == (1, 32, 32)


@EACH
def test_validation_keeps_the_other_settings_and_can_be_read_back(kind: type[Stream]) -> None:
    given = kind.Config(size=16)
    made = kind.validation(given)
    assert type(made) is kind.Config
    assert made == kind.Config(part="validation", size=16)
    assert given == kind.Config(size=16)
    assert kind.Config.model_validate(made.model_dump(mode="json")) == made
    assert kind.validation(made) == made


@EACH
def test_the_two_streams_have_no_image_in_common(kind: type[Stream], unshifted: None) -> None:
    """Classes that come later may be called alike in both: 4 is another digit in each."""
    test, validation = make(kind, "test"), make(kind, "validation")
    one, two = (
        {k for d in domains(s) for split in (d.adaptation, d.test) for k in originals(split.x)}
        for s in (test, validation)
    )
    assert not one & two
    for stream in (test, validation):
        assert len(set(stream.domain_names())) == len(stream.domain_names()) >= 1


@EACH
def test_the_data_digest_is_that_of_the_file_and_ignores_the_settings(
    kind: type[Stream],
) -> None:
    digest = kind.data_digest(kind.Config())
    assert digest == kind.data_digest(kind.Config(size=16, part="validation"))
    assert digest == DigitsShift.data_digest(DigitsShift.Config())
    assert len(digest) == 64
    int(digest, 16)
