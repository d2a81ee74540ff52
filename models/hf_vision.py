"""Images in networks of Hugging Face's transformers, alone or with a question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from bench import BenchError, register
from bench.contracts.data import Inputs

from .hf_text import logits_of, require_positions
from .hugging_face import EagerConfig, HuggingFaceConfig, HuggingFaceModel

PROCESSOR = "preprocessor_config.json"
HALVES = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of the channels red, green and blue."""


class ImageModel(HuggingFaceModel):
    """A network of transformers for images, which it resizes and normalizes.

    To the size of its config.json, where that names one; by the mean and deviation of the folder's
    preprocessor_config.json, or by ``normalization`` without one.
    """

    input_shape = (3, 224, 224)
    normalization: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = HALVES

    @classmethod
    def build(
        cls, config: HuggingFaceConfig, input_shape: tuple[int, ...], classes: int
    ) -> ImageModel:
        """The network for images of ``input_shape``, (3, height, width)."""
        if len(input_shape) != 3 or input_shape[0] != 3:
            raise BenchError(
                f"{cls.__name__}: samples of shape {tuple(input_shape)} are no images (3, height, "
                "width); choose a stream of color images"
            )
        made: ImageModel = cls.made(config, classes)
        for name, values in _normalization(config.folder, cls.normalization).items():
            # Buffers, so that they move with the network; they belong to no checkpoint.
            tensor = torch.tensor(values).view(-1, 1, 1)
            made.module.register_buffer(name, tensor, persistent=False)
        return made

    @property
    def image_size(self) -> tuple[int, ...] | None:
        """Height and width that the network is given; None: those of the images."""
        side = getattr(cast(Any, self.module).config, "image_size", None)
        return (side, side) if isinstance(side, int) else side

    def prepared(self, images: Tensor) -> Tensor:
        """Images (n, 3, height, width) in [0, 1] as the network takes them: size, range, type."""
        network = cast(Any, self.module)
        size = self.image_size
        if size is not None and tuple(images.shape[-2:]) != tuple(size):
            images = interpolate(
                images, tuple(size), mode="bilinear", align_corners=False, antialias=True
            )
        normalized = (images - network.image_mean) / network.image_std
        return cast(Tensor, normalized.to(network.dtype))

    def __call__(self, x: Inputs) -> Tensor:
        """Logits of images, (n, classes), or (n, classes, h, w) of their places."""
        return cast(Tensor, self.module(pixel_values=self.prepared(cast(Tensor, x))).logits)


def _normalization(folder: str, usual: tuple[tuple[float, ...], ...]) -> dict[str, Any]:
    """Mean and deviation of the channels; BenchError if the folder's cannot be read."""
    file = Path(folder) / PROCESSOR
    if not folder or not file.is_file():
        return dict(zip(("image_mean", "image_std"), usual, strict=True))
    try:
        said = json.loads(file.read_text())
        found = {name: tuple(map(float, said[name])) for name in ("image_mean", "image_std")}
        assert all(len(values) == 3 for values in found.values())
        assert all(value > 0 for value in found["image_std"])
    except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
        raise BenchError(
            f"{file}: has no image_mean and image_std of three channels; save the processor of the "
            "model there, or remove the file"
        ) from error
    return found


@register("model", "hf-images")
class ImageClassifier(ImageModel):
    """An image classifier of transformers, as ViT or DeiT, written as hf-images:FOLDER.

    Networks with the layers of ViT declare their blocks; to others LoRA, pruning and proxies do
    not apply.
    """

    named_setting = "folder"
    default = "ViTConfig"
    conformance_config = {
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8,
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "AutoModelForImageClassification"


@register("model", "hf-segmenter")
class Segmenter(ImageModel):
    """A network of transformers for semantic segmentation, as SegFormer: hf-segmenter:FOLDER.

    Its outputs are smaller than the images, and the task enlarges them. No family declares blocks
    here: LoRA, pruning and proxies do not apply.
    """

    task = "segmentation"
    named_setting = "folder"
    default = "SegformerConfig"
    conformance_config = {
        "changes": {
            "hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 16, "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "AutoModelForSemanticSegmentation"


@register("model", "hf-vqa")
class QuestionAnswerer(ImageModel):
    """A network of transformers that answers questions on images, as ViLT: hf-vqa:FOLDER.

    Inputs are a dict of ``image``, ``input_ids`` and ``attention_mask``, the words numbered by the
    tokenizer of the same folder.
    """

    task = "visual-question-answering"
    Config = EagerConfig
    named_setting = "folder"
    default = "ViltConfig"
    conformance_config = {
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8,
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "AutoModelForVisualQuestionAnswering"

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, answers); BenchError for texts longer than the network's positions."""
        given = {name: x[name] for name in ("input_ids", "attention_mask")}
        require_positions(self.module, given["input_ids"].shape[1])
        with _SamePatches():
            return logits_of(self.module, given, pixel_values=self.prepared(x["image"]))


class _SamePatches(TorchFunctionMode):
    """ViLT draws the order of patches, on the CPU: here from a seed, the same in every pass.

    No generator of the run is touched, and dropout draws from them as ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own = {"generator": self.generator} if func is torch.multinomial else {}
        return func(*args, **(kwargs or {}), **own)
