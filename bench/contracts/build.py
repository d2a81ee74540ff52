"""From a component of a cell or a suite to the object that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bench import registry

if TYPE_CHECKING:
    from bench.contracts.model import SourceTraining


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


def source_training(model: str, changes: dict[str, Any]) -> SourceTraining:
    """How the registered ``model`` is trained on the source, with what a suite gives otherwise;
    pydantic.ValidationError for what is refused.
    """
    default: SourceTraining = registry.load("model", model).source_training
    return type(default).model_validate({**default.model_dump(), **changes})
