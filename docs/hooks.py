"""MkDocs' hook: links to files of the repository outside of docs/ become their names."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """``[text](../../models/vit.py)`` becomes text with the name: the site has no such page."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        if path.startswith("docs/"):
            return found[0]
        text = found[1]
        return text if path in text else f"{text} (`{path}`)"

    return LINK.sub(named, markdown)
