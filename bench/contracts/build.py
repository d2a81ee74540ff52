"""From a component of a cell or a suite to the object that it names."""

from __future__ import annotations

from typing import Any, Protocol

from bench import registry


class Named(Protocol):
    """A registered component's name and settings: a cell's `Component`, a suite's `Reference`."""

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> dict[str, Any]: ...


def config_of(kind: str, component: Named) -> Any:
    """The settings as its ``Config``; pydantic.ValidationError for those that are refused."""
    return registry.load(kind, component.name).Config.model_validate(component.config)


def build(kind: str, component: Named, *arguments: Any) -> Any:
    """The component, constructed from its settings and further ``arguments``."""
    return registry.load(kind, component.name)(config_of(kind, component), *arguments)
