"""Tuned settings: what a search found for each method, with where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.io.safe_yaml import read_yaml
from bench.records.cell import Cell, SettingsOrigin
from bench.records.protocol_facts import DEFAULT, protocol_facts
from bench.study.suite import Reference, Suite, validated

SUFFIX = ".tuned.yaml"


class TunedMethod(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The settings that a search found for one method (none: its defaults), and their score.

    ``score`` and ``default_score`` are in [0, 1], on the stream that was searched on; the defaults
    are one of the trials and have no score if they failed. ``failed`` counts trials without a
    result. ``code``: digest of the method's code when it was tuned. ``command``: by which, where
    it is not the file's.
    """

    settings: dict[str, Any]
    score: float
    default_score: float | None
    trials: int
    failed: int = 0
    code: str
    command: str | None = None


class Tuned(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """A tuned-settings file.

    ``validation``: settings of the stream that was searched on; ``oracle``: it was the test
    stream itself, with its labels. ``data``: digest of the stream's data. ``trials``: for each
    method, its defaults included; each on all ``seeds`` and draws of the source model. The settings
    serve all draws.
    """

    command: str
    version: str
    optuna: str
    suite: str
    stream: str = pydantic.Field(validation_alias=pydantic.AliasChoices("stream", "scenario"))
    validation: dict[str, Any]
    model: str
    protocol: dict[str, Any]
    device: str
    data: str
    trials: int
    seeds: list[int]
    source_draws: int = pydantic.Field(1, ge=1, exclude_if=lambda draws: draws == 1)
    oracle: bool = False
    methods: dict[str, TunedMethod]


def tuned_path(suite: Path, model: str = "") -> Path:
    """Where the tuned settings that a suite file uses by default stand: beside it.

    ``NAME.MODEL.tuned.yaml`` where there is such a file for a ``model``, else ``NAME.tuned.yaml``.
    """
    own = model_tuned_path(suite, model)
    return own if model and own.exists() else suite.with_name(suite.stem + SUFFIX)


def model_tuned_path(suite: Path, model: str) -> Path:
    """Where the settings that were tuned on one of several models of a suite stand."""
    name = re.sub(r"[^\w.-]", "-", model)
    return suite.with_name(f"{suite.stem}.{name}{SUFFIX}")


def read_tuned(path: Path) -> Tuned:
    """A tuned-settings file; BenchError that names the file, the key and the cure."""
    return validated(Tuned, read_yaml(path, "tuned settings"), f"tuned settings {path}")


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write a tuned-settings file, headed by how it was made."""
    kind = "ORACLE: selected with the labels of the test stream" if tuned.oracle else "validation"
    head = f"# Made by: {' '.join(tuned.command.split())}\n# Selected on: {kind}\n"
    fields = tuned.model_dump(mode="json")
    for method in fields["methods"].values():
        if method["command"] is None:
            del method["command"]
    content = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    try:
        write_atomically(path, (head + content).encode())
    except OSError as error:
        raise BenchError(
            f"tuned settings {path}: cannot be written: {error.strerror}; choose another --out"
        ) from error


def merged(old: Tuned, new: Tuned) -> Tuned:
    """``old`` with the methods that ``new`` tuned; raises BenchError if the budgets differ."""
    for name in Tuned.model_fields:
        before, now = getattr(old, name), getattr(new, name)
        if before != now and name not in ("command", "version", "optuna", "methods"):
            raise BenchError(
                f"has settings of other methods that were tuned with {name} {before!r}, and this "
                f"command has {now!r}: a file holds equal budgets; tune all of its methods, or "
                "name another file"
            )
    by = {"command": new.command}
    added = {name: found.model_copy(update=by) for name, found in new.methods.items()}
    return old.model_copy(update={"methods": {**old.methods, **added}})


def require_fit(suite: Suite, tuned: Tuned, model: str) -> None:
    """Raise BenchError if the settings were tuned for another stream, model or protocol.

    ``model``: its name in the suite's cells. Settings tuned under ``online`` also serve
    ``online-timed``: a method sees the same of both.
    """
    protocols = suite.protocol.get("name", DEFAULT), tuned.protocol.get("name", DEFAULT)
    as_seen = protocol_facts(suite.protocol).method_protocol
    for what, wanted, has in (
        ("stream", suite.stream.name, tuned.stream),
        ("model", model, tuned.model),
        ("protocol", *protocols),
    ):
        if wanted != has and not (what == "protocol" and has == as_seen):
            raise BenchError(
                f"tuned settings are for {what} {has!r}, this suite has {wanted!r}; tune for it "
                "('bench tune'), or use the methods' defaults with --untuned"
            )


def tuned_on(
    model: str, suite: Suite, tuned: Tuned | None, others: Iterable[Tuned]
) -> Tuned | None:
    """The settings for a model of a suite, ``model`` being its name in cells: those of its only
    model, which `require_fit` has looked at, else the ones that were tuned on it.
    """
    if not suite.models:
        return tuned
    known = [each for each in (tuned, *others) if each is not None and each.model == model]
    for each in known[:1]:
        require_fit(suite, each, model)
    return known[0] if known else None


def changed_since(tuned: Tuned, cells: Iterable[Cell], exactly: bool = False) -> list[str]:
    """Tuned methods whose code in the cells is another one than when they were tuned.

    ``exactly``: only where a cell has the settings that the file gives.
    """
    changed: dict[str, None] = {}
    for cell in cells:
        known = tuned.methods.get(cell.tuning_key)
        if known is None or known.code == cell.method.code:
            continue
        config = cell.method.config
        if not exactly or all(config.get(k) == v for k, v in known.settings.items()):
            changed[cell.tuning_key] = None
    return list(changed)


def stale_note(names: Iterable[str]) -> str:
    """What to tell a user of methods that changed since, in one line; empty if there are none."""
    listed, cure = ", ".join(names), "('bench tune' searches again)"
    return listed and f"code changed since the settings were tuned: {listed} {cure}"


def settle(
    reference: Reference, tuned: Tuned | None, variant: str = ""
) -> tuple[Reference, SettingsOrigin]:
    """The settings that a method of a suite gets, and where they come from.

    The tuned ones if there are any, but for those that the suite gives itself: those tuned on the
    ``variant`` of the model, else those tuned on the full one.
    """
    given = reference.config
    known = tuned.methods if tuned is not None else {}
    best = known.get(f"{reference.name}@{variant}", known.get(reference.name))
    if tuned is not None and best is not None and not (given and set(best.settings) <= set(given)):
        both = {**best.settings, **given}
        return Reference(name=reference.name, config=both), "oracle" if tuned.oracle else "tuned"
    return reference, "given" if given else "default"
