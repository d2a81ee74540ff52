"""Weights of a model from a local file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bench import BenchError


def load_weights(module: nn.Module, path: str | Path, head_name: str) -> None:
    """Load a state dict that ``torch.save`` wrote, without executing what the file holds.

    A head that is missing from the file or has another number of classes keeps its fresh weights.

    Raises BenchError if the file cannot be read or does not fit the rest of the model.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise BenchError(
            f"weights {path} cannot be read: {error}; give a state dict saved by torch.save"
        ) from error
    if not (isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values())):
        raise BenchError(f"weights {path} are not a state dict; save module.state_dict()")
    own = module.state_dict()
    head = {name for name in own if name.startswith(f"{head_name}.")}
    if any(name not in state or state[name].shape != own[name].shape for name in head):
        state = {k: v for k, v in state.items() if k not in head} | {n: own[n] for n in head}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise BenchError(
            f"weights {path} do not fit the model; give those of this architecture: {error}"
        ) from error
