"""Plain text for terminals and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Note(NamedTuple):
    """Something that a user must know, and what it is about."""

    what: str  #: In plain words, the same for everything of its kind.
    about: str = ""  #: A file, a scan, a value; empty when ``what`` says it.

    def __str__(self) -> str:
        return f"{self.what}: {self.about}" if self.about else self.what


def merged(notes: Iterable[Note]) -> list[str]:
    """Return one line for each kind of note, with the number and the names of what it is about.

    >>> merged([Note("no date", "ses-1"), Note("is empty"), Note("no date", "ses-2")])
    ['no date (2): ses-1, ses-2', 'is empty']
    """
    kinds: dict[str, dict[str, None]] = {}
    for note in notes:
        kinds.setdefault(note.what, {}).update({note.about: None} if note.about else {})
    return [
        one_line(what) + (f" ({len(about)}): {listed(about)}" if about else "")
        for what, about in kinds.items()
    ]


def listed(names: Iterable[str], shown: int = 10) -> str:
    """Return names in one line; of many the first ones.

    >>> listed(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    known = list(names)
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return one_line(", ".join(known[:shown]) + more)


def one_line(text: str) -> str:
    r"""Return a text with its line breaks and other control characters as Python writes them.

    >>> one_line("sub-01_acq-a" + chr(10) + "b_FLAIR.nii.gz")
    'sub-01_acq-a\\nb_FLAIR.nii.gz'
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda sign: repr(sign[0])[1:-1], text)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table with columns of equal width.

    >>> aligned([("a", "1"), ("bcd", "2")])
    ['a    1', 'bcd  2']
    """
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``ses-2`` before ``ses-10``.

    >>> sorted(["ses-10", "ses-2", "ses-1"], key=natural_key)
    ['ses-1', 'ses-2', 'ses-10']
    """
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def duration(seconds: float) -> str:
    """Return a time in seconds as a person says it: with one unit, or two for hours.

    >>> duration(41.4), duration(150), duration(5400)
    ('41 s', '2 min', '1 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
