"""What is read of one text twice."""

from __future__ import annotations

from pathlib import Path

from bench.io.safe_yaml import read_yaml


def test_each_reader_gets_the_content_as_it_stands_in_the_file_now(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: {b: [1, 2]}\n")
    first = read_yaml(file, "example")
    first["a"]["b"].append(3)
    assert read_yaml(file, "example") == {"a": {"b": [1, 2]}}
    file.write_text("a: 2\n")
    assert read_yaml(file, "example") == {"a": 2}
