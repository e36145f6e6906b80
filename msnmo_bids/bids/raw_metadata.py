"""What tables and sidecars of a data set say of a scan: the nearest that says something wins."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import subject_folders
from msnmo_bids.bids.text_files import Row, lacks_content, read_json, read_tsv
from msnmo_bids.errors import GET_CONTENT, keeper_of
from msnmo_bids.text import Note

#: What stands for a value that lacks, besides dashes; in lower case.
_MISSING = frozenset(
    {"", "n/a", "na", "nan", "#n/a", "<na>", "none", "null", ".", "?", "unknown", "missing"}
)
#: Columns by which ``participants.tsv`` has a row per session, where it has.
_SESSION_COLUMNS = ("session_id", "session")
PARTICIPANTS, SESSIONS, SCANS = "participants.tsv", "sessions.tsv", "scans.tsv"
#: The column that names a row, by the kind of table, the nearest to a scan last.
_KEYS = {PARTICIPANTS: "participant_id", SESSIONS: "session_id", SCANS: "filename"}
SIDECAR_SUFFIX = "FLAIR.json"
#: The fields that the program uses, and what they must be.
FIELDS: dict[str, type] = {
    "SkullStripped": bool,
    "MagneticFieldStrength": float,
    "Manufacturer": str,
    "ManufacturersModelName": str,
}
#: Manufacturer of the scans of ``msnmo-simulate``.
SIMULATED = "Simulated"
_TYPE_NAMES = {bool: "true or false", float: "a number", str: "a text"}


class Rows:
    """The rows of one table by the folder or image that they are about.

    A row belongs to the folder of its label, with or without its prefix; else to the only one
    whose label differs in nothing but zeros before numbers, and in capitals.

    The table at `path`, of a `kind` (`PARTICIPANTS`, `SESSIONS` or `SCANS`), may be missing.
    `about` is the folder that it belongs to, for notes; `known` are the labels of the folders, or
    the names of the images without extension.
    """

    def __init__(self, path: Path, kind: str, about: str, known: Collection[str]) -> None:
        self.path, self.kind, self.about = path, kind, about
        table = read_tsv(path)
        key = _KEYS[kind]
        self.columns = frozenset(table.columns)
        self.problem = table.problem
        if table.columns and key not in self.columns:
            self.problem = table.without(key)
        self.exists = bool(table.columns or table.problem)
        self._file_notes = table.notes
        by_label: dict[str, list[Row]] = defaultdict(list)
        for row in () if self.problem else table.rows:
            by_label[label_of(cell(row, key), kind)].append(row)
        self._places = match_labels(by_label, known)
        self._of = {place: by_label[label] for label, place in self._places.items()}
        self.unmatched = [label for label in by_label if label not in self._places]
        self.contradictions: dict[tuple[str, str], list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def value(self, name: str, column: str, session: str | None = None) -> str:
        """Return a cell; where there are several rows, what all say that say something.

        In a table with one row per session, the rows of `session` come first. Empty when no row
        says it, or when the rows contradict each other. `name` is that of a folder or an image.
        """
        rows = self._of.get(name, [])
        wanted = spelling(session or "")
        of_session = [
            row
            for row in rows
            if session
            and wanted in {spelling(label_of(cell(row, c), SESSIONS)) for c in _SESSION_COLUMNS}
        ]
        for some in (of_session, rows):
            said = {text.casefold(): text for row in some if (text := cell(row, column))}
            if len(said) > 1:
                self.contradictions[name, column] = list(said.values())
                return ""
            if said:
                return next(iter(said.values()))
        return ""

    def notes(self) -> Iterator[Note]:
        """Say what was not used or guessed; contradictions only of values that were asked for."""
        if self.problem:
            yield self.note(f"not used, {self.problem}")
        for what, about in self._file_notes:
            yield self.note(what, about)
        for label, place in self._places.items():
            if label != place:
                yield self.note(
                    "rows matched although they are spelt differently", f"{label} = {place}"
                )
        what = "image" if self.kind == SCANS else "folder"
        for label in self.unmatched:
            # Rows of other images than FLAIR are not a fault.
            if self.kind != SCANS or label.endswith("_FLAIR"):
                yield self.note(f"rows that fit no {what}, not used", label or "(no name)")
        for (name, column), texts in self.contradictions.items():
            values = f"{name}, {column}: {' or '.join(texts)}"
            yield self.note("rows that contradict each other, not used there", values)

    def note(self, what: str, about: str = "") -> Note:
        """Return a note on this table; those of many tables of a kind can be merged."""
        return Note(f"{self.kind}: {what}", " ".join(filter(None, (self.about, about))))


class Tables:
    """``scans.tsv``, ``sessions.tsv`` and ``participants.tsv`` of a data set, each read once.

    `scans` are images (POSIX paths from the root) besides those that are there.
    """

    def __init__(self, root: Path, scans: Iterable[str] = ()) -> None:
        self.root = root
        self._asked: dict[str, list[str]] = defaultdict(list)
        for scan in scans:
            self._asked[scan.split("/")[0]].append(scan)
        people = {*subject_folders(root), *(name.removeprefix("sub-") for name in self._asked)}
        self.participants = Rows(root / PARTICIPANTS, PARTICIPANTS, "", people)
        self._sessions = cache(self._read_sessions)
        self._scans = cache(self._read_scans)

    def value(self, relative: str, column: str) -> str:
        """Return what the nearest table says of a scan (POSIX path from the root); maybe empty."""
        session = _session(relative)
        found = (rows.value(name, column, session) for rows, name in self.sources(relative))
        return next(filter(None, found), "")

    def columns(self, relative: str) -> set[str]:
        """Return the columns that the tables have for a scan."""
        usable = (rows for rows, _ in self.sources(relative) if not rows.problem)
        return {name for rows in usable for name in rows.columns} - {*_KEYS.values()}

    def sources(self, relative: str) -> list[tuple[Rows, str]]:
        """Return the tables that a scan has a row in, or should have, and what names its row.

        The nearest is first; ``scans.tsv`` is that of the session, else of the participant.
        """
        subject, session = relative.split("/")[0], _session(relative)
        name = Path(relative).name.split(".")[0]
        folders = (f"{subject}/ses-{session}", subject) if session else (subject,)
        scans = [rows for folder in folders if (rows := self._scans(folder)).exists]
        with_row = [rows for rows in scans if name in rows]
        found = [(rows, name) for rows in [*with_row, *scans][:1]]
        if session:
            found.append((self._sessions(subject), session))
        return [*found, (self.participants, subject.removeprefix("sub-"))]

    def notes(self, scans: Iterable[str], columns: Collection[str]) -> list[Note]:
        """Say what in the tables could not be used for some scans; to be merged.

        `scans` are POSIX paths from the root whose values have been asked for. A table without any
        of `columns` is passed over, unless it cannot be read.
        """
        used: dict[Rows, list[str]] = {}
        for scan in scans:
            for rows, name in self.sources(scan):
                lacking = used.setdefault(rows, [])
                if name not in rows:
                    lacking.append(Path(scan).name)
        found: list[Note] = []
        nearest_last = list(_KEYS).index
        for rows, lacking in sorted(used.items(), key=lambda item: nearest_last(item[0].kind)):
            matters = rows.kind == PARTICIPANTS or rows.columns & set(columns)
            if not rows.exists or not (matters or rows.problem):
                continue
            found += rows.notes()
            if not rows.problem:
                what = f"{rows.kind}: scans without a row"
                found += [Note(what, name) for name in lacking]
        return found

    def differing(self, scans: Iterable[str], column: str) -> list[Note]:
        """Name the scans (POSIX paths from the root) of which the tables say different things.

        Meant for what does not change from visit to visit.
        """
        found = []
        for scan in scans:
            said: dict[str, str] = {}
            for rows, name in self.sources(scan):
                if value := rows.value(name, column, _session(scan)):
                    said.setdefault(value.casefold(), f"{value} in {rows.kind}")
            if len(said) > 1:
                what = (
                    f"{column}: tables that differ from each other; the nearest to the scan counts"
                )
                found.append(Note(what, f"{Path(scan).name} ({', '.join(said.values())})"))
        return found

    def _read_scans(self, folder: str) -> Rows:
        path = self.root / folder / f"{folder.replace('/', '_')}_scans.tsv"
        images = [Path(scan) for scan in self._asked[folder.split("/")[0]]]
        if os.access(path, os.R_OK):  # no error where a link may not be followed
            images += path.parent.rglob("*_FLAIR.nii*")
        return Rows(path, SCANS, folder, {image.name.split(".")[0] for image in images})

    def _read_sessions(self, subject: str) -> Rows:
        folder = self.root / subject
        known = {path.name.removeprefix("ses-") for path in folder.glob("ses-*")}
        known |= {label for scan in self._asked[subject] if (label := _session(scan))}
        return Rows(folder / f"{subject}_sessions.tsv", SESSIONS, subject, known)


def cell(row: Row, column: str) -> str:
    """Return a cell; empty where the table has ``n/a``, a dash or no such column.

    >>> cell({"site": " n/a "}, "site"), cell({"site": "-"}, "site"), cell({"site": "A  B"}, "site")
    ('', '', 'A B')
    """
    text = " ".join((row.get(column) or "").split())
    return "" if text.lower() in _MISSING or not text.strip("-–—") else text


def label_of(text: str, kind: str) -> str:
    """Return the label or the image's name that a cell holds.

    >>> label_of("sub-01", PARTICIPANTS), label_of("anat/sub-01_FLAIR.nii.gz", SCANS)
    ('01', 'sub-01_FLAIR')
    """
    if kind == SCANS:
        return text.replace("\\", "/").rpartition("/")[2].split(".")[0]
    return re.sub(r"^(sub|ses)-", "", text, flags=re.IGNORECASE)


def spelling(label: str) -> str:
    """Return a label without what people spell differently.

    >>> spelling("MS007"), spelling("ms7"), spelling("0"), spelling("1.05")
    ('ms7', 'ms7', '0', '1.05')
    """
    return re.sub(r"(?<![\d.])0+(?=\d)", "", label).casefold()


def match_labels(labels: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return the `known` label of a folder by the table's, for those that match.

    It is the same, or else the only one with its `spelling`, if no other of the table has that too.

    >>> match_labels(["1", "02", "3"], ["01", "02", "3", "03", "04"])
    {'02': '02', '3': '3', '1': '01'}
    >>> match_labels(["1"], ["01", "001"])
    {}
    """
    names = list(dict.fromkeys(labels))
    found = {label: label for label in names if label in known}
    there, asked = defaultdict(list), defaultdict(list)
    for label in known:
        there[spelling(label)].append(label)
    for label in names:
        asked[spelling(label)].append(label)
    for label in names:
        one = spelling(label)
        if label not in found and len(asked[one]) == 1 and len(there[one]) == 1:
            found[label] = there[one][0]
    return found


