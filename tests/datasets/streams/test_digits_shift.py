"""The digits under a stream of shifts: fixed by the seed, disjoint, distinct."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from itertools import combinations

import pydantic
import pytest
import torch
from torch import Tensor

from bench.contracts.stream import Domain, Split
from bench.datasets.corruptions import SEVERITIES, VALIDATION_SEVERITIES
from bench.datasets.streams.digits_shift import DigitsShift, DigitsShiftConfig
from bench.errors import BenchError


@cache
def stream(seed: int = 0, **settings: object) -> DigitsShift:
    return DigitsShift(DigitsShiftConfig(**settings), seed)


@cache
def domain(name: str, seed: int = 0) -> Domain:
    return stream(seed).domain(name)


ALL = tuple(stream().domain_names())


def keys(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def clean(seed: int) -> dict[str, Tensor]:
    """The images behind each split before any shift."""
    images, _, indices = stream(seed)._clean
    return {name: images[chosen] for name, chosen in indices.items()}


def test_there_are_24_domains_of_12_shifts_mild_before_strong() -> None:
    assert len(ALL) == len(set(ALL)) == 24
    shifts = [name.rpartition("-")[0] for name in ALL]
    assert len(set(shifts)) >= 12
    assert [name[-1] for name in ALL] == ["1"] * 12 + ["2"] * 12
    assert shifts[:12] == shifts[12:] == list(SEVERITIES)


def test_the_order_of_the_stream_stays_as_it_was() -> None:
    order = [
        "rotation", "noise", "blur", "contrast", "brightness", "inversion",
        "occlusion", "scale", "shear", "translation", "salt-pepper", "stripes",
    ]  # fmt: skip
    assert list(ALL) == [f"{shift}-{severity}" for severity in (1, 2) for shift in order]
    assert stream(0, order="shuffled").domain_names()[:4] == [
        "occlusion-2", "brightness-1", "translation-2", "salt-pepper-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "adaptation", "test"),
    [
        (0, "2a648ed3dc8ceba1", "215058d53f4919f4"),
        (1, "168107895b182b4e", "078c8745e95bdd00"),
    ],
)
def test_a_domains_tensors_stay_as_they_were(seed: int, adaptation: str, test: str) -> None:
    """One whose values are exact fractions, the same on every processor."""

    def digest(split: Split) -> str:
        both = split.x.numpy().tobytes() + split.y.numpy().tobytes()
        return hashlib.sha256(both).hexdigest()[:16]

    made = domain("salt-pepper-1", seed)
    assert (digest(made.adaptation), digest(made.test)) == (adaptation, test)


@pytest.mark.parametrize("name", ALL)
def test_a_domain_has_its_samples_values_in_range_and_all_classes(name: str) -> None:
    made = domain(name)
    assert made.name == name
    assert len(made.adaptation) == 497
    assert len(made.test) == 300
    for split in (made.adaptation, made.test):
        assert split.x.shape == (len(split), 1, 32, 32)
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
        assert bool(((split.x >= 0) & (split.x <= 1)).all())
        counts = split.y.bincount(minlength=10)
        assert len(counts) == 10
        assert int(counts.min()) >= 0.08 * len(split)  # stratified


@pytest.mark.parametrize("name", ["noise-1", "occlusion-2", "rotation-1", "salt-pepper-2"])
def test_a_domain_is_bit_equal_for_the_same_seed(name: str) -> None:
    torch.manual_seed(17)
    again = DigitsShift(DigitsShiftConfig(), 0).domain(name)
    for a, b in ((again.adaptation, domain(name).adaptation), (again.test, domain(name).test)):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_a_domain_does_not_depend_on_those_built_before_it() -> None:
    fresh = DigitsShift(DigitsShiftConfig(), 0)
    fresh.domain("noise-2")
    fresh.domain("stripes-1")
    assert torch.equal(fresh.domain("noise-1").test.x, domain("noise-1").test.x)


def test_a_domain_does_not_depend_on_which_others_are_in_the_stream() -> None:
    few = stream(0, shifts=("noise",), severities=(2,)).domain("noise-2")
    assert torch.equal(few.test.x, domain("noise-2").test.x)
    assert torch.equal(few.adaptation.y, domain("noise-2").adaptation.y)


@pytest.mark.parametrize("name", ["noise-1", "rotation-1"])
def test_another_seed_gives_another_split_and_other_images(name: str) -> None:
    assert not torch.equal(domain(name).adaptation.y, domain(name, 1).adaptation.y)
    assert not torch.equal(domain(name).test.x, domain(name, 1).test.x)


def test_the_random_part_differs_between_splits_domains_and_seeds() -> None:
    """The noise itself, seen where the clean images are equally black."""

    def residue(name: str, split: str, seed: int) -> Tensor:
        images = getattr(domain(name, seed), split).x
        return images[:100, 0, 0, 0]

    drawn = [
        residue("noise-1", "test", 0), residue("noise-1", "adaptation", 0),
        residue("noise-1", "test", 1), residue("noise-2", "test", 0) * 0.15 / 0.25,
    ]  # fmt: skip
    for a, b in combinations(drawn, 2):
        assert not torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_no_image_is_in_two_of_source_adaptation_and_test(seed: int) -> None:
    parts = {name: set(keys(images)) for name, images in clean(seed).items()}
    assert {k: len(v) for k, v in parts.items()} == {
        "source": 1000, "adaptation": 497, "test": 300,
    }  # fmt: skip
    assert len(set().union(*parts.values())) == 1797
    source = stream(seed).source()
    assert set(keys(source.adaptation.x)) == parts["source"]
    assert set(keys(source.test.x)) == parts["test"]


def test_every_domain_adapts_on_the_same_images_and_tests_on_the_same() -> None:
    """By their labels, which a shift does not change; and by the images of brightness."""
    for name in ALL:
        assert torch.equal(domain(name).test.y, domain("noise-1").test.y)
        assert torch.equal(domain(name).adaptation.y, domain("noise-1").adaptation.y)
    for split in ("adaptation", "test"):
        expected = (clean(0)[split] + 0.12).clamp(max=1.0)
        assert torch.equal(getattr(domain("brightness-1"), split).x, expected)
    assert torch.equal(stream().source().test.y, domain("noise-1").test.y)


def test_the_source_is_the_same_for_every_seed_to_train_on() -> None:
    first, other = stream(0).source(), stream(1).source()
    assert torch.equal(first.adaptation.x, other.adaptation.x)
    assert torch.equal(first.adaptation.y, other.adaptation.y)
    assert not torch.equal(first.test.y, other.test.y)


def test_the_labels_are_those_of_the_images() -> None:
    """Against scikit-learn's own table, brought to the same size image by image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    table = {}
    for image, label in zip(digits.images, digits.target, strict=True):
        small = torch.tensor(image / 16.0, dtype=torch.float32)[None, None]
        large = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear")
        table[large.numpy().tobytes()] = int(label)
    source = stream(0, size=16).source()
    for split in (source.adaptation, source.test):
        assert [table[k] for k in keys(split.x)] == split.y.tolist()


