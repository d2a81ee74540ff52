"""Checks of what a method says about itself, before it runs."""

from __future__ import annotations

import re
import typing
from typing import Any

import pydantic

from bench import registry
from bench.conformance.base import CheckFailed, check
from bench.conformance.method_fixture import MethodFixture
from bench.contracts import method as contract
from bench.contracts.settings import bounds, choices
from bench.errors import BenchError
from bench.study.applicability import unsupported

_LEGAL: dict[str, tuple[str, ...] | None] = {
    "family": contract.FAMILIES,
    "provenance": typing.get_args(contract.Provenance),
    "tasks": None,
    "shifts": typing.get_args(contract.Shift),
    "protocols": typing.get_args(contract.Protocol),
    "needs": typing.get_args(contract.Need),
    "preload": None,
}
_MAY_BE_EMPTY = ("needs", "preload")


@check
def declared(subject: MethodFixture) -> str:
    """Says in literals what it is, in its docstring what it does, and what it was taken from."""
    method = subject.method_class
    for name, legal in _LEGAL.items():
        value = getattr(method, name)
        _require_legal(name, value, legal)
        read = subject.entry.facts.get(name, getattr(contract.Method, name))
        if read != value:
            raise CheckFailed(
                f"{name} is {value!r}, but the source text says {read!r}: write it as a literal in "
                "the class body, which 'bench list' reads without importing"
            )
    if not (method.__doc__ or "").strip():
        raise CheckFailed("the class has no docstring: say in its first line what the method does")
    year = re.search(r"\b(19|20)\d\d\b", method.paper)
    if not (year or re.match(r"none: \S", method.paper)):
        raise CheckFailed(
            f"paper is {method.paper!r}: write 'Authors: Title, Venue year', or 'none: ' and why"
        )
    if not method.equation.strip() or "\n" in method.equation:
        raise CheckFailed(
            f"equation is {method.equation!r}: write in one line what an update minimises or does"
        )
    return f"read {len(_LEGAL) + 3} declarations"


def _require_legal(name: str, value: Any, legal: tuple[str, ...] | None) -> None:
    values = (value,) if name in ("family", "provenance") else value
    if not isinstance(values, tuple) or not all(isinstance(v, str) for v in values):
        raise CheckFailed(f"{name} is {value!r}: write a tuple of texts, as ('a',)")
    if not values and name not in _MAY_BE_EMPTY:
        raise CheckFailed(f"{name} is empty: name at least one")
    strange = [v for v in values if legal is not None and v not in legal]
    if strange:
        raise CheckFailed(f"{name} has {strange[0]!r}: use {' or '.join(map(repr, legal or ()))}")


@check
def settings(subject: MethodFixture) -> str:
    """Every setting is bounded and explained, its default valid, its search within its bounds."""
    config = subject.method_class.Config
    if not issubclass(config, contract.MethodConfig):
        raise CheckFailed(f"Config is {config.__name__}: make it a subclass of bench.MethodConfig")
    try:
        config.model_validate(config().model_dump())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckFailed(f"the default of {where!r} is not allowed: {first['msg']}") from None
    documented = " ".join(base.__doc__ or "" for base in config.__mro__[:-1])
    for name, field in config.model_fields.items():
        low, high = bounds(field)
        of_another = typing.get_origin(field.annotation) is dict  # whose Config has the bounds
        bounded = of_another or choices(field.annotation) is not None
        if not bounded and (low is None or high is None):
            raise CheckFailed(
                f"setting {name!r} has no {'lower' if low is None else 'upper'} bound: "
                "give Field(..., ge=, le=), or a type of finitely many values (bool, Literal)"
            )
        if not re.search(rf"\b{name}\b", documented):
            raise CheckFailed(f"setting {name!r} is not in the docstring of {config.__name__}")
    searched = list(contract.search_space(config))
    for axis in searched:
        if isinstance(axis, contract.SearchedChoice):
            accepted = choices(config.model_fields[axis.name].annotation) or []
            if strange := [value for value in axis.values if value not in accepted]:
                raise CheckFailed(
                    f"setting {axis.name!r} is searched among {', '.join(axis.values)}, but "
                    f"{strange[0]!r} is not accepted: list it in the field's Literal"
                )
            continue
        low, high = bounds(config.model_fields[axis.name])
        assert low is not None
        assert high is not None
        if not low <= axis.low < axis.high <= high or (axis.log and axis.low <= 0):
            raise CheckFailed(
                f"setting {axis.name!r} is searched from {axis.low} to {axis.high}, which must be "
                f"an interval within its bounds {low} to {high}, above 0 if logarithmic"
            )
    return f"{len(config.model_fields)} settings, {len(searched)} of them searched"


@check
def skip(subject: MethodFixture) -> str:
    """Says in words why it does not apply, for every stream and protocol there is."""
    method = subject.method_class
    asked = 0
    for stream in registry.entries("stream"):
        for protocol in registry.entries("protocol"):
            for target_labels in (False, True):
                try:
                    cell = subject.cell(stream, protocol, target_labels)
                except BenchError:
                    continue  # another component that cannot be imported here
                asked += 1
                for reason in (method.skip(cell), unsupported(cell)):
                    if reason is not None and (not isinstance(reason, str) or not reason.strip()):
                        raise CheckFailed(
                            f"skip gave {reason!r} for {stream}, {protocol}: return None where "
                            "the method applies, else the reason in words"
                        )
    return f"asked for {asked} cells"
