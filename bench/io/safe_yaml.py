"""Read YAML files that others wrote: safe, without duplicate keys, errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that gives a key twice, where YAML would silently take the last."""

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


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; BenchError naming ``what`` it is, the file and the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise BenchError(f"{what} {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{what} {path}: not UTF-8 text; save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BenchError(f"{what} {path}:{line} not valid YAML: {problem}") from error
