"""Report files written and read back: what tests of tables and figures share."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.records.record import Record
from bench.reports.paper import Paper


def written(folder: Path, records: list[Record], **content: Any) -> dict[str, bytes]:
    """The files that a report file makes, by name."""
    folder.mkdir(exist_ok=True)
    path = folder / "paper.yaml"
    path.write_text(yaml.safe_dump({"columns": ["accuracy"], **content}), encoding="utf-8")
    paper = Paper(path)
    made = paper.write(paper.choose(records), folder / "out")
    return {each.name: each.read_bytes() for each in made}


def report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``bench report`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["bench", "report", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def texts(svg: bytes) -> list[str]:
    """What is written in a figure."""
    return [
        "".join(re.findall(r">([^<]*)<", part)).strip()
        for part in re.findall(r"<text.*?</text>", svg.decode(), re.DOTALL)
    ]
