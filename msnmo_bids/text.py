"""Plain text for terminals and logs."""

from __future__ import annotations

import re
from collections.abc import Sequence


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table with columns of equal width.

    Examples
    --------
    >>> aligned([("a", "1"), ("bcd", "2")])
    ['a    1', 'bcd  2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``ses-2`` before ``ses-10``.

    Examples
    --------
    >>> sorted(["ses-10", "ses-2", "ses-1"], key=natural_key)
    ['ses-1', 'ses-2', 'ses-10']
    """
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
