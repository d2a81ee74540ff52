"""The folder that a suite's data and weights lie in, and what of them is not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.contracts.settings import HUB, local_paths
from bench.errors import BenchError
from bench.study.suite import ModelReference, Suite

Change = Callable[[str, str], str]
"""Of a path; the second argument says whose it is."""


def placed(suite: Suite, root: Path) -> Suite:
    """The suite with every relative path of its data and its models below ``root``.

    These are the ``root`` of each data set, and the settings of data sets and models that are a
    `LocalPath`. Absolute paths stay. Raises BenchError if ``root`` is no folder.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, never raises
        raise BenchError(f"--data-root {root}: is no folder; name the one with the data in it")
    root = root.absolute()
    return _with_paths(suite, lambda path, _: str(root / path))


def missing_paths(suite: Suite) -> list[str]:
    """A line for each folder or file that the suite names and that is not there."""
    found: dict[str, str] = {}

    def look(path: str, owner: str) -> str:
        if not os.path.exists(path):
            found.setdefault(path, f"{path}: {owner}")
        return path

    _with_paths(suite, look)
    return list(found.values())


def _with_paths(suite: Suite, change: Change) -> Suite:
    models = [_model(model, change) for model in suite.all_models()]
    stream = suite.stream.model_copy(update={"config": _data(suite.stream.config, change)})
    several = models if suite.models else []
    return suite.model_copy(update={"stream": stream, "model": models[0], "models": several})


def _model(model: ModelReference, change: Change) -> ModelReference:
    """A model with its paths changed: in its settings, and behind the colon of its name."""
    base, colon, value = model.name.partition(":")
    entry = registry.entries("model").get(base)
    if entry is None:
        return model  # the plan says so, with the names that are known
    paths = local_paths(registry.load("model", base).Config)
    owner = f"of model {base}"
    if colon and value and entry.facts.get("named_setting") in paths:
        base = f"{base}:{_changed(value, change, owner)}"
    else:
        base = model.name
    config = {
        key: _changed(each, change, owner) if key in paths else _models_in(each, change)
        for key, each in model.config.items()
    }
    return model.model_copy(update={"name": base, "config": config})


def _models_in(setting: Any, change: Change) -> Any:
    """A model's setting with the paths of the models that it lists changed."""
    if not isinstance(setting, list | tuple):
        return setting
    return [_listed_model(each, change) for each in setting]


def _listed_model(given: Any, change: Change) -> Any:
    """A model in a list, by its name or with its settings; what is none stays as it is."""
    if isinstance(given, str):
        return _model(ModelReference(name=given), change).name
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        return given
    own = {key: each for key, each in given.items() if key != "name"}
    made = _model(ModelReference(name=given["name"], config=own), change)
    return {"name": made.name, **made.config}


def _data(settings: Any, change: Change, outer: Path = Path()) -> Any:
    """Settings of a stream with the paths of the data sets in them changed, at any depth.

    ``outer``: the root of the data set that these are in, which theirs lie in.
    """
    if isinstance(settings, list | tuple):
        return [_data(each, change, outer) for each in settings]
    if not isinstance(settings, Mapping):
        return settings
    entry = registry.entries("dataset").get(str(settings.get("name")))
    if entry is None:
        return {key: _data(each, change, outer) for key, each in settings.items()}
    root = outer / str(settings.get("root") or ".")
    changed = {key: _data(each, change, root) for key, each in settings.items()}
    owner = f"of data set {entry.name}. {entry.summary}"
    for key in local_paths(registry.load("dataset", entry.name).Config):
        if key in changed:
            changed[key] = _changed(changed[key], change, owner)
    if settings.get("root"):
        changed["root"] = _changed(str(root), change, owner)
    return changed


def _changed(path: Any, change: Change, owner: str) -> Any:
    return change(path, owner) if isinstance(path, str) and path not in ("", HUB) else path
