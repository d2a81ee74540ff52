"""Read YAML files that others wrote: safe, without duplicate keys, errors in one line."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError

LARGEST = 5_000_000
"""Bytes of a file; the parser needs about a second for 200 kB."""
DEEPEST = 40
"""Levels of nesting."""
MOST_NODES = 1_000_000
"""Values of a file, each use of an alias counted with all that it stands for."""


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that gives a key twice, where YAML would silently take the last."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            problem = ""
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be plain text"
            elif key.value in seen:
                problem = f"key {key.value!r} is given twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _measure(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Values and levels of a node with aliases resolved; YAMLError beyond the limits."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise _refused(node, "an alias contains itself")
        return found
    known[id(node)] = None
    values, levels = 1, 1
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                more, below = _measure(part, known)
                values, levels = values + more, max(levels, below + 1)
    if levels > DEEPEST:
        raise _refused(node, f"more than {DEEPEST} levels of nesting")
    if values > MOST_NODES:
        raise _refused(node, f"aliases stand for more than {MOST_NODES} values")
    known[id(node)] = values, levels
    return values, levels


def _refused(node: Any, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """The content of a text: a profile is read for each run, and parsing it takes the longest."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; BenchError naming ``what`` it is, the file and the line.

    Files above 5 MB, what is no regular file (reading a pipe could wait for ever), deep nesting
    and aliases that stand for very much are refused.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BenchError(f"{what} {path}: is no regular file; check the path")
        if path.exists() and path.stat().st_size > LARGEST:
            raise BenchError(f"{what} {path}: is larger than {LARGEST / 1e6:g} MB; check the path")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise BenchError(f"{what} {path}: not UTF-8 text; save it as UTF-8") from error
        told = getattr(error, "strerror", None) or error
        raise BenchError(f"{what} {path}: {told}; check the path") from error
    where = f"{what} {path}:"
    try:
        return copy.deepcopy(_parsed(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BenchError(f"{where}{line} not valid YAML: {problem}") from error
    except RecursionError as error:
        raise BenchError(
            f"{where} not valid YAML: more than {DEEPEST} levels of nesting"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # What the parser raises for values that only look like a date, a number or another type.
        raise BenchError(f"{where} not valid YAML: a value cannot be read: {error}") from error
