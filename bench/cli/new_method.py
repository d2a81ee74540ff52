"""``bench new-method``: a working method to change into one's own, with its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench import defaults
from bench.errors import BenchError

Family = StrEnum("Family", "uda cl")
"""What the method starts from."""


def command(
    name: Annotated[str, Argument(help="As my-idea: the file becomes my_idea.py.")],
    family: Annotated[
        Family, Option(help="uda: no labels; cl: supervised continual.")
    ] = Family.uda,
    folder: Annotated[Path, Option("--dir", help="Folder to write to.")] = Path("."),
) -> None:
    """Write a small method that keeps the contract, and its test; both pass as they are."""
    file, test = write("method", name, family, folder)
    suite, reference = defaults.NEW_METHOD_RUNS[family]
    typer.echo(
        f"next:\n  bench check {file}\n{INSTALL}  pytest {test}\n  bench run --suite {suite} "
        f"--plugin {file} --methods {reference},{file.stem.replace('_', '-')}"
    )


INSTALL = "" if importlib.util.find_spec("pytest") else "  pip install pytest\n"
"""The line of the next commands that installs pytest, where it is not there."""


def write(kind: str, name: str, template: str, folder: Path) -> tuple[Path, Path]:
    """Write a component and its test from the templates of this name; the two files."""
    module = _module(kind, name)
    if not folder.is_dir():
        raise BenchError(f"--dir {folder}: no such folder; create it or name another")
    file, test = folder / f"{module}.py", folder / f"test_{module}.py"
    for path in (file, test):
        if path.exists():
            raise BenchError(f"{path}: exists; delete it or choose another name")
    texts = {
        file: _filled(kind, f"{template}.py", module),
        test: _filled(kind, f"{template}_test.py", module),
    }
    for path, text in texts.items():
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise BenchError(f"{path}: {error.strerror}; name another folder with --dir") from error
        typer.echo(f"wrote {path}")
    return file, test


def _module(kind: str, name: str) -> str:
    """The module's name for a component's; BenchError if it cannot be one."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", module) or len(module) > 40:
        raise BenchError(
            f"{kind} name {name!r}: use small letters and numbers, words joined by '-', as my-idea"
        )
    from bench import registry

    registered = module.replace("_", "-")
    if registered in registry.entries(kind):
        raise BenchError(f"{kind} name {name!r}: there is a {kind} of this name; choose another")
    if keyword.iskeyword(module):
        raise BenchError(f"{kind} name {name!r}: {module} is a word of Python; choose another")
    if importlib.util.find_spec(module) is not None:
        raise BenchError(
            f"{kind} name {name!r}: {module}.py would hide Python's or a library's module "
            f"{module!r}; choose another"
        )
    if module.partition("_")[0] == "test":
        raise BenchError(f"{kind} name {name!r}: pytest would take {module}.py for a test")
    return module


def _filled(kind: str, template: str, module: str) -> str:
    from importlib.resources import files

    text = files("bench.cli.templates").joinpath(template).read_text(encoding="utf-8")
    camel = "".join(word.capitalize() for word in module.split("_"))
    if keyword.iskeyword(camel) or re.search(rf"\b{camel}(Config)?\b", text):
        raise BenchError(
            f"{kind} name {module!r}: the file has another meaning for {camel}; choose another"
        )
    replaced = {"my-idea": module.replace("_", "-"), "my_idea": module, "MyIdea": camel}
    return re.sub("|".join(replaced), lambda found: replaced[found[0]], text)
