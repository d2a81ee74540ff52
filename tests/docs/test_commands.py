"""The commands of README, tutorial and some how-to pages are run, as a user would run them.

The blocks of a page run in order in one folder. What is not run, or takes long, says so in a
comment above the block:

``<!-- slow -->`` run under ``-m slow`` alone, with all other blocks of its page;
``<!-- file: NAME -->`` saved as a file; ``<!-- not run: REASON -->`` installs the project.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs" / "tutorial").glob("*.md")),
    "docs/how-to/own-data.md",
    "docs/how-to/my-images.md",
    "docs/how-to/data-set.md",
    "docs/how-to/model.md",
    "docs/how-to/my-foundation-model.md",
    "docs/how-to/my-texts.md",
]
BLOCK = re.compile(r"^((?:<!-- .*? -->\n)*)^```(\w*)\n(.*?)^```$", re.M | re.S)
SLOW_PAGES = ("own-data", "my-images", "my-foundation-model", "my-texts")
"""Their quick blocks take 10 s to half a minute: they run under ``-m slow`` too."""
COMMANDS, OUTPUT = ("sh", "bash", "python"), ("text", "console")
INSTALLS = re.compile(r"(pip install|git clone|cd|tox)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comments above it."""

    language: str
    text: str
    notes: tuple[str, ...]

    @property
    def slow(self) -> bool:
        return "slow" in self.notes

    @property
    def file(self) -> str:
        return next((n.removeprefix("file: ") for n in self.notes if n.startswith("file: ")), "")

    @property
    def not_run(self) -> bool:
        return any(note.startswith("not run: ") for note in self.notes)


def blocks(page: str) -> list[Block]:
    found = BLOCK.findall((ROOT / page).read_text())
    return [
        Block(language, text, tuple(re.findall(r"<!-- (.*?) -->", notes)))
        for notes, language, text in found
    ]


@pytest.fixture
def run(tmp_path):
    """Runs blocks in a new folder, with `bench`, `python` and `pytest` of this interpreter."""
    programs, folder = tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    folder.mkdir()
    for name, start in (("bench", "-P -m bench"), ("python", ""), ("pytest", "-P -m pytest")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (programs / name).chmod(0o755)
    known = {k: v for k, v in os.environ.items() if not k.startswith(("BENCH_STORE", "PYTEST_"))}
    environment = {**known, "PATH": f"{programs}:{os.environ['PATH']}"}

    def each(chosen: list[Block]) -> Path:
        for block in chosen:
            if block.file:
                (folder / block.file).write_text(block.text)
            elif block.language in COMMANDS:
                program = [sys.executable, "-"] if block.language == "python" else ["sh", "-e"]
                done = subprocess.run(
                    program, input=block.text, cwd=folder, env=environment, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{block.text}\n{done.stdout[-4000:]}"
        return folder

    return each


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if Path(page).stem in SLOW_PAGES else [])
        for page in PAGES
    ],
)
def test_the_quick_blocks_of_a_page_run(page, run):
    run([block for block in blocks(page) if not (block.slow or block.not_run)])


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.slow for b in blocks(p))])
def test_all_blocks_of_a_page_run(page, run):
    folder = run([block for block in blocks(page) if not block.not_run])
    if page in ("README.md", "docs/tutorial/first-run.md"):
        assert (folder / "report" / "report.html").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_no_block_of_a_page_is_left_out_in_silence(page):
    text = (ROOT / page).read_text()
    assert len(blocks(page)) * 2 == len(re.findall(r"^ *```", text, re.M)), "a block is not read"
    assert not re.search(r"^    \$? ?bench ", text, re.M), "fence commands, do not indent them"
    for block in blocks(page):
        runs = block.language in COMMANDS or block.file
        assert runs or block.language in OUTPUT, f"neither run nor output: {block}"
        for note in block.notes:
            assert re.match(r"slow$|file: [\w.-]+$|not run: .+", note), f"unknown note: {note}"
        if block.not_run:
            lines = block.text.splitlines()
            assert all(INSTALLS.match(line) for line in lines), f"must be run: {block.text}"


def test_the_readme_is_short_and_its_method_too():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    (method,) = [b for b in blocks("README.md") if b.file == "my_idea.py"]
    assert len([line for line in method.text.splitlines() if line.strip()]) <= 24
