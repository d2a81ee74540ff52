"""What a component may be called, and of which types its declarations are."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from typing import Any

from bench.errors import BenchError

LONGEST_NAME = 100
_NAME = re.compile(r"\w[\w.+-]*")

TEXT, TEXTS, FLAG = "a text, as 'a'", "a tuple of texts, as ('a',)", "True or False"
_IS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    TEXTS: lambda value: (
        isinstance(value, tuple | list) and all(isinstance(each, str) for each in value)
    ),
    FLAG: lambda value: isinstance(value, bool),
}

DECLARED = {
    "method": {
        "family": TEXT, "tasks": TEXTS, "shifts": TEXTS, "protocols": TEXTS, "needs": TEXTS,
        "provenance": TEXT, "paper": TEXT, "equation": TEXT, "preload": TEXTS,
        "makes_own_model": FLAG, "uses_device_clock": FLAG,
    },
    "model": {"task": TEXT, "preload": TEXTS, "head_name": TEXT, "named_setting": TEXT},
    "variant": {"tasks": TEXTS},
    "dataset": {"task": TEXT},
    "stream": {"task": TEXT, "preload": TEXTS, "supervised": FLAG, "shifts": TEXTS},
    "task": {"dense": FLAG, "causal": FLAG, "preload": TEXTS},
    "protocol": {"timed": FLAG, "method_protocol": TEXT},
    "executor": {"enforces": TEXTS, "in_process": FLAG},
}  # fmt: skip
"""Attributes of a component's class by kind, and of which type each is."""

MISTAKEN = {
    ("method", "task"): "tasks = ('a',)",
    ("variant", "task"): "tasks = ('a',)",
    ("model", "tasks"): "task = 'a'",
    ("dataset", "tasks"): "task = 'a'",
    ("stream", "tasks"): "task = 'a'",
}
"""Attributes that would be read by nobody, by kind, and what is meant."""


def require_name(kind: str, name: str, where: str) -> None:
    """Raise BenchError if a component cannot be called so in commands, tables and files."""
    if _NAME.fullmatch(name) and len(name) <= LONGEST_NAME:
        return
    raise BenchError(
        f"{where}: {shortened(name)} is no name of a {kind}: write 1 to {LONGEST_NAME} letters, "
        "numerals, '_', '-', '.' or '+', beginning with a letter or a numeral"
    )


def require_declared(kind: str, name: str, values: dict[str, Any], where: str) -> None:
    """Raise BenchError if a declaration has a wrong type, or one of a like name is meant."""
    for attribute, value in values.items():
        wanted = DECLARED.get(kind, {}).get(attribute)
        if (kind, attribute) in MISTAKEN and not isinstance(value, int | float):
            cure = f"nobody reads it; write {MISTAKEN[kind, attribute]}"
        elif wanted is not None and not _IS[wanted](value):
            cure = f"write {wanted}"
        else:
            continue
        raise BenchError(f"{where}: {kind} {name!r}: {attribute} is {shortened(value)}: {cure}")


def shortened(value: Any) -> str:
    """A value as an error message quotes it; of large and deep ones the beginning."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)
