"""Sidecars of raw images, after the inheritance principle of BIDS."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from msnmo_bids.bids.text_files import read_json
from msnmo_bids.text import Note

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


class Sidecars:
    """The FLAIR sidecars of a data set; each folder is listed once, each file is read once.

    A sidecar applies to an image when it lies in the image's folder or above and all its entities
    are the image's. The nearer one wins, and in one folder the one with more entities. What cannot
    be read or used is left out: it must not stop the other scans.

    Parameters
    ----------
    bids_dir : Path
        Root of the data set.
    """

    def __init__(self, bids_dir: Path) -> None:
        self.bids_dir = bids_dir
        self._in_folder = cache(self._list)
        self._content = cache(self._read)

    def of(self, relative: str) -> dict[str, Any]:
        """Return what all sidecars that apply to an image say; `FIELDS` have their types.

        `relative` is the image's POSIX path from the root.
        """
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
        try:
            content, found = read_json(self.bids_dir / sidecar)
        except (OSError, ValueError, RecursionError) as error:
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


def as_type(value: Any, kind: type) -> tuple[Any, str]:
    """Return a value of a JSON file as the type that it must have, if it can be read but one way.

    Returns
    -------
    value : object
        None where it cannot be read as `kind` (``bool``, ``float`` or ``str``).
    problem : str
        What is wrong, and what was done; empty when nothing is.

    Examples
    --------
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
