"""Text that others wrote, as one line that a terminal, a record and a page can show."""

from __future__ import annotations

import re
import unicodedata

LIMIT = 2000
"""Characters that are shown of one text."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -~])")
"""A terminal's escape sequences: colours and cursor, titles and links, and the short ones."""


def one_line(text: str, limit: int = LIMIT) -> str:
    """``text`` on one line, without control characters, of ``limit`` characters at most.

    Escape sequences and characters that are not seen or turn the direction of writing are left
    out; halves of surrogate pairs, which no file can hold, and what no font shows become the
    replacement character.
    """
    # What is cut is not looked at: texts of many megabytes come.
    head = _ESCAPE.sub("", text[: 4 * limit])
    kept = " ".join("".join(_printable(sign) for sign in head).split())
    if len(kept) <= limit and len(text) <= 4 * limit:
        return kept
    end = f"… ({len(text):,} characters in all)"
    return kept[: limit - len(end)] + end


def _printable(sign: str) -> str:
    if sign.isspace():
        return " "
    if sign.isprintable():
        return sign
    # Of a surrogate pair, of private use or of no use: somebody meant something by it.
    unknown = unicodedata.category(sign) in ("Cs", "Co", "Cn")
    return "\N{REPLACEMENT CHARACTER}" if unknown else ""


def error_text(error: BaseException) -> str:
    """The message of an exception as `one_line`, whatever its ``__str__`` does."""
    try:
        return one_line(str(error))
    except Exception as problem:
        return f"(its message cannot be read: {type(problem).__name__})"
