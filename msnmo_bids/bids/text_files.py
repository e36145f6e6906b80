"""Reading the text files that users write: tables and JSON, in the encodings that occur."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.errors import GET_CONTENT, keeper_of
from msnmo_bids.text import Note, listed

Row = dict[str, str]
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
UNEVEN = "lines not used, because they do not have as many cells as the header"
NO_FIRST_NAME = (
    "every line has one cell more than the header, which lacks the name of the first column (in R: "
    "row.names = FALSE)"
)
TWICE = "columns that appear twice; the first is used"
GUESSED = "not UTF-8, read as Latin-1: check the letters with accents"


@dataclass(frozen=True)
class Table:
    """A tab-separated file."""

    columns: tuple[str, ...] = ()  #: Names in the header, without blanks around them.
    rows: tuple[Row, ...] = ()  #: Texts as they stand.
    lines: tuple[int, ...] = ()  #: Their lines in the file, from 1.
    problem: str = ""  #: Why nothing can be read; empty when there is no file, too.
    #: What was guessed or passed over; each is about lines or columns, or about the file.
    notes: tuple[Note, ...] = ()

    def without(self, column: str) -> str:
        """Say that a column lacks, and which there are.

        >>> Table(("id,age",)).without("id")
        "no column id (there is: 'id,age'; commas separate it, not tabs)"
        """
        there = listed(f"'{name}'" for name in self.columns) or "none"
        marks = {",": "commas", ";": "semicolons", " ": "blanks"}
        only = self.columns[0] if len(self.columns) == 1 else ""
        hints = [f"; {name} separate it, not tabs" for mark, name in marks.items() if mark in only]
        if self.columns and self.columns[0].startswith("#"):
            hints = ["; the first line begins with # as a comment does: it must be the header"]
        hint = "".join(hints[:1])
        return f"no column {column} (there is: {there}{hint})"


def read_tsv(path: Path) -> Table:
    """Read a table as BIDS has them: tabs, a header, quotation marks are characters.

    A missing file is a table without columns.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and not path.is_symlink()
        return Table(problem="" if missing else _why_unreadable(path, error))
    if keeper := keeper_of(content):
        return Table(problem=f"a link without its content (run {GET_CONTENT[keeper]})")
    text, guessed = decode(content)
    lines = re.split(r"\r\n|\r|\n", text)
    if "\0" in text or not any(line.strip() for line in lines):
        return Table(problem="empty" if not text.strip() else "not a text file (of Excel?)")
    return _table(lines, (Note(GUESSED),) if guessed else ())


def _table(lines: list[str], notes: tuple[Note, ...]) -> Table:
    numbered = [(k, line.split("\t")) for k, line in enumerate(lines, 1) if line.strip()]
    (_, header), *body = numbered
    columns = [" ".join(name.split()) for name in header]
    while not columns[-1]:
        columns.pop()
    if body and all(_filled(cells) == len(columns) + 1 for _, cells in body):
        return Table(tuple(columns), problem=NO_FIRST_NAME)
    rows, lines_of_rows, uneven = [], [], []
    for number, cells in body:
        if len(cells) < len(columns) or _filled(cells) > len(columns):
            uneven.append(Note(UNEVEN, str(number)))  # its cells may be another column's
            continue
        row: Row = {}
        for name, text in zip(columns, cells, strict=False):
            row.setdefault(name, text)
        rows.append(row)
        lines_of_rows.append(number)
    twice = [
        Note(TWICE, name) for name, count in Counter(filter(None, columns)).items() if count > 1
    ]
    notes = (*notes, *twice, *uneven)
    return Table(tuple(dict.fromkeys(columns)), tuple(rows), tuple(lines_of_rows), notes=notes)


def _filled(cells: list[str]) -> int:
    """Return the number of cells, without empty ones at the end."""
    return max((k for k, text in enumerate(cells, 1) if text.strip()), default=0)


def decode(content: bytes) -> tuple[str, bool]:
    """Turn the bytes of a whole file into text: by their mark, else UTF-8, UTF-16 or Latin-1.

    Return it without the mark, and whether it is Latin-1 only because it is nothing else.

    >>> decode("Málaga".encode("latin-1"))
    ('Málaga', True)
    >>> decode("Málaga".encode("utf-16")), decode("Málaga".encode("utf-16-le"))
    (('Málaga', False), ('Málaga', False))
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace"), False
    # Plain text has no zeros; in UTF-16 every second byte of it is one.
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if content and content[first::2].count(0) > len(content) // 4:
            return content.decode(encoding, errors="replace"), False
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8"), False
    with suppress(UnicodeDecodeError):
        return content.decode("cp1252"), True  # Latin-1 with the quotation marks of Windows
    return content.decode("latin-1"), True


def read_json(path: Path) -> tuple[Any, list[Note]]:
    """Read a JSON file that a user wrote; return its content, and what was guessed or left out.

    That is ``NaN`` and infinity, which JSON does not have.

    Raises
    ------
    OSError, ValueError
        If it cannot be opened; if it is not JSON: the message says where.
    """
    text, guessed = decode(path.read_bytes())
    notes = [Note(GUESSED)] if guessed else []
    content = json.loads(text, parse_constant=_NoNumber, parse_float=_finite)
    return _with_numbers(content, "", notes), notes


class _NoNumber(str):
    """``NaN``, ``Infinity`` or ``-Infinity`` in place of a number."""


def _finite(text: str) -> float | _NoNumber:
    value = float(text)
    return value if math.isfinite(value) else _NoNumber(text)


def _with_numbers(content: Any, name: str, notes: list[Note]) -> Any:
    """Leave out fields that are not numbers though they look so; None stands for such items."""
    if isinstance(content, _NoNumber):
        notes.append(Note(f"{name or 'all of it'} is {content}, not a number: ignored"))
        return None
    if isinstance(content, dict):
        known = {
            k: _with_numbers(v, f"{name}.{k}" if name else k, notes) for k, v in content.items()
        }
        return {k: v for k, v in known.items() if not isinstance(content[k], _NoNumber)}
    if isinstance(content, list):
        return [_with_numbers(item, name, notes) for item in content]
    return content


def lacks_content(path: Path, error: Exception) -> bool:
    """Whether a file cannot be read because it is a link to what is not there."""
    return isinstance(error, FileNotFoundError) and path.is_symlink()


def _why_unreadable(path: Path, error: OSError) -> str:
    if lacks_content(path, error):
        return "a link without its content (git-annex: run datalad get)"
    return f"cannot be read ({error.strerror})"