def test_every_pair_of_domains_differs() -> None:
    for a, b in combinations(ALL, 2):
        assert float((domain(a).test.x[:50] - domain(b).test.x[:50]).abs().mean()) > 1e-3, (a, b)


@pytest.mark.parametrize("shift", SEVERITIES)
def test_severity_2_is_farther_from_the_clean_images_than_severity_1(shift: str) -> None:
    def distance(severity: int) -> float:
        return float((domain(f"{shift}-{severity}").test.x - clean(0)["test"]).square().mean())

    assert distance(2) > 1.2 * distance(1) > 0


@pytest.mark.parametrize("shift", VALIDATION_SEVERITIES)
def test_so_it_is_in_the_validation_stream(shift: str) -> None:
    made = stream(0, part="validation")
    clean = made._clean[0][made._clean[2]["test"]]
    one, two = (made.domain(f"{shift}-{severity}").test.x - clean for severity in (1, 2))
    assert float(two.square().mean()) > 1.2 * float(one.square().mean()) > 0


def test_the_validation_stream_has_its_own_shifts_mild_before_strong() -> None:
    made = stream(0, part="validation")
    kinds = ["perspective", "gamma", "pixelate", "speckle", "dilation", "illumination"]
    assert made.domain_names() == [f"{kind}-{severity}" for severity in (1, 2) for kind in kinds]
    assert len(made.source().adaptation) == 600
    for name in made.domain_names():
        built = made.domain(name)
        assert (len(built.adaptation), len(built.test)) == (250, 150)
        assert set(built.adaptation.y.tolist()) == set(built.test.y.tolist()) == set(range(10))


def test_validation_keeps_severities_order_and_size() -> None:
    given = DigitsShiftConfig(shifts=("blur",), severities=(2,), order="shuffled", size=16)
    assert DigitsShift.validation(given) == DigitsShiftConfig(
        part="validation", severities=(2,), order="shuffled", size=16
    )


