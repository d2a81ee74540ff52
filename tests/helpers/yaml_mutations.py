"""Hypothesis strategies for spoiled YAML files, and what commands must make of them."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
"""Aliases that stand for a thousand million values."""
SNIPPETS = (
    "&a ", "*a", "<<: *a", "!!python/object/apply:os.system [id]", "? [x]", "[" * 60, "{" * 2000,
    "\t", "\x00", "\x1b[31m", "- ", ": ", ":", "%YAML 9.9\n", "\n---\n", "!!int x", "!!float x",
    "!!bool x", "!!timestamp x", "!!binary \u00e9", "!!set {x}", "2001-99-99", "0b", "0x",
    "1:99:99", "9" * 5000, "'", '"', "|\n", "#", "\ud7ff", "name: again\n", BOMB, "&r [*r]",
    "!!map x", "\r",
)  # fmt: skip
"""What is put into the text of a file at any place."""


def _deep(levels: int) -> Any:
    value: Any = "x"
    for i in range(levels):
        value = [value] if i % 2 else {"x": value}
    return value


VALUES = st.one_of(
    st.sampled_from([
        None, True, False, "", "x", " ", "true", -1, 0, 1, 2, 1e308, 1e-320, -1e308, float("inf"),
        float("nan"), 10**30, 10**400, [], {}, [[]], [None], {"name": None}, {"value": True},
        {1: 2}, {None: "x"}, "x" * 10_000, "\x1b[2J", "a,b", "../../etc/passwd", "nul\x00l",
        _deep(30), _deep(90), list(range(2000)), {"x": {}}, ["x", "x"], "1e-3", "0..4", "\u65b9",
    ]),
    st.floats(), st.integers(), st.text(max_size=20), st.booleans(),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(["", "name", "value", "x" * 300, "<<", 1, None, True]), st.text(max_size=8)
)


def _places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*at, key))


@st.composite
def spoiled(draw: st.DrawFn, content: dict[str, Any]) -> str:
    """The text of a file: the content with up to three parts changed, then perhaps the text."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 3))):
        *place, key = draw(st.sampled_from(list(_places(content)) or [("name",)]))
        parent = content
        for step in place:
            parent = parent[step]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
        if what == "replace" or isinstance(parent, list):
            parent[key] = copy.deepcopy(draw(VALUES))
        elif what == "remove":
            parent.pop(key, None)
        else:
            parent[draw(KEYS)] = parent.pop(key, None)
    text = yaml.safe_dump(content, allow_unicode=True)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 20))
        text = text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at + cut :]
    return draw(st.sampled_from([text] * 30 + [BOMB, "", "x", "[]", "[" * 10_000, text + "\ud7ff"]))


def exit_code(arguments: Sequence[str], seconds: float = 20.0) -> int:
    """Of ``bench ARGUMENTS``, which must end with 0, or with 2 and one short line of error."""
    from bench.cli import main

    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
    assert time.process_time() - started < seconds
    assert code in (0, 2), out.getvalue() + err.getvalue()
    if code == 2:
        (line,) = [line for line in err.getvalue().splitlines() if "warning" not in line]
        assert line.startswith("bench: ")
        check_line(line)
    return code


def check_line(text: str) -> None:
    """An error is one short line that cannot steer a terminal."""
    assert len(text) < 2500, len(text)
    assert not any(ord(sign) < 32 for sign in text), text
