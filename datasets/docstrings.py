"""Docstrings of installed packages, to be summed up: real English that needs no download."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bench import BenchError, register
from bench.io.digest import digest
from bench.io.folder_files import FilesDigest, files_below

from ._derived import derived, derived_key
from ._texts import pieces
from .question_answer import DialogueConfig, QuestionAnswer

MODULES = {
    "matplotlib": "matplotlib", "networkx": "networkx", "numpy": "numpy", "pandas": "pandas",
    "scikit-learn": "sklearn", "scipy": "scipy",
}  # fmt: skip
Package = Literal["matplotlib", "networkx", "numpy", "pandas", "scikit-learn", "scipy"]
SHORTEST, LONGEST = 3, 24
"""Words and signs of a summary."""

_RULE = re.compile(r"^\W*$")
"""A line without words, as those below headings."""
_CODE = re.compile(r"^(>>>|\.\.\. |\.\. )")
"""A line of an example, or of the markup of reStructuredText."""
_INNER_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("names a package twice; give different ones")
    return value


class DocstringsConfig(DialogueConfig):
    """Which packages, and how words become numbers.

    root : the installed packages themselves
    packages : each is a domain
    tokens : of text and summary together; the text takes half of them at most
    vocabulary : a ``tokenizer.json``; without one the most frequent words of all domains have
        numbers of their own
    words : how many do
    hashes : has no meaning here
    """

    root: Literal["installed"] = "installed"
    packages: Annotated[tuple[Package, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        "scipy", "scikit-learn", "numpy", "matplotlib", "networkx",
    )  # fmt: skip


@register("dataset", "docstrings")
class Docstrings(QuestionAnswer):
    """Docstrings of installed Python packages, to be summed up in a sentence: text generation.

    By PEP 257 the first paragraph of a docstring sums it up. It is the answer, where it is one
    sentence of 3 to 24 words and something follows. The question is what follows, without examples
    and rules, cut to a quarter of the tokens and more, and then the name of the function or class.
    A domain is a package; equal texts come once. What packages say changes with their versions,
    and the data's identity with it: runs are of the same data where `constraints.txt` is followed.
    """

    Config = DocstringsConfig

    def __init__(self, config: Any) -> None:
        self.config = config
        self.input_shape = (config.tokens,)
        self._roots = {name: _folder(name) for name in config.packages}
        self.root = next(iter(self._roots.values()))

    def domains(self) -> list[str]:
        return list(self._roots)

    def pairs(self, domain: str, name: str) -> list[tuple[str, str]]:
        read = self.config.tokens // 2 - 2  # beside the signs of a question and of an answer
        found = []
        for title, summary, body in self._found[domain]:
            names = [word.lower() for word in _INNER_WORDS.findall(title)]
            text = [*pieces(body)[: max(read - len(names) - 1, 0)], ":", *names]
            found.append((" ".join(text), summary))
        return found

    def files(self) -> Iterator[Path]:
        return (file for root in self._roots.values() for file in _sources(root))

    def digest(self) -> FilesDigest:
        """Of what is read of the packages: their code may change."""
        return FilesDigest(digest(self._found), "contents")

    @cached_property
    def _found(self) -> dict[str, list[tuple[str, str, str]]]:
        """Name, summary and the rest of each docstring, by package."""
        made = {}
        for package, root in self._roots.items():
            key = derived_key(type(self), root, _sources(root), package)

            def extract(root: Path = root) -> Any:
                return {"found": [list(each) for each in _docstrings(root)]}

            kept: Any = derived("docstrings", key, extract)
            made[package] = [tuple(each) for each in kept["found"]]
        return made


def _folder(package: str) -> Path:
    spec = find_spec(MODULES[package])
    if spec is None or spec.origin is None:
        raise BenchError(f"packages: {package} is not installed: pip install {package}")
    return Path(spec.origin).parent


def _sources(root: Path) -> Iterator[Path]:
    """The Python files of a package without its tests."""
    for file in files_below(root):
        if file.suffix == ".py" and not {"test", "tests"} & set(file.relative_to(root).parts):
            yield file


def _docstrings(root: Path) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for file in _sources(root):
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            raise BenchError(
                f"{file}: cannot be read as Python ({error}): install its package anew"
            ) from error
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            told = summed_up(ast.get_docstring(node) or "")
            if told and told not in seen:
                seen.add(told)
                yield (node.name, *told)


def summed_up(docstring: str) -> tuple[str, str] | None:
    """The first paragraph of a docstring and the words of the rest; None if one of them is not fit.

    Lines of examples and lines without words are left out of the rest.
    """
    first, _, rest = docstring.partition("\n\n")
    summary = " ".join(first.split())
    lines = (line.strip() for line in rest.splitlines())
    body = " ".join(" ".join(n for n in lines if not _RULE.match(n) and not _CODE.match(n)).split())
    fit = summary.endswith(".") and SHORTEST <= len(pieces(summary)) <= LONGEST
    return (summary, body) if fit and body else None