@pytest.mark.parametrize(
    ("part", "shift", "other"), [("test", "gamma", "validation"), ("validation", "blur", "test")]
)
def test_a_shift_of_the_other_part_is_refused_with_those_of_this_one(
    part: str, shift: str, other: str
) -> None:
    known = {"test": "rotation, noise", "validation": "perspective, gamma"}[part]
    cure = f"shift '{shift}' belongs to part '{other}'.*; part '{part}' has {known}"
    with pytest.raises(pydantic.ValidationError, match=cure):
        stream(0, part=part, shifts=(shift,))


def test_a_shuffled_stream_is_a_permutation_fixed_by_the_seed() -> None:
    first = stream(0, order="shuffled").domain_names()
    assert sorted(first) == sorted(ALL)
    assert first != list(ALL)
    assert DigitsShift(DigitsShiftConfig(order="shuffled"), 0).domain_names() == first
    assert stream(1, order="shuffled").domain_names() != first


def test_the_stream_follows_the_settings() -> None:
    made = stream(0, shifts=("blur", "noise"), severities=(2, 1), size=16)
    assert made.domain_names() == ["blur-2", "noise-2", "blur-1", "noise-1"]
    assert made.input_shape == (1, 16, 16)
    assert made.domain("blur-1").test.x.shape == (300, 1, 16, 16)
    assert made.classes == 10
    assert made.source_settings() == {
        "part": "test", "size": 16, "source_classes": list(range(10)),
    }  # fmt: skip


def test_the_list_of_names_cannot_be_changed_from_outside() -> None:
    made = stream(0, shifts=("blur",))
    made.domain_names().clear()
    assert made.domain_names() == ["blur-1", "blur-2"]


def test_an_unknown_shift_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown shift 'snow'; known: blur, brightness"):
        stream(0, shifts=("snow",))
    with pytest.raises(ValueError, match="unknown shift 'gama'; did you mean 'gamma'"):
        stream(0, part="validation", shifts=("gama",))


@pytest.mark.parametrize("name", ["noise-3", "snow-1", "noise", ""])
def test_a_domain_that_is_not_in_the_stream_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match=f"no domain '{name}'"):
        stream().domain(name)


@pytest.mark.parametrize(
    "bad",
    [
        {"severities": (3,)}, {"severities": ()}, {"order": "random"}, {"size": 7},
        {"size": 225}, {"color": 1}, {"shifts": ()}, {"part": "training"},
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises((pydantic.ValidationError, BenchError)):
        stream(0, **bad)


@pytest.mark.parametrize("bad", [{"shifts": ("noise", "noise")}, {"severities": (1, 1)}])
def test_the_names_of_a_stream_are_unique(bad: dict[str, object]) -> None:
    """A domain's name is unique in the stream, or the settings are refused."""
    try:
        names = stream(0, **bad).domain_names()
    except (pydantic.ValidationError, BenchError):
        return
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("size", [8, 16])
def test_every_size_that_is_allowed_can_be_built_for_every_domain(size: int) -> None:
    """Or the settings are refused, before a run starts."""
    try:
        made = stream(0, size=size)
    except (pydantic.ValidationError, BenchError):
        return
    for name in ALL:
        assert made.domain(name).test.x.shape == (300, 1, size, size)
    tuning = stream(0, size=size, part="validation")
    for name in tuning.domain_names():
        assert tuning.domain(name).test.x.shape == (150, 1, size, size)


def test_shifts_that_name_their_severity_come_once_in_the_order_given() -> None:
    made = DigitsShift(DigitsShiftConfig(shifts=("blur-2", "salt-pepper-1")), 0)
    assert made.domain_names() == ["blur-2", "salt-pepper-1"]
    both = DigitsShift(DigitsShiftConfig(shifts=("blur", "salt-pepper")), 0)
    for name in made.domain_names():
        assert torch.equal(made.domain(name).test.x, both.domain(name).test.x)


@pytest.mark.parametrize(
    ("shifts", "said"),
    [
        (("blur-2", "noise"), "let all shifts name their severity, as blur-2, or none"),
        (("blur-3",), "unknown shift 'blur-3'"),
        (("gamma-1",), "shift 'gamma' belongs to part 'validation'"),
        (("blur-1", "blur-1"), "names a thing twice"),
    ],
)
def test_named_severities_are_checked(shifts: tuple[str, ...], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(said)):
        DigitsShiftConfig(shifts=shifts)
