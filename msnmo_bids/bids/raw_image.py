"""Which raw image derivatives were made from, and whether it is still the one that is there.

``RawImage`` in the diagnosis file holds it: size, time of change and checksum of the file, and what
was used of its sidecar. Whoever asks whether derivatives belong to the present image asks here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import BadInputError

KEY = "RawImage"
CHANGED = "the raw image changed"
SIDECAR_CHANGED = "its sidecar now says something else about the skull"
NOT_RECORDED = "its diagnosis file does not say which image it is about"
#: Smaller files may be those that git-annex and git-lfs put in the place of an image.
_SMALL = 32 * 1024


def glance(scan: Scan) -> dict[str, Any] | None:
    """Return what of a raw image can be told without reading it.

    Parameters
    ----------
    scan : Scan
        The scan.

    Returns
    -------
    dict or None
        ``Size`` (bytes), ``Modified`` (UTC) and ``SkullStripped`` (as the sidecar has it); None
        where the image is missing or its content is elsewhere (git-annex, git-lfs).
    """
    try:
        found = scan.path.stat()
    except OSError:
        return None
    if found.st_size < _SMALL and not _has_content(scan.path):
        return None
    changed = datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC)
    return {
        "Size": found.st_size,
        "Modified": changed.isoformat(timespec="microseconds"),
        "SkullStripped": scan.skull_stripped,
    }


def _has_content(path: Path) -> bool:
    from msnmo_bids.preprocessing.nifti_file import read_content

    try:
        read_content(path)
    except BadInputError:
        return False
    return True


def identify(scan: Scan, seen: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the diagnosis file says of the raw image, with its checksum.

    Parameters
    ----------
    scan : Scan
        The scan.
    seen : mapping or None
        From :func:`glance`, before the image was read.

    Returns
    -------
    dict
        ``Size``, ``Modified``, ``SHA256`` and ``SkullStripped``.

    Raises
    ------
    BadInputError
        If the image was changed in the meantime.
    """
    now = glance(scan)
    if now is None or now != seen:
        raise BadInputError(
            "the raw image was changed while it was processed", file=scan.path, remedy="Run again"
        )
    return {**now, "SHA256": _checksum(scan.path, now["Size"], now["Modified"])}


def why_other_image(scan: Scan, recorded: Any) -> str | None:
    """Say why derivatives are not those of the raw image that is there now.

    Parameters
    ----------
    scan : Scan
        The scan.
    recorded : object
        ``RawImage`` of its diagnosis file.

    Returns
    -------
    str or None
        The reason in a few words; None where they are, or where the image's content is elsewhere,
        so that nobody can tell. A checksum is computed only where size or time differ.
    """
    if not isinstance(recorded, Mapping):
        return NOT_RECORDED
    if recorded.get("SkullStripped") != scan.skull_stripped:
        return SIDECAR_CHANGED
    now = glance(scan)
    if now is None or all(recorded.get(key) == value for key, value in now.items()):
        return None
    if recorded.get("Size") != now["Size"]:
        return CHANGED
    same = recorded.get("SHA256") == _checksum(scan.path, now["Size"], now["Modified"])
    return None if same else CHANGED


@cache
def _checksum(path: Path, _size: int, _modified: str) -> str:
    """Return a file's SHA-256, computed once as long as size and time stay."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
