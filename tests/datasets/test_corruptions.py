"""What each shift does to an image, by number and independently of its code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.datasets.corruptions import SEVERITIES, VALIDATION_SEVERITIES, apply_shift

ALL = SEVERITIES | VALIDATION_SEVERITIES
BOTH = pytest.mark.parametrize("severity", [1, 2])
GREY = 0.5


def shift(name: str, images: Tensor, severity: int, seed: int = 0) -> Tensor:
    return apply_shift(name, images, severity, torch.Generator().manual_seed(seed))


def grey(n: int = 1, size: int = 32, value: float = GREY) -> Tensor:
    return torch.full((n, 1, size, size), value)


def dot(row: int, column: int, size: int = 33) -> Tensor:
    """One bright 3 x 3 spot around a pixel; the middle of a 33 x 33 image is (16, 16)."""
    image = torch.zeros(1, 1, size, size)
    image[..., row - 1 : row + 2, column - 1 : column + 2] = 1.0
    return image


def centre(image: Tensor) -> tuple[float, float]:
    """The (row, column) of an image's centre of mass."""
    mass = image[0, 0] / image.sum()
    size = torch.arange(image.shape[-1], dtype=torch.float32)
    return float((mass.sum(1) * size).sum()), float((mass.sum(0) * size).sum())


def test_there_are_at_least_twelve_shifts_each_with_a_unit_and_two_severities() -> None:
    assert len(SEVERITIES) >= 12
    for unit, one, two in ALL.values():
        assert unit
        assert one != two


def test_what_methods_are_tuned_on_is_none_of_what_is_reported() -> None:
    assert len(VALIDATION_SEVERITIES) == 6
    assert not set(VALIDATION_SEVERITIES) & set(SEVERITIES)


@BOTH
@pytest.mark.parametrize("name", ALL)
def test_a_shift_keeps_shape_type_and_range_and_does_not_touch_its_input(
    name: str, severity: int
) -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 1, 32, 32)
    kept = images.clone()
    out = shift(name, images, severity)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    assert not torch.equal(out, images)
    assert torch.equal(images, kept)


@BOTH
@pytest.mark.parametrize("name", ALL)
def test_all_randomness_comes_from_the_generator(name: str, severity: int) -> None:
    images = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = shift(name, images, severity)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(shift(name, images, severity), first)
    assert torch.equal(torch.get_rng_state(), before)
    random = {
        "noise", "occlusion", "translation", "salt-pepper", "stripes", "speckle", "illumination",
    }  # fmt: skip
    assert torch.equal(shift(name, images, severity, seed=5), first) == (name not in random)


@pytest.mark.parametrize("severity", [0, 3, -1])
def test_a_severity_that_does_not_exist_is_refused(severity: int) -> None:
    with pytest.raises(ValueError, match=f"severity {severity} of shift 'noise': use 1 or 2"):
        shift("noise", grey(), severity)


def test_a_shift_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        shift("snow", grey(), 1)


def test_brightness_adds_its_amount_and_stops_at_white() -> None:
    assert torch.allclose(shift("brightness", grey(), 1), grey(value=GREY + 0.12), atol=1e-7)
    assert torch.allclose(shift("brightness", grey(), 2), grey(value=GREY + 0.22), atol=1e-7)
    assert torch.equal(shift("brightness", grey(value=0.9), 2), grey(value=1.0))


@pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (2, 0.2)])
def test_inversion_goes_its_share_of_the_way_to_the_negative(severity: int, share: float) -> None:
    for value in (0.0, 0.25, 0.5, 1.0):
        expected = value + share * ((1.0 - value) - value)
        out = shift("inversion", grey(value=value), severity)
        assert torch.allclose(out, grey(value=expected), atol=1e-6)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.6), (2, 0.4)])
def test_contrast_scales_the_distance_to_each_images_own_mean(severity: int, factor: float) -> None:
    images = torch.cat([grey(value=0.2), grey(value=0.6)])
    images[:, :, :16] += 0.2  # means 0.3 and 0.7
    out = shift("contrast", images, severity)
    for image, mean in zip(out, (0.3, 0.7), strict=True):
        assert torch.allclose(image[:, :16], torch.tensor(mean + factor * 0.1), atol=1e-6)
        assert torch.allclose(image[:, 16:], torch.tensor(mean - factor * 0.1), atol=1e-6)


@pytest.mark.parametrize(("severity", "deviation", "rel"), [(1, 0.15, 0.02), (2, 0.25, 0.08)])
def test_noise_has_its_standard_deviation_and_no_mean(
    severity: int, deviation: float, rel: float
) -> None:
    """On mid-grey few values meet the limits, so clamping takes little (2 sigma: 6 percent)."""
    out = shift("noise", grey(100), severity)
    assert float(out.std()) == pytest.approx(deviation, rel=rel)
    assert float(out.mean()) == pytest.approx(GREY, abs=0.005)
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize(("severity", "sigma", "radius"), [(1, 2.5, 5), (2, 3.5, 7)])
def test_blur_is_a_gaussian_of_its_deviation_cut_at_two(
    severity: int, sigma: float, radius: int
) -> None:
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 16] = 1.0
    line = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    kernel = torch.tensor([[a * b for a in line] for b in line]) / sum(line) ** 2
    expected = torch.zeros(1, 1, 33, 33)
    expected[0, 0, 16 - radius : 17 + radius, 16 - radius : 17 + radius] = kernel
    assert torch.allclose(shift("blur", image, severity), expected, atol=1e-6)
    assert torch.allclose(shift("blur", grey(), severity), grey(), atol=1e-5)


