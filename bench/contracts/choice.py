"""A registered component with its settings, as a setting of another component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic

from bench import registry
from bench.contracts.settings import file_digests
from bench.errors import BenchError, did_you_mean, shown
from bench.io.digest import digest
from bench.registry.component_code import component_digest


class Choice(pydantic.BaseModel, extra="allow", frozen=True):
    """A component by its name, and its settings beside it: ``{name: NAME, SETTING: VALUE}``.

    ``kind`` of the component, and the ``title`` of the kind in messages. Settings that are left out
    are filled in.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    name: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return given
        return {"name": given["name"], **_settings(cls.kind, cls.title, given)}

    @property
    def config(self) -> dict[str, Any]:
        """Its settings."""
        return dict(self.model_extra or {})

    @property
    def component(self) -> Any:
        """What is registered under the name."""
        return registry.load(self.kind, self.name)

    def checked(self) -> Any:
        """Its settings as the component's ``Config``."""
        return self.component.Config.model_validate(self.config)

    def code(self) -> str:
        """Digest of the component's code."""
        return component_digest(registry.entry(self.kind, self.name))

    def content_digest(self) -> str:
        """Digest of what the component does: settings, with the contents of their files, and code.

        It takes the place of the settings in a cell's identity.
        """
        settings = {**self.config, **file_digests(self.checked())}
        return digest([self.name, settings, self.code()])


def _settings(kind: str, title: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a component, defaults included; ValueError names the first wrong one."""
    name, rest = given["name"], {k: v for k, v in given.items() if k != "name"}
    try:
        config = registry.load(kind, name).Config
    except BenchError as error:
        raise ValueError(str(error)) from error
    try:
        settings: dict[str, Any] = config.model_validate(rest).model_dump(mode="json")
    except pydantic.ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"]) or "(whole)"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown; {did_you_mean(key, config.model_fields)}"
        elif first["type"] == "missing":
            message = "missing; add it"
        else:
            message = f"{shown(first.get('input'))} is not allowed: {message}"
        raise ValueError(f"{title} {name!r}: key {key!r}: {message}") from error
    return settings
