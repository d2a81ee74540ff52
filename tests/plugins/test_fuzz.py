"""Whatever a plugin declares, a command ends in a table or in one line; hypothesis writes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench import registry
from bench.cli import app
from bench.errors import BenchError
from bench.registry.declarations import DECLARED, MISTAKEN

TOP = """
import os, sys
from pathlib import Path
from typing import Any, Literal, Optional
from pydantic import DirectoryPath, Field, FilePath, field_validator
from bench import Method, MethodConfig, ModelConfig, StreamConfig, register, tunable
from bench.testing import TinyModel, TinyStream
deep = []
for _ in range(3000):
    deep = [deep]
"""
BASES = {"method": "Method", "model": "TinyModel", "stream": "TinyStream"}
FIELDS = (
    "a: float = 0.5", "a: float = 'x'", "a: float = float('nan')", "a: int = tunable(1, 0, 5)",
    "a: int = tunable(1, 5, 0)", "a: float = tunable(0, 0, 1, log=True)", "a: object = object()",
    "a: Any = deep", "a: list = Field(default_factory=lambda: 1 / 0)", "a: 'Nowhere' = 1",
    "a: Path = Path('/')", "a: Optional[FilePath] = None", "a: FilePath", "a: str = 'x' * 5000",
    "a: Literal['x', 1, None] = 1", "a: dict[int, bytes] = {1: b'x'}", "a: set[str] = {'b', 'c'}",
    "a = 1", "_a: int = 1", "model_config = 5", "model_config = {'arbitrary_types_allowed': True}",
    "a: complex = 1j", "a: type = int", "name: str = 'x'", "code: str = 'x'", "ratio: int = 1",
    "def model_dump(self, **_): return {'a': 1}", "def model_dump(self, **_): 1 / 0",
    "@field_validator('a', check_fields=False)\n    def v(cls, value): sys.exit(0)",
    "@field_validator('a', check_fields=False)\n    def v(cls, value): raise KeyError(value)",
    "def __init__(self, **k): raise RuntimeError('no\\nsuch')", "pass",
)  # fmt: skip
VALUES = (
    "5", "None", "'x'", "()", "('classification',)", "['a', 'b']", "{'a'}", "{'a': [1]}", "(1, 2)",
    "True", "1.5", "b'x'", "'x' * 300", "object()", "deep", "len", "(None,)", "('a' 'b')",
    "{[]: 1}", "property(lambda self: 1 / 0)", "'\\x1b[31m'", "[" * 90 + "]" * 90,
)  # fmt: skip
CONFIGS = ("class C({base}Config):\n    {fields}\n", "C = 5\n", "C = dict\n", "C = None\n",
           "class C(dict):\n    {fields}\n")  # fmt: skip
EXTRAS = (", config={'a': 1}", ", config=5", ", tasks=5", ", summary=5", ", Config=5", ", **5")
TAILS = (
    "sys.exit(0)", "sys.exit('bye')", "raise KeyboardInterrupt", "1 / 0",
    "print('hello')", "os.chdir('/')", "sys.stdout = None", "del Thing", "Thing = 5",
    "raise GeneratorExit", "import nowhere.at.all", "sys.path.insert(0, '/nowhere')",
)  # fmt: skip
ODD_NAMES = ["", "a,b", "x" * 256, "a b", "../a", "tent", "a\nb", "Ω", "a@b", "-a", "\x1b[31m"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
ATTRIBUTES = sorted(
    {name for known in DECLARED.values() for name in known}
    | {name for _, name in MISTAKEN}
    | {"Config", "registered_name", "conformance_config", "skip", "input_shape", "data_digest"}
)
number = itertools.count()


@st.composite
def plugins(draw: st.DrawFn) -> tuple[str, str, str]:
    """Kind, name and source of a plugin."""
    plain = draw(st.integers(0, 7))  # of eight plugins five fail in their classes alone
    kind = draw(st.sampled_from(sorted(BASES)))
    name = draw(st.sampled_from(ODD_NAMES)) if plain == 0 else "thing"
    fields = "\n    ".join(draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2)))
    config = draw(st.sampled_from(CONFIGS)) if draw(st.booleans()) else CONFIGS[0]
    given = draw(st.dictionaries(st.sampled_from(ATTRIBUTES), st.sampled_from(VALUES), max_size=2))
    body = {"Config": "C", **given} if draw(st.booleans()) else given
    extra = draw(st.sampled_from(EXTRAS)) if plain == 1 else ""
    tail = draw(st.sampled_from(TAILS)) if plain == 2 else ""
    source = TOP + config.format(base=kind.capitalize(), fields=fields)
    source += (
        f"@register({kind!r}, {name!r}{extra})\nclass Thing({BASES[kind]}):\n    '''It is.'''\n"
    )
    source += "".join(f"    {each} = {value}\n" for each, value in body.items())
    return kind, name, f"{source}{tail}\n"


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    with registry.isolated():
        yield


def require_one_line(*arguments: str) -> None:
    with registry.isolated():
        done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, BenchError):
        text = str(done.exception)
        assert "\n" not in text
        assert len(text) < 3000, text
    else:
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code in (0, 1, 2), done.output


def try_commands(folder: Path, made: tuple[str, str, str], config: object) -> None:
    """List, plan and check with the plugin; in a new file each, as a process would see it."""
    kind, name, source = made
    file = folder / f"plugin{next(number)}.py"
    file.write_text(source, encoding="utf-8", errors="replace")
    chosen = {"method": "source-only", "model": "digits-vit", "stream": "digits-shift"}
    component = {"name": name, **config} if isinstance(config, dict) else name
    suite = {
        "name": "fuzz",
        "description": "made by hypothesis",
        "methods": [component if kind == "method" else chosen["method"]],
        "model": component if kind == "model" else chosen["model"],
        "stream": component if kind == "stream" else chosen["stream"],
        "seeds": "0..1",
        "devices": "xavier-nx",
        "plugins": file.name,
    }
    path = folder / f"{file.stem}.yaml"
    path.write_text(json.dumps(suite))
    require_one_line("list", f"{kind}s", "--plugin", str(file))  # devices and suites take long
    require_one_line("plan", "--suite", str(path), "--store", str(folder / "store"))
    if kind == "method":
        only = [f"--only={check}" for check in ("declared", "settings")]
        require_one_line("check", str(file), *only)


FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=25, **FUZZ)
@given(plugins(), JSON)
def test_a_command_with_an_odd_plugin_ends_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[str, str, str], config: object
) -> None:
    try_commands(tmp_path_factory.mktemp("fuzz"), made, config)


@pytest.mark.slow
@settings(max_examples=500, **FUZZ)
@given(plugins(), JSON)
def test_a_command_with_any_of_many_odd_plugins_ends_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[str, str, str], config: object
) -> None:
    try_commands(tmp_path_factory.mktemp("fuzz"), made, config)
