"""Weights of a model from a local file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError

FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth")
"""Files of a folder that may hold its weights; the first pattern that finds some is taken."""
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the state dict of a checkpoint."""


def load_weights(module: nn.Module, path: str | Path, head_name: str) -> None:
    """Load a state dict from a file or folder into ``module``, see `read_state`.

    A head that is missing or has another number of classes keeps its fresh weights, which one
    line says. Raises BenchError if the file cannot be read or does not fit the rest of the model.
    """
    state = with_fresh_head(read_state(path), module, head_name, path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise not_fitting(path, error) from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of ``torch.save``, or in a folder with one such.

    Nothing that the file holds is executed. A checkpoint that keeps the state dict under
    ``state_dict`` or ``model`` is taken for it. BenchError if it cannot be read.
    """
    file = _file(Path(path))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        state: Any = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # both raise many kinds for a damaged file
        raise BenchError(
            f"weights {path} cannot be read: {error}; give a file of safetensors, or a state dict "
            "saved by torch.save"
        ) from error
    if isinstance(state, dict):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise BenchError(f"weights {path} are not a state dict; save module.state_dict()")
    return state


def with_fresh_head(
    state: dict[str, Tensor], module: nn.Module, head_name: str, path: str | Path
) -> dict[str, Tensor]:
    """``state`` with the module's own head, if its own is missing or of other classes."""
    own = module.state_dict()
    head = [name for name in own if name.startswith(f"{head_name}.")]
    if all(name in state and state[name].shape == own[name].shape for name in head):
        return state
    print(f"weights {path}: no head of this many classes; {head_name!r} has fresh weights")
    return {k: v for k, v in state.items() if k not in head} | {n: own[n] for n in head}


def not_fitting(path: str | Path, error: Exception) -> BenchError:
    """What to say of weights whose keys or shapes are those of another model."""
    return BenchError(
        f"weights {path} do not fit the model; give those of this architecture: {error}"
    )


def _file(path: Path) -> Path:
    """The file itself, or the one in a folder that holds weights."""
    if not path.is_dir():
        return path
    for pattern in FILES:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:3])
            raise BenchError(
                f"weights {path}: {len(found)} files may hold them ({names}); name one of them"
            )
    raise BenchError(f"weights {path}: no file {', '.join(FILES)} in it; name the file")