def _session(relative: str) -> str | None:
    """Return the label of a scan's session."""
    folder = relative.split("/")[1]
    return folder.removeprefix("ses-") if folder.startswith("ses-") else None


class Sidecars:
    """The FLAIR sidecars of a data set; each folder is listed once, each file is read once.

    A sidecar applies to an image when it lies in the image's folder or above and all its entities
    are the image's. The nearer one wins, and in one folder the one with more entities. What cannot
    be read or used is left out: it must not stop the other scans.
    """

    def __init__(self, bids_dir: Path) -> None:
        self.bids_dir = bids_dir
        self._in_folder = cache(self._list)
        self._content = cache(self._read)

    def of(self, relative: str) -> dict[str, Any]:
        """Return what all sidecars of an image (POSIX path) say; `FIELDS` have their types."""
        metadata: dict[str, Any] = {}
        for sidecar in self._that_apply(relative):
            metadata |= self._content(sidecar)[0]
        return metadata

    def notes(self, relative: str) -> list[Note]:
        """Return what a reader must know of an image's sidecars: faults, guesses, a simulation."""
        return [
            note for sidecar in self._that_apply(relative) for note in self._content(sidecar)[1]
        ]

    def _that_apply(self, relative: str) -> list[str]:
        """Return the paths of an image's sidecars, the nearest last."""
        folder, _, name = relative.rpartition("/")
        parts = folder.split("/")
        entities = set(name.split("_")[:-1])
        found = []
        for depth in range(len(parts) + 1):
            sidecars = self._in_folder("/".join(parts[:depth]))
            for theirs, sidecar in sorted(sidecars, key=lambda item: (len(item[0]), item[1])):
                if theirs <= entities:
                    found.append(sidecar)
        return found

    def _list(self, folder: str) -> list[tuple[frozenset[str], str]]:
        """Return the entities and the path of each sidecar in a folder."""
        return [
            (frozenset(path.name.split("_")[:-1]), f"{folder}/{path.name}".lstrip("/"))
            for path in (self.bids_dir / folder).glob(f"*{SIDECAR_SUFFIX}")
            if path.name.split("_")[-1] == SIDECAR_SUFFIX
        ]

    def _read(self, sidecar: str) -> tuple[dict[str, Any], list[Note]]:
        """Return what can be used of a sidecar, and what cannot."""
        file = self.bids_dir / sidecar
        try:
            content, found = read_json(file)
        except (OSError, ValueError, RecursionError) as error:
            if get := _gets_content(file, error):
                return {}, [Note(f"sidecars without content, ignored: run {get}", sidecar)]
            return {}, [Note(f"the sidecar cannot be read ({error}), ignored", sidecar)]
        if not isinstance(content, dict):
            what = "a list" if isinstance(content, list) else "a single value"
            return {}, [Note(f"the sidecar holds {what}, not fields in braces: ignored", sidecar)]
        for field in FIELDS.keys() & content.keys():
            value, problem = as_type(content.pop(field), FIELDS[field])
            found += [Note(f"{field} {problem}")] if problem else []
            if value is not None:
                content[field] = value
        if content.get("Manufacturer") == SIMULATED:
            found.append(Note("a simulated image, no person was scanned"))
        return content, [Note(note.what, sidecar) for note in found]


