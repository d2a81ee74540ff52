"""Docstrings as texts to be summed up: what is read of a package, and of which files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.datasets import docstrings
from bench.datasets.docstrings import DocstringsConfig, summed_up

MODULE = '''
"""A module's own docstring is left out.

It is long."""

class RunningMean:
    """Mean of the values that came so far.

    Parameters
    ----------
    window : how many count

    >>> RunningMean(3)
    """

    def add_value(self, x):
        """Take one more value in.

        Older ones are forgotten.
        """

    async def reset(self):
        """Forget.

        Too short to sum anything up: 2 words and signs.
        """

    def again(self):
        """Take one more value in.

        Older ones are forgotten.
        """

    def alone(self):
        """No more than this summary is here."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the place of numpy, and a cache of its own."""
    root = tmp_path / "packages" / "running_mean_package"
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "means.py").write_text(MODULE)
    (root / "tests" / "test_means.py").write_text(MODULE.replace("Mean of", "Median of"))
    monkeypatch.syspath_prepend(root.parent)
    monkeypatch.setitem(docstrings.MODULES, "numpy", root.name)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def build(package: Path) -> Callable[..., DataSet]:
    def make(**settings: object) -> DataSet:
        return load("dataset", "docstrings")(DocstringsConfig(packages=("numpy",), **settings))

    return make


def test_summaries_are_asked_for_by_the_text_and_the_name(build: Callable[..., DataSet]) -> None:
    data = build()
    assert (data.task, list(data.domains())) == ("generation", ["numpy"])
    assert data.pairs("numpy", "all") == [
        ("Parameters window : how many count : running mean",
         "Mean of the values that came so far."),
        ("Older ones are forgotten . : add value", "Take one more value in."),
    ]  # fmt: skip
    split = data.split("numpy", "all")
    x = take(split.x, torch.tensor([1]))
    asked = [data.class_names[i] for i in x["input_ids"][0][x["prompt_mask"][0].bool()]]
    assert asked == [
        "[question]", "older", "ones", "are", "forgotten", ".", ":", "add", "value", "[answer]",
    ]  # fmt: skip
    told = [data.class_names[i] for i in split.y[1].tolist() if i >= 0]
    assert told == ["take", "one", "more", "value", "in", ".", "[end]"]


def test_a_long_text_keeps_its_beginning_and_the_name(build: Callable[..., DataSet]) -> None:
    data = build(tokens=16)  # 6 words beside the two signs
    assert data.pairs("numpy", "all")[0][0] == "Parameters window : : running mean"
    split = data.split("numpy", "all")
    x = take(split.x, torch.tensor([0]))
    assert int(x["prompt_mask"].sum()) == 8


def test_its_identity_is_what_is_read(build: Callable[..., DataSet], package: Path) -> None:
    first = build().digest()
    assert first.of == "contents"
    (package / "means.py").write_text(MODULE + "\nX = 1  # code that is no docstring\n")
    assert build().digest() == first
    (package / "means.py").write_text(MODULE.replace("Older ones", "Old ones"))
    assert build().digest() != first
    assert list(build().check()) == []


def test_what_cannot_be_read_says_why(
    build: Callable[..., DataSet], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "broken.py").write_text("def (")
    with pytest.raises(BenchError, match=r"broken\.py: cannot be read as Python .* install its"):
        build().pairs("numpy", "all")
    monkeypatch.setitem(docstrings.MODULES, "numpy", "no_such_package_at_all")
    with pytest.raises(BenchError, match="packages: numpy is not installed: pip install numpy"):
        build()
    with pytest.raises(pydantic.ValidationError, match="names a package twice"):
        DocstringsConfig(packages=("numpy", "numpy"))


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Sum\nof two.\n\nBoth count.", ("Sum of two.", "Both count.")),
        ("Sum of two\n\nBoth count.", None),  # no sentence
        ("Sum of two.\n\n-----\n>>> 1\n1 + 1", ("Sum of two.", "1 + 1")),
        ("Sum of two.\n\n-----\n>>> 1", None),
        ("Sum of two.", None),
        ("One.\n\nMore.", None),
        ("a " * 30 + ".\n\nMore.", None),
        ("", None),
    ],
)
def test_what_sums_up(docstring: str, expected: tuple[str, str] | None) -> None:
    assert summed_up(docstring) == expected


def test_an_installed_package_has_hundreds() -> None:
    data = load("dataset", "docstrings")(DocstringsConfig(packages=("networkx",)))
    pairs = data.pairs("networkx", "all")
    assert len(pairs) > 500
    assert all(len(summary.split()) >= 3 for _, summary in pairs[:50])
    assert len(set(pairs)) > 0.95 * len(pairs)