@pytest.mark.parametrize(("severity", "side"), [(1, 9), (2, 12)])
def test_occlusion_erases_exactly_one_square(severity: int, side: int) -> None:
    out = shift("occlusion", grey(200, value=1.0), severity)
    corners = set()
    for image in out[:, 0]:
        erased = image == 0.0
        assert int(erased.sum()) == side**2
        rows, columns = erased.any(1).nonzero()[:, 0], erased.any(0).nonzero()[:, 0]
        assert len(rows) == len(columns) == side
        assert int(rows[-1] - rows[0]) == int(columns[-1] - columns[0]) == side - 1
        assert bool((image[~erased] == 1.0).all())
        corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 100
    tops = {top for top, _ in corners}
    assert min(tops) == 0
    assert max(tops) == 32 - side


@pytest.mark.parametrize(("severity", "pixels"), [(1, 2), (2, 3)])
def test_translation_moves_by_exactly_its_pixels_along_a_diagonal(
    severity: int, pixels: int
) -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 1, 12, 12) * 0.9 + 0.1
    seen = set()
    for before, after in zip(
        images[:, 0], shift("translation", images, severity)[:, 0], strict=True
    ):
        for down in (-pixels, pixels):
            for right in (-pixels, pixels):
                expected = torch.zeros(12, 12)
                for r in range(12):
                    for c in range(12):
                        if 0 <= r - down < 12 and 0 <= c - right < 12:
                            expected[r, c] = before[r - down, c - right]
                if torch.equal(after, expected):
                    seen.add((down, right))
                    break
            else:
                continue
            break
        else:
            pytest.fail("an image was not moved along a diagonal")
    assert len(seen) == 4


@pytest.mark.parametrize(("severity", "degrees"), [(1, 15.0), (2, 25.0)])
def test_rotation_turns_anticlockwise_about_the_middle_by_its_degrees(
    severity: int, degrees: float
) -> None:
    row, column = centre(shift("rotation", dot(16, 28), severity))
    angle = math.radians(degrees)
    assert row == pytest.approx(16 - 12 * math.sin(angle), abs=0.1)  # rows run downward
    assert column == pytest.approx(16 + 12 * math.cos(angle), abs=0.1)
    assert centre(shift("rotation", dot(16, 16), severity)) == pytest.approx((16, 16), abs=0.01)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.85), (2, 0.7)])
def test_scale_moves_everything_toward_the_middle_by_its_factor(
    severity: int, factor: float
) -> None:
    for row, column in ((16, 28), (6, 22)):
        moved = centre(shift("scale", dot(row, column), severity))
        expected = (16 + factor * (row - 16), 16 + factor * (column - 16))
        assert moved == pytest.approx(expected, abs=0.15)
    area = float(shift("scale", grey(size=33, value=1.0), severity).sum()) / 33**2
    assert area == pytest.approx(factor**2, rel=0.03)


@pytest.mark.parametrize(("severity", "degrees"), [(1, 15.0), (2, 25.0)])
def test_shear_moves_rows_sideways_by_the_tangent_of_its_degrees(
    severity: int, degrees: float
) -> None:
    up = centre(shift("shear", dot(6, 16), severity))
    down = centre(shift("shear", dot(26, 16), severity))
    assert up[0] == pytest.approx(6, abs=0.1)
    assert down[0] == pytest.approx(26, abs=0.1)
    distance = 10 * math.tan(math.radians(degrees))
    assert abs(up[1] - 16) == pytest.approx(distance, abs=0.15)
    assert up[1] - 16 == pytest.approx(16 - down[1], abs=0.05)  # opposite ways
    assert centre(shift("shear", dot(16, 20), severity)) == pytest.approx((16, 20), abs=0.05)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.06), (2, 0.12)])
def test_salt_and_pepper_set_their_share_half_black_half_white(severity: int, share: float) -> None:
    out = shift("salt-pepper", grey(100), severity)
    black, white = (out == 0.0).float().mean(), (out == 1.0).float().mean()
    assert float(black) == pytest.approx(share / 2, rel=0.05)
    assert float(white) == pytest.approx(share / 2, rel=0.05)
    assert bool(((out == 0.0) | (out == 1.0) | (out == GREY)).all())


@pytest.mark.parametrize(("severity", "amplitude"), [(1, 0.15), (2, 0.3)])
def test_stripes_add_an_upright_grating_of_their_amplitude(severity: int, amplitude: float) -> None:
    out = shift("stripes", grey(20), severity) - GREY
    assert torch.allclose(out, out[:, :, :1].expand_as(out))  # constant down each column
    line = out[:, 0, 0]
    assert torch.allclose(line[:, 8:], line[:, :-8], atol=1e-5)  # period 8
    assert torch.allclose(line[:, 4:], -line[:, :-4], atol=1e-5)
    # four points of a period give the amplitude: sin^2 + cos^2 = 1
    assert torch.allclose(line[:, 0] ** 2 + line[:, 2] ** 2, torch.tensor(amplitude**2), atol=1e-5)
    assert len({round(float(v), 4) for v in line[:, 0]}) > 10  # a phase for each image


