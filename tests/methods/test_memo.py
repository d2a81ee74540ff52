"""MEMO: its views against Pillow's operations, and predictions that stand each for itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bench.contracts.stream import Split
from bench.contracts.task import make_task
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.errors import Unsupported
from bench.methods import _augmix as augmix
from bench.methods.memo import Memo, MemoConfig, marginal_entropy
from bench.run.evaluator import Evaluator
from bench.run.window import Window
from bench.testing import TinyModel
from bench.testing.parts import TinyNet

SIDE = 8


def images(n: int, seed: int = 3, side: int = SIDE) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, side, side), generator=draw) / 255


def prepared(view, seed: int = 7, **settings) -> Memo:
    torch.manual_seed(0)
    model = TinyModel(TinyNet(SIDE * SIDE, 8, 3))
    method = Memo(MemoConfig(**{"views": 6, "learning_rate": 0.1, **settings}))
    torch.manual_seed(seed)
    method.prepare(model, view(images(6, 9)))
    return method


@torch.no_grad()
def predicted(method, x):
    return method.predict(x)


# --- views -----------------------------------------------------------------


@pytest.mark.parametrize("motion", augmix.MOTIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_motions_are_those_of_pillow(motion, sign):
    x = images(1, side=24)
    pixels = Image.fromarray(x[0, 0].numpy())
    level = 0.27
    kind = np.array([augmix.OPERATIONS.index(motion)])
    how = augmix._motions(kind, np.array([level]), np.array([sign]), 24, 24)
    found = augmix.moved(x, how, augmix.GREY)[0, 0].numpy()
    if motion == "rotate":
        theirs = pixels.rotate(sign * int(30 * level), Image.Resampling.BILINEAR)
    else:
        size = int(8 * level) if motion.startswith("translate") else 0.3 * level
        map_ = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        place = {"shear x": 1, "translate x": 2, "shear y": 3, "translate y": 5}[motion]
        map_[place] = sign * size
        how_theirs = Image.Transform.AFFINE, map_, Image.Resampling.BILINEAR
        theirs = pixels.transform((24, 24), *how_theirs)
    inside = slice(8, 16)  # whatever fills the border
    np.testing.assert_allclose(found[inside, inside], np.array(theirs)[inside, inside], atol=1e-5)
    assert not np.allclose(found, x[0, 0].numpy(), atol=1e-3)


def test_outside_of_a_moved_image_is_grey():
    how = augmix._motions(np.array([3]), np.array([0.5]), np.array([-1.0]), 24, 24)
    found = augmix.moved(images(1, side=24), how, augmix.GREY)
    torch.testing.assert_close(found[0, 0, :, :4], torch.full((24, 4), 128 / 255))


@pytest.mark.parametrize("name", augmix.OPERATIONS[len(augmix.MOTIONS) :])
def test_changes_of_values_are_those_of_pillow(name):
    x = images(2)
    x[1] = (255 * x[1] * 0.3).round() / 255
    level = np.array([0.35, 0.8])
    found = (255 * augmix._recoloured(name, x, level)).round()[:, 0].numpy()
    for i, of_image in enumerate(x[:, 0]):
        pixels = Image.fromarray((255 * of_image).round().to(torch.uint8).numpy())
        theirs = {
            "autocontrast": lambda p, _: ImageOps.autocontrast(p),
            "equalize": lambda p, _: ImageOps.equalize(p),
            "solarize": lambda p, by: ImageOps.solarize(p, 256 - int(256 * by)),
            "posterize": lambda p, by: ImageOps.posterize(p, 4 - int(4 * by)),
        }[name](pixels, level[i])
        np.testing.assert_allclose(found[i], np.array(theirs), atol=1)


def test_a_padded_crop_is_the_image_moved_by_up_to_an_eighth(monkeypatch):
    x = images(1, side=16)
    views = augmix.AugMix(0.0, 1.0, "padded", False, 1)
    monkeypatch.setattr(views, "_chains", lambda crops, _: crops)
    found = views(x, 200, np.random.default_rng(0))
    wide = torch.nn.functional.pad(x[0, 0], (2, 2, 2, 2))
    crops = torch.stack([wide[i : i + 16, j : j + 16] for i in range(5) for j in range(5)])
    nearest = (found - crops).abs().amax(dim=(2, 3))
    assert nearest.shape == (200, 25)
    assert nearest.amin(dim=1).max() < 1e-6  # mixing a crop with itself gives the crop
    assert len(nearest.argmin(dim=1).unique()) == 25


@pytest.mark.parametrize("crop", ["padded", "resized"])
@pytest.mark.parametrize("flip", [False, True])
def test_views_differ_and_stay_in_the_range_of_the_source(crop, flip):
    x = images(1, side=16).repeat(1, 3, 1, 1) * 4 - 1
    views = augmix.AugMix(-1.0, 3.0, crop, flip, 3)
    found = views(x, 40, np.random.default_rng(0))
    again = views(x, 40, np.random.default_rng(0))
    assert found.shape == (40, 3, 16, 16)
    assert torch.equal(found, again)
    assert found.min() > -1.001
    assert found.max() < 3.001
    assert len({row.numpy().tobytes() for row in found}) == 40


# --- predictions -----------------------------------------------------------


def test_the_loss_is_the_entropy_of_the_mean():
    logits = torch.randn(5, 4, dtype=torch.float64)
    mean = logits.softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(marginal_entropy(logits), -(mean * mean.log()).sum())


def test_a_prediction_depends_on_its_point_and_the_seed_alone(view):
    method, x = prepared(view), images(5)
    state = torch.get_rng_state()
    together = predicted(method, x)
    apart = torch.cat([predicted(method, each) for each in x.split(2)])
    assert torch.equal(together, apart)
    assert torch.equal(predicted(method, x.flip(0)).flip(0), together)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(predicted(prepared(view, seed=8), x), together)


def test_each_point_starts_from_the_source_model_which_stays(view):
    method, x = prepared(view), images(5)
    before = copy.deepcopy(method.model.module.state_dict())
    found = predicted(method, x)
    source = method.model(x)
    assert not torch.allclose(found, source, atol=1e-3)
    after = method.model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in method.model.module.parameters())


def test_the_step_lowers_the_entropy_of_the_point(view):
    x = images(20)
    certain = predicted(prepared(view, views=32), x).softmax(dim=1)
    source = prepared(view).model(x).detach().softmax(dim=1)
    entropies = [-(p * p.log()).sum(dim=1).mean() for p in (certain, source)]
    assert entropies[0] < entropies[1] - 0.01


def test_its_cost_is_that_of_predictions_and_all_of_it_is_counted(view, adapt):
    method, x = prepared(view, views=16), images(4)
    tracker = adapt(method, view(images(10)))
    assert tracker.flops == 0
    traces = {}
    for name, predict in (("memo", method.predict), ("source", method.model)):
        seen = make_tracker([load_device("xavier-nx")], method.stored)
        with torch.no_grad():
            seen.inference(4, lambda predict=predict: predict(x))
        assert not seen.uncounted
        traces[name] = seen.devices[0].inference
    # 16 views forward, and backward for the weights of two layers and one layer's inputs.
    assert traces["memo"].time_s > 16 * traces["source"].time_s


def test_it_predicts_inside_a_window_of_an_online_stream(view):
    method, x = prepared(view), images(4)
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    evaluator = Evaluator(method, tracker, 2, make_task("classification"), 3)
    score = evaluator.online_score()
    with Window(tracker, 1.0, None, lambda: method.model.module):
        evaluator.score_batch(Split(x, torch.zeros(4, dtype=torch.int64)), "a batch", score)
    assert 0 <= score.value("a batch") <= 1


def test_samples_that_are_no_images_are_refused(model, data, view):
    with pytest.raises(Unsupported, match="memo needs AugMix views of images"):
        Memo(MemoConfig()).prepare(model, view(data(4)[0]))
