"""The only components that the core names: what it uses where the user chooses none.

Everything else is found through the registry. This module imports nothing.
"""

from __future__ import annotations

from typing import Any

SUITE = "domain-shift"
"""The suite of a command that names none."""

DEVICE = "xavier-nx"
"""The modelled device of `bench check` and `bench docs`, and the example in help texts."""

STREAM = "digits-shift"
"""The embedded stream: no download, image classification."""

DATA_STREAM = "domain-shift"
"""The stream over any data set: what ``bench run --data`` runs."""

MODEL = "digits-vit"
"""The embedded model: 0.21 M parameters, trained on the stream's source within a minute."""

BATCH_NORM_MODEL = "digits-resnet"
"""The embedded network with BatchNorm, for methods with nothing to work on in ``MODEL``."""

SMALL_STREAM: dict[str, Any] = {"size": 16}
"""Settings of ``STREAM`` with which `bench check` tries methods in seconds."""

SMALL_MODEL: dict[str, Any] = {"width": 32, "depth": 2, "patch": 8}
"""Settings of ``MODEL`` for the same purpose."""

METHOD = "source-only"
"""The method that adapts nothing: inference alone."""

NEW_METHOD_RUNS = {"uda": (SUITE, METHOD), "cl": ("task-shift", "fine-tune")}
"""By family: a suite that a new method can run in, and a method to compare it with."""

IMAGE, TOKENS = (3, 224, 224), (64,)
"""Shapes of one sample in the reference workloads of calibration: an image, a text."""

WORKLOAD_MODELS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "vit-tiny": (MODEL, IMAGE, {"patch": 16, "width": 192, "depth": 12, "heads": 3}),
    "vit-b16": ("vit_base_patch16_224", IMAGE, {}),
    "bert-mini": (
        "bert-base",
        TOKENS,
        {"hidden_size": 256, "layers": 4, "heads": 4, "intermediate_size": 1024},
    ),
    "bert-base": ("bert-base", TOKENS, {}),
    "resnet18": ("timm", IMAGE, {"architecture": "resnet18"}),
    "mobilenetv2": ("timm", IMAGE, {"architecture": "mobilenetv2_100"}),
}
"""Models of `bench device check` by printed name: registered name, sample shape, settings.

The embedded model of this size is ViT-tiny/16.
"""

WORKLOAD_METHODS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "inference": (METHOD, {}, False),
    "full": ("fine-tune", {}, False),
    "bias-only": ("bias-only", {}, False),
    "last-half": ("", {}, False),
    "lora": ("lora", {}, True),
    "tent": ("tent", {}, False),
    "edgeta": (
        "edgeta",
        {
            "lora_steps": 0,
            "kb_steps": 1,
            "index_steps": 1,
            "checkpoints": 1,
            "max_residual": None,
        },
        True,
    ),
}
"""Methods of `bench device check` by printed name: registered name (empty: calibration's own
`LastHalf`), settings, and whether the model must declare its blocks.

EdgeTA's offline stage takes one iteration of each kind and demands no quality: only the shapes of
its steps matter.
"""

_OFFLINE = {"ratio": 2, "lora_steps": 1, "kb_steps": 1, "index_steps": 1, "checkpoints": 1}
_SPARSE = {"index_neurons": 1, "max_residual": None, "epochs": 1}

SURGERY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pruning": ("variant", "compressed", {"ratio": 2, "steps": 1}),
    "lora": ("method", "lora", {"rank": 1, "epochs": 1}),
    "proxy": ("method", "edgeta", {**_OFFLINE, **_SPARSE}),
    "low-rank": ("method", "edgeta", {**_OFFLINE, **_SPARSE, "attention": True}),
}
"""What `bench check --model` tries of surgery, by what it does: kind, name and settings of a
component that does it to a model.
"""
