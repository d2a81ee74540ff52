"""What teacher-student methods share: a moving-average teacher and random views of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench import DomainView, FoundationModel, Method, Unsupported
from bench.contracts.data import Inputs, LazyInputs, on_device, take

from ._losses import at_least_float32


def move_average(teacher: Sequence[Tensor], student: Sequence[Tensor], rate: float) -> None:
    """Move each of the teacher's weights by ``rate`` of the way to the student's, in place."""
    get_ema_multi_avg_fn(1 - rate)(list(teacher), list(student), 0)


class TeacherMethod(Method):
    """A method whose student sees random views of images, and whose teacher predicts."""

    preload = ("torchvision.transforms.v2",)
    config: Any

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        c = self.config
        self.views = RandomViews(source, c.view_strength, c.horizontal_flip, self.registered_name)
        self.generator = torch.Generator().manual_seed(torch.initial_seed())  # part of the state
        self.model, self.teacher = model, model.clone()
        self.teacher.freeze_except([])

    def predict(self, x: Inputs) -> Tensor:
        self.teacher.train(False)
        return self.teacher(x)


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

    ``source``: inputs of shape (n, channels, height, width), 1 or 3 channels; ``strength``: share
    of the full ranges of color, motion, blur and noise; ``flip``: flip half of the views
    horizontally. Raises Unsupported, naming ``method``, if the inputs are no such images.
    """

    def __init__(self, source: DomainView, strength: float, flip: bool, method: str) -> None:
        from torchvision.transforms import v2

        super().__init__()
        x = source.x
        if isinstance(x, LazyInputs):
            x = take(x, torch.arange(min(source.batch_size, len(x))))
        if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 4) or (
            x.shape[1] not in (1, 3)
        ):
            shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else type(x).__name__
            raise Unsupported(
                f"{method} needs views of images of shape (1 or 3, height, width), and a sample "
                f"here is {shape}; use a method without augmentations, such as tent or eata"
            )
        height, width = x.shape[2:]
        self.low = float(x.min())
        self.span = float(x.max()) - self.low or 1.0
        steps = [
            v2.ColorJitter(0.4 * strength, 0.3 * strength, 0.5 * strength, 0.06 * strength),
            v2.Pad([width // 2, height // 2], padding_mode="edge"),
            v2.RandomAffine(
                15 * strength,
                translate=(strength / 16, strength / 16),  # of the padded image
                scale=(1 - 0.1 * strength, 1 + 0.1 * strength),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.GaussianBlur(5, (0.001, max(0.5 * strength, 0.001))),
            v2.CenterCrop([height, width]),
            Noise(0.005 * strength),
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
