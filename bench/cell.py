"""A cell: one method on one model, scenario, device, protocol and seed; its identity."""

from __future__ import annotations

from typing import Any

import pydantic

from bench.digest import digest

CORE_VERSION = 1
"""Raised when a change to the core changes results, so that old records are not taken for new."""


class Component(pydantic.BaseModel, extra="forbid", frozen=True, ser_json_inf_nan="constants"):
    """A registered component with its settings and the digest of its code."""

    name: str
    config: dict[str, Any] = {}
    code: str


class Cell(pydantic.BaseModel, extra="forbid", frozen=True, ser_json_inf_nan="constants"):
    """Everything that a result depends on, and nothing else.

    ``target_labels``: the method sees labels of an unsupervised scenario, as a marked reference.
    """

    method: Component
    model: Component
    scenario: Component
    data: str
    device: str
    device_digest: str
    protocol: dict[str, Any]
    seed: int
    target_labels: bool = False
    core: int = CORE_VERSION

    @property
    def identity(self) -> str:
        """20 hexadecimal digits that name the cell's record."""
        return digest(self.model_dump(mode="json"))[:20]

    @property
    def course(self) -> str:
        """Identity without the device: cells of one course may be trained once."""
        return digest(self.model_dump(mode="json", exclude={"device", "device_digest"}))[:20]

    @property
    def title(self) -> str:
        """A short name for people, unique in a suite up to settings."""
        return f"{self.method.name} · {self.model.name} · {self.device} · seed {self.seed}"