def _gets_content(file: Path, error: Exception) -> str:
    """Return the command that brings the content of a file that could not be read, if one does."""
    start = b""
    with suppress(OSError):
        if lacks_content(file, error):
            start = os.fsencode(file.readlink())
        elif isinstance(error, ValueError):
            start = file.read_bytes()
    return GET_CONTENT.get(keeper_of(start), "")


def as_type(value: Any, kind: type) -> tuple[Any, str]:
    """Return a value of a JSON file as the type that it must have, if it can be read but one way.

    That is None where it cannot be read as `kind` (``bool``, ``float`` or ``str``). With it comes
    what is wrong and what was done; empty when nothing is.

    >>> as_type("true", bool)
    (True, 'is "true", not true or false: taken as true')
    >>> as_type("perhaps", bool)
    (None, 'is "perhaps", not true or false: ignored')
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or isinstance(value, kind) or (kind is float and number):
        return value, ""
    shown = json.dumps(value) if isinstance(value, str | int | float) else "a list or an object"
    text = value.strip() if isinstance(value, str) else ""
    meant: Any = None
    if kind is bool:
        meant = {"true": True, "false": False}.get(text.lower())
        if number and value in (0, 1):
            meant = bool(value)
    elif kind is float and re.fullmatch(r"\d+(\.\d+)?", text):
        meant = float(text)
    elif kind is str and number:
        meant = str(value)
    done = "ignored" if meant is None else f"taken as {json.dumps(meant)}"
    return meant, f"is {shown}, not {_TYPE_NAMES[kind]}: {done}"
