"""What the tables of a data set say of a scan: the nearest table that says something wins."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from msnmo_bids.bids.dataset import read_table

Row = dict[str, str]
_MISSING = frozenset({"", "n/a"})
#: Columns that name a row.
KEYS = frozenset({"participant_id", "session_id", "filename"})


class Tables:
    """``scans.tsv``, ``sessions.tsv`` and ``participants.tsv``; each file is read once.

    Parameters
    ----------
    root : Path
        Root of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.participants = {
            label.removeprefix("sub-"): row
            for row in read_table(root / "participants.tsv")
            if (label := cell(row, "participant_id"))
        }
        self._sessions = cache(self._read_sessions)
        self._scans = cache(self._read_scans)

    def value(self, relative: str, column: str) -> str:
        """Return what is known of a scan.

        Parameters
        ----------
        relative : str
            The image, POSIX path from the root.
        column : str
            Column of ``scans.tsv`` of its session or participant, else of ``sessions.tsv``, else
            of ``participants.tsv``.

        Returns
        -------
        str
            Empty when no table says it.
        """
        return next((text for row in self.rows(relative) if (text := cell(row, column))), "")

    def columns(self, relative: str) -> set[str]:
        """Return the columns that the tables have for a scan."""
        return {name for row in self.rows(relative) for name in row if name} - KEYS

    def rows(self, relative: str) -> tuple[Row, Row, Row]:
        """Return the rows of a scan in ``scans.tsv``, ``sessions.tsv`` and ``participants.tsv``.

        A row that is not there is empty. ``scans.tsv`` is that of the session, else of the
        participant.
        """
        subject, *rest = relative.split("/")
        session = rest[0] if rest and rest[0].startswith("ses-") else ""
        name = rest[-1].split(".")[0] if rest else ""
        folders = (f"{subject}/{session}", subject) if session else (subject,)
        scans = (self._scans(folder).get(name, {}) for folder in folders)
        return (
            next(filter(None, scans), {}),
            self._sessions(subject).get(session, {}),
            self.participants.get(subject.removeprefix("sub-"), {}),
        )

    def _read_scans(self, folder: str) -> dict[str, Row]:
        """Return the rows of a scans.tsv by the image's name without extension."""
        rows = read_table(self.root / folder / f"{folder.replace('/', '_')}_scans.tsv")
        return {Path(cell(row, "filename")).name.split(".")[0]: row for row in rows}

    def _read_sessions(self, subject: str) -> dict[str, Row]:
        rows = read_table(self.root / subject / f"{subject}_sessions.tsv")
        return {f"ses-{cell(row, 'session_id').removeprefix('ses-')}": row for row in rows}


def cell(row: Row, column: str) -> str:
    """Return a cell; empty where the table has ``n/a`` or no such column.

    Examples
    --------
    >>> cell({"site": " n/a "}, "site"), cell({"site": "A  B"}, "site")
    ('', 'A B')
    """
    text = " ".join((row.get(column) or "").split())
    return "" if text.lower() in _MISSING else text
