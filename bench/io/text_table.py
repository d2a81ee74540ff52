"""Rows of text under one another, for terminals."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int | None = None, indent: str = "") -> str:
    """Lines of equally wide columns, two spaces apart, without blanks at their ends.

    Parameters
    ----------
    rows : cells, equally many in each row; at least one row
    left : how many of the first columns are set to the left, the others to the right; None: all
    indent : what each line begins with
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        indent
        + "  ".join(
            cell.ljust(width) if left is None or i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
