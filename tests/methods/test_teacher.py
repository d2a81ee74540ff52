"""Random views and the moving average of the teacher-student methods."""

from __future__ import annotations

import pytest
import torch

from bench.contracts.data import DomainView, Placed
from bench.errors import Unsupported
from bench.methods._teacher import RandomViews, TokenDropout, make_views, move_average


def images(channels=1, seed=0):
    return torch.rand(3, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def views(x, flip=False, strength=1.0, dense=False):
    source = DomainView("source", x, None, 4, torch.Generator())
    return make_views(source, dense, strength, flip, "cotta")


def test_move_average_goes_a_share_of_the_way():
    teacher, student = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -2.0])]
    move_average(teacher, student, 0.25)
    assert teacher[0].tolist() == [1.5, 1.0]
    assert student[0].tolist() == [3.0, -2.0]


def test_views_are_drawn_from_the_generator_alone():
    x = images()
    draw = views(x)
    one, two = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    torch.manual_seed(1)
    first = [draw(x, one) for _ in range(2)]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = [draw(x, two) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(*first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_views_keep_shape_type_and_range(channels, dtype):
    x = (4 * images(channels) - 1).to(dtype)
    seen = torch.stack([views(x)(x, torch.Generator().manual_seed(s)) for s in range(4)])
    assert seen.shape[1:] == x.shape
    assert seen.dtype == dtype
    assert x.min() <= seen.min() < seen.max() <= x.max()
    assert (seen - x).abs().float().mean() > 0.01


def test_strength_0_leaves_the_image_and_more_changes_it_more():
    x = images()
    changes = []
    for strength in (0.0, 0.3, 1.0):
        draw, generator = views(x, strength=strength), torch.Generator().manual_seed(0)
        seen = torch.stack([draw(x, generator) for _ in range(20)])
        changes.append(float((seen - x).abs().mean()))
    assert changes[0] < 1e-6
    assert changes[0] < changes[1] < changes[2]


def test_the_range_of_views_is_that_of_the_whole_source_on_a_gpu_too():
    x = images()
    x[2] *= 9.0  # behind the first batch
    source = DomainView("source", Placed(x, torch.device("cpu")), None, 2, torch.Generator())
    there, here = make_views(source, False, 1.0, False, "cotta"), views(x)
    assert (there.low, there.span) == (here.low, here.span)
    assert there.low + there.span == pytest.approx(float(x.max()))


def test_views_flip_only_where_asked():
    """A picture that is bright on the left stays so, unless flipped; half of the views are."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., :4] = 1.0
    for flip in (False, True):
        draw, generator = views(x, flip), torch.Generator().manual_seed(0)
        seen = [draw(x, generator) for _ in range(20)]
        flipped = sum(bool(v[..., :4].sum() < v[..., 4:].sum()) for v in seen)
        assert (5 <= flipped <= 15) if flip else flipped == 0


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (torch.zeros(4, 6), r"\(6,\)"),
        (torch.zeros(4, 8, dtype=torch.int64), r"\(8,\)"),
        (torch.zeros(4, 2, 8, 8), r"\(2, 8, 8\)"),
        ({"input_ids": torch.zeros(4, 8)}, "of input_ids"),
        (
            {
                "image": torch.zeros(4),
                "input_ids": torch.zeros(4),
                "attention_mask": torch.zeros(4),
            },
            "",
        ),
    ],
)
def test_what_is_no_image_is_refused_with_a_cure(x, shape):
    with pytest.raises(Unsupported, match=f"cotta needs .*here is {shape}.*such as tent"):
        views(x)


def test_views_for_labels_of_places_move_nothing():
    """A bright spot in the dark stays where it is, whatever the colors."""
    x = torch.zeros(1, 3, 9, 9)
    x[..., 4, 4] = 1.0
    draw, generator = views(x, dense=True), torch.Generator().manual_seed(0)
    assert isinstance(draw, RandomViews)
    for _ in range(20):
        seen = draw(x, generator).mean(dim=(0, 1))
        assert int(seen.argmax()) == 4 * 9 + 4
    moved = [views(x)(x, generator).mean(dim=(0, 1)).argmax() for _ in range(20)]
    assert any(int(place) != 4 * 9 + 4 for place in moved)


def test_views_of_texts_hide_a_tenth_of_the_tokens_but_never_the_first():
    x = {"input_ids": torch.ones(50, 40).long(), "attention_mask": torch.ones(50, 40).long()}
    x["attention_mask"][:, 30:] = 0
    draw = views(x)
    assert isinstance(draw, TokenDropout)
    view = draw(x, torch.Generator().manual_seed(0))
    mask = view["attention_mask"]
    assert mask.dtype == torch.int64
    assert (mask[:, 30:] == 0).all()
    assert (mask[:, 0] == 1).all()
    assert float(mask[:, 1:30].float().mean()) == pytest.approx(0.9, abs=0.02)
    assert torch.equal(view["input_ids"], x["input_ids"])
    assert (x["attention_mask"][:, :30] == 1).all()  # the batch itself is as it was
    assert torch.equal(draw(x, torch.Generator().manual_seed(0))["attention_mask"], mask)
    assert torch.equal(
        views(x, strength=0.0)(x, torch.Generator())["attention_mask"], x["attention_mask"]
    )
