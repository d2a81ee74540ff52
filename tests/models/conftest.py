"""Three small models on which surgery is tried: fused and separate q, k, v; images and texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.contracts.data import Inputs
from bench.contracts.model import FoundationModel
from bench.models.bert import Bert, BertConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.models.vit import ViTB16

CLASSES = 5


def digits_vit() -> tuple[FoundationModel, Inputs]:
    config = DigitsViTConfig(patch=8, width=32, depth=2, heads=4)
    return DigitsViT.build(config, (1, 16, 16), CLASSES), torch.rand(6, 1, 16, 16)


def timm_vit() -> tuple[FoundationModel, Inputs]:
    from timm.models.vision_transformer import VisionTransformer

    small = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=CLASSES
    )
    return ViTB16(small), torch.rand(6, 3, 16, 16)


def bert() -> tuple[FoundationModel, Inputs]:
    config = BertConfig(
        hidden_size=32, layers=2, heads=4, intermediate_size=64, vocabulary=40, positions=12
    )
    ids = torch.randint(40, (6, 9))
    mask = (torch.arange(9) < torch.tensor([9, 9, 7, 5, 9, 3]).unsqueeze(1)).long()
    return Bert.build(config, (9,), CLASSES), {"input_ids": ids, "attention_mask": mask}


MAKERS = {"digits-vit": digits_vit, "timm-vit": timm_vit, "bert": bert}


@pytest.fixture(params=list(MAKERS))
def made(request: Any) -> tuple[FoundationModel, Inputs]:
    """A model in evaluation mode, all its weights and biases of notable size, and 6 inputs."""
    torch.manual_seed(0)
    model, x = MAKERS[request.param]()
    with torch.no_grad():
        for layer in model.module.modules():
            if isinstance(layer, nn.Linear):  # fresh biases are zero and would hide mistakes
                layer.weight.normal_(std=layer.in_features**-0.5)
                layer.bias.normal_(std=0.3)
    model.train(False)
    return model, x
