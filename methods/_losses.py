"""Losses, parameter choices and the training step that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import FoundationModel, Unsupported


def at_least_float32(values: Tensor) -> Tensor:
    """The same values in at least single precision, as losses of bfloat16 models need."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of each row's softmax, shape (n,): -sum_c p_c log p_c."""
    logits = at_least_float32(logits)
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer down the gradient of ``loss``, a scalar."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_only(model: FoundationModel, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Freeze the model but for these parameters, which are given back; Unsupported if none."""
    if not parameters:
        raise Unsupported(
            f"{type(model).__name__} has no parameter for this method to train: its head "
            f"{model.head_name!r} has none, or all of them; check head_name"
        )
    model.freeze_except(parameters)
    return parameters


def affine_parameters(model: FoundationModel) -> list[nn.Parameter]:
    """Scale and shift of every normalization layer; Unsupported if the model has none."""
    parameters = model.normalization_parameters()
    if not parameters:
        raise Unsupported(
            f"{type(model).__name__} has no normalization layer whose scale and shift could be "
            "trained; use a method that trains other weights, such as shot"
        )
    return parameters