@pytest.mark.parametrize(("severity", "exponent"), [(1, 2.5), (2, 4.0)])
def test_gamma_raises_every_grey_value_to_its_exponent(severity: int, exponent: float) -> None:
    for value in (0.0, 0.3, 0.8, 1.0):
        out = shift("gamma", grey(value=value), severity)
        assert torch.allclose(out, grey(value=math.pow(value, exponent)), atol=1e-6)


@pytest.mark.parametrize(("severity", "blocks"), [(1, 6), (2, 4)])
def test_pixelate_gives_each_block_its_mean_grey(severity: int, blocks: int) -> None:
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    side = 24 // blocks
    expected = torch.zeros(24, 24)
    for top in range(0, 24, side):
        for left in range(0, 24, side):
            block = image[0, 0, top : top + side, left : left + side]
            expected[top : top + side, left : left + side] = block.sum() / side**2
    assert torch.allclose(shift("pixelate", image, severity)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 2.0), (2, 4.0)])
def test_speckle_multiplies_by_a_gaussian_of_mean_one(severity: int, deviation: float) -> None:
    """By its quantiles above zero, where nothing is cut off, on a grey too dark to meet white."""
    assert torch.equal(shift("speckle", grey(value=0.0), severity), grey(value=0.0))
    factor = shift("speckle", grey(200, value=0.02), severity).flatten() / 0.02
    ordered = factor.sort().values
    for z, below in ((0.0, 0.5), (1.0, 0.84134), (2.0, 0.97725)):
        quantile = float(ordered[int(below * len(ordered))])
        assert quantile == pytest.approx(1.0 + z * deviation, abs=0.02 * deviation)


@pytest.mark.parametrize(("severity", "side"), [(1, 4), (2, 6)])
def test_dilation_gives_each_pixel_the_brightest_of_a_square_around_it(
    severity: int, side: int
) -> None:
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    out = shift("dilation", image, severity)[0, 0]
    for row in range(12):
        for column in range(12):
            near = [
                float(image[0, 0, r, c])
                for r in range(row - side // 2 + 1, row + side // 2 + 1)
                for c in range(column - side // 2 + 1, column + side // 2 + 1)
                if 0 <= r < 12 and 0 <= c < 12
            ]
            assert float(out[row, column]) == max(near)
    wide = shift("dilation", dot(16, 16), severity)
    assert float(wide.sum()) == (side + 2) ** 2


@pytest.mark.parametrize(("severity", "share"), [(1, 0.3), (2, 0.42)])
def test_perspective_narrows_the_upper_edge_by_its_share(severity: int, share: float) -> None:
    """A trapezium by its area, and points by the plane seen under that angle."""
    white = shift("perspective", grey(size=65, value=1.0), severity)[0, 0]
    assert float(white.sum()) / 65**2 == pytest.approx(1.0 - share / 2, rel=0.03)
    assert float(white[-1].sum()) == pytest.approx(65, abs=1.5)
    assert float(white[1].sum()) == pytest.approx(65 * (1.0 - share), abs=3)
    for row, column in ((8, 24), (16, 6), (26, 16)):
        # Height v above the lower edge (1: the upper one) is seen at distance 1 + v d, where
        # the narrowing at the upper edge gives d; width and height shrink with it.
        d = 1.0 / (1.0 - share) - 1.0
        v = (32 - row) / 32
        seen = v * (1.0 + d) / (1.0 + v * d)
        expected = (32 - 32 * seen, 16 + (column - 16) / (1.0 + v * d))
        assert centre(shift("perspective", dot(row, column), severity)) == pytest.approx(
            expected, abs=0.3
        )


@pytest.mark.parametrize(("severity", "amplitude"), [(1, 0.3), (2, 0.6)])
def test_illumination_adds_a_plane_of_its_slope_in_any_direction(
    severity: int, amplitude: float
) -> None:
    middle = (shift("illumination", grey(20, size=33), severity) - GREY)[:, 0, 8:25, 8:25]
    down, across = middle[:, 1:] - middle[:, :-1], middle[:, :, 1:] - middle[:, :, :-1]
    for slope in (down, across):
        assert torch.allclose(slope, slope[:, :1, :1].expand_as(slope), atol=1e-5)
    steepest = (down[:, 0, 0] ** 2 + across[:, 0, 0] ** 2).sqrt()
    assert torch.allclose(steepest, torch.tensor(amplitude / 16), atol=1e-5)
    assert float(middle[:, 8, 8].abs().max()) < 1e-6  # the middle stays
    quadrants = {
        (bool(d > 0), bool(a > 0)) for d, a in zip(down[:, 0, 0], across[:, 0, 0], strict=True)
    }
    assert len(quadrants) == 4
