"""Compiles LaTeX where a TeX is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ENGINES = ("pdflatex", "tectonic")
ENGINE = next((name for name in ENGINES if shutil.which(name)), None)
NEEDS = f"needs one of {', '.join(ENGINES)}"


def compiled(
    tables: Sequence[str], folder: Path, preamble: str = ""
) -> subprocess.CompletedProcess[str]:
    """One document of all tables, each of them a float on a page of its own."""
    body = "\n\\clearpage\n".join(tables)
    text = (
        "\\documentclass{article}\n\\usepackage{booktabs}\n"
        f"{preamble}\\begin{{document}}\n"
        f"\\listoftables\n{body}\n\\end{{document}}\n"
    )
    (folder / "all.tex").write_text(text, encoding="utf-8")
    assert ENGINE is not None
    options = ["-interaction=nonstopmode", "-halt-on-error"] if ENGINE == "pdflatex" else []
    for _ in range(2):  # the second time with the titles in the list of tables
        ended = subprocess.run(
            [ENGINE, *options, "all.tex"], cwd=folder, timeout=120, check=False,
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    return ended


def has_siunitx() -> bool:
    """Whether this TeX has the package; tectonic fetches what it lacks, which tests do not."""
    asked = ["kpsewhich", "siunitx.sty"]
    return (
        shutil.which("kpsewhich") is not None
        and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    )
