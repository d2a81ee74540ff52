"""What teacher-student methods share: a moving-average teacher and random views of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench import DomainView, FoundationModel, Method, Unsupported
from bench.contracts.data import Inputs, LazyInputs, Placed, on_device, take

from ._losses import at_least_float32


def move_average(teacher: Sequence[Tensor], student: Sequence[Tensor], rate: float) -> None:
    """Move each of the teacher's weights by ``rate`` of the way to the student's, in place."""
    get_ema_multi_avg_fn(1 - rate)(list(teacher), list(student), 0)


class TeacherMethod(Method):
    """A method whose student or teacher sees random views, and whose teacher predicts."""

    preload = ("torchvision.transforms.v2",)
    config: Any

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        c = self.config
        self.views = make_views(
            source, model.rules.dense, c.view_strength, c.horizontal_flip, self.registered_name
        )
        self.generator = torch.Generator().manual_seed(torch.initial_seed())  # part of the state
        self.model, self.teacher = model, model.clone()
        self.teacher.freeze_except([])

    def predict(self, x: Inputs) -> Tensor:
        self.teacher.train(False)
        return self.teacher(x)


def make_views(
    source: DomainView, dense: bool, strength: float, flip: bool, method: str
) -> RandomViews | TokenDropout:
    """Random views of the source's kind of samples: of images, or of texts.

    ``dense``: labels belong to places of a sample, which stay where they are; ``strength``: share
    of the full ranges; ``flip``: flip half of the views of images horizontally. Raises Unsupported,
    naming ``method``, for other inputs.
    """
    x = source.x
    if isinstance(x, Placed):  # what lies in memory is seen whole, as without a GPU
        x = x.inputs
    if isinstance(x, LazyInputs):
        x = take(x, torch.arange(min(source.batch_size, len(x))))
    if isinstance(x, dict) and x.keys() >= {"input_ids", "attention_mask"} and "image" not in x:
        return TokenDropout(strength)
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 4) or (
        x.shape[1] not in (1, 3)
    ):
        shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else "of " + ", ".join(x)
        raise Unsupported(
            f"{method} needs views of images of shape (1 or 3, height, width) or of texts, and a "
            f"sample here is {shape}; use a method without augmentations, such as tent or eata"
        )
    return RandomViews(x, strength, flip, moving=not dense)


DROPPED = 0.1
"""Share of tokens that views of texts do without, at strength 1."""


class TokenDropout(nn.Module):
    """Random views of texts: tokens but the first are hidden from attention. Our choice."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.share = min(DROPPED * strength, 1.0)

    @torch.no_grad()
    def forward(self, x: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """One view of a batch."""
        mask = x["attention_mask"]
        kept = torch.rand(mask.shape, generator=generator) >= self.share
        kept[:, 0] = True
        return {**x, "attention_mask": mask * on_device(kept, mask.device).to(mask.dtype)}


class Noise(nn.Module):
    """Adds normal noise of standard deviation ``sigma``, and limits images to [0, 1].

    It is drawn on the CPU, so that it is the same wherever the images are.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        """Images of any shape with noise."""
        drawn = torch.randn_like(torch.empty_like(images, device="cpu"))
        return (images + (0.0 + on_device(drawn, images.device) * self.sigma)).clamp(0, 1)


class RandomViews(nn.Module):
    """Random views of images: color, small affine motion, blur and noise, one draw for a batch.

    At strength 1 they are those of CoTTA's and RoTTA's code, but for the change of gamma, which is
    left out, and the horizontal flip, which changes what a digit means and is a switch. Images are
    brought to [0, 1] by the range of the source's inputs (of its first batch, where they are read
    from files) and back.

    ``x``: images of the source, (n, channels, height, width), 1 or 3 channels; ``strength``: share
    of the full ranges of color, motion, blur and noise; ``flip``: flip half of the views
    horizontally; ``moving``: whether things may move.
    """

    def __init__(self, x: Tensor, strength: float, flip: bool, moving: bool = True) -> None:
        from torchvision.transforms import v2

        super().__init__()
        height, width = x.shape[2:]
        self.low = float(x.min())
        self.span = float(x.max()) - self.low or 1.0
        color = v2.ColorJitter(0.4 * strength, 0.3 * strength, 0.5 * strength, 0.06 * strength)
        blur = v2.GaussianBlur(5, (0.001, max(0.5 * strength, 0.001)))
        noise = Noise(0.005 * strength)
        if not moving:
            self.steps = v2.Compose([color, blur, noise])
            return
        steps = [
            color,
            v2.Pad([width // 2, height // 2], padding_mode="edge"),
            v2.RandomAffine(
                15 * strength,
                translate=(strength / 16, strength / 16),  # of the padded image
                scale=(1 - 0.1 * strength, 1 + 0.1 * strength),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            blur,
            v2.CenterCrop([height, width]),
            noise,
        ]
        self.steps = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)

    @torch.no_grad()
    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One view of a batch, of the shape and type of ``x``."""
        unit = ((at_least_float32(x) - self.low) / self.span).clamp(0, 1)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.set_rng_state(generator.get_state())
            view = self.steps(unit)
            generator.set_state(torch.get_rng_state())
        return (view * self.span + self.low).to(x.dtype)
