"""From a component of a cell or a suite to the object that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bench import registry
from bench.io.digest import digest
from bench.registry.component_code import component_digest

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


def component_code(kind: str, component: Named) -> str:
    """Digest of a component's code, and of its task's where that is no task of this project."""
    entry = registry.entry(kind, component.name)
    code = component_digest(entry)
    if kind not in ("stream", "model"):
        return code
    loaded = registry.load(kind, component.name)
    task = loaded.task_of(config_of(kind, component)) if kind == "stream" else loaded.task
    found = registry.entries("task").get(task)
    if found is None or found.origin == "bench":
        return code
    return digest([code, component_digest(found)])


def source_training(model: str, changes: dict[str, Any]) -> SourceTraining:
    """How the registered ``model`` is trained on the source, with what a suite gives otherwise;
    pydantic.ValidationError for what is refused.
    """
    default: SourceTraining = registry.load("model", model).source_training
    return type(default).model_validate({**default.model_dump(), **changes})
