"""Any image classifier of timm, by its name there."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench import BenchError, Block, FoundationModel, ModelConfig, register
from bench.errors import did_you_mean


class TimmConfig(ModelConfig):
    """``architecture``: timm's name of the network."""

    architecture: str = Field("resnet18")


@register("model", "timm")
class TimmModel(FoundationModel):
    """A network of timm by its ``architecture``, ResNet-18 by default, with random weights.

    It declares no blocks: LoRA, pruning and proxies do not apply to it.
    """

    Config = TimmConfig
    input_shape = (3, 224, 224)
    preload = ("timm",)

    @classmethod
    def build(cls, config: TimmConfig, input_shape: tuple[int, ...], classes: int) -> TimmModel:
        """The network for images of ``input_shape``; BenchError if timm does not know it."""
        import timm

        name = config.architecture
        if not timm.is_model(name):
            raise BenchError(
                f"timm: unknown architecture {name!r}: {did_you_mean(name, timm.list_models())}"
            )
        module: Any = timm.create_model(
            name, pretrained=False, num_classes=classes, in_chans=input_shape[0]
        )
        made = cls(module)
        made.head_name = module.default_cfg["classifier"]  # type: ignore[misc]
        return made

    def blocks(self) -> list[Block]:
        return []
