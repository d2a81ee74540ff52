"""The documented example of a method is run, as documented."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_contributing_runs_and_is_short(workplace):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    body = example.split('@register("method", "my-idea")')[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30
    (workplace.folder / "my_idea.py").write_text(example)
    done = workplace.run(
        "run",
        "--plugin",
        "my_idea.py",
        "--methods",
        "source-only,my-idea",
        "--seeds",
        "0",
        "--executor",
        "inline",
    )
    record = workplace.records()[("my-idea", 0, "xavier-nx")]
    assert record.status == "ok"
    assert "my-idea" in done.stdout
    steps = [d.steps for d in record.results.domains]
    assert steps == [2, 2]
    assert record.results.costs.peak_memory.value > 0


def test_every_command_that_the_documents_name_exists():
    import typer.main

    from bench.cli import app

    known = set(typer.main.get_command(app).commands)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        for command in re.findall(r"(?:^ *|^ *\$ |&& |`)bench ([a-z-]+)", text, re.M):
            assert command in known, f"{page.name} names 'bench {command}'"
