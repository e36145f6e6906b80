"""What an earlier run completed and left behind, and of which raw image.

A scan's diagnosis file is written last. A scan is complete when that file is there, carries the
fingerprint of the same version, weights and settings, was made from the raw image that is there
now, and all outputs that it lists are there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import TEMPORARY_PREFIX, read_record
from msnmo_bids.bids.names import (
    JSON_KINDS,
    derivative_kinds,
    derivative_name,
    figure_path,
    io_spec,
    sidecar,
)
from msnmo_bids.bids.records import NOT_PROCESSED
from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import BadInputError
from msnmo_bids.settings import ProcessingSettings, hash_file

logger = logging.getLogger(__name__)

TEMPORARY_NAME = re.compile(rf"^{re.escape(TEMPORARY_PREFIX)}[0-9a-f]+-")
ANY_CLASS = "ANYCLASS"
#: Key in the diagnosis file: size, time of change and checksum of the raw image, what was used of
#: its sidecar, and the checksum of the voxels alone, by which copies are found.
RAW_IMAGE, VOXELS = "RawImage", "VoxelsSHA256"
CHANGED = "the raw image changed"
SIDECAR_CHANGED = "its sidecar now says something else about the skull"
#: Smaller files may be those that git-annex and git-lfs put in the place of an image.
_SMALL = 32 * 1024


@dataclass(frozen=True)
class Expected:
    """What the derivatives of a complete scan were made by."""

    #: Of this run: settings, version of the program, ``WeightsMetadata.fingerprint``.
    settings: ProcessingSettings
    version: str
    weights: str
    #: Settings that the user left to the program and that depend on the machine (``device``,
    #: ``precision``): what an earlier run chose for them is as good. So a run on another machine
    #: does not repeat the work, and nothing needs to be probed when all is complete.
    open_settings: tuple[str, ...] = ()

    def fingerprint(self, recorded: dict[str, Any]) -> str:
        """Return the fingerprint that a complete scan must have, given its recorded settings."""
        chosen = {name: recorded[name] for name in self.open_settings if name in recorded}
        settings = replace(self.settings, **chosen)
        return settings.fingerprint(self.version, self.weights)


def diagnosis_path(scan: Scan, output_dir: Path) -> Path:
    """Return the path of a scan's diagnosis file, which may not exist."""
    return output_dir / scan.folder / derivative_name(scan.prefix, "diagnosis")


def read_diagnosis(scan: Scan, output_dir: Path) -> dict[str, Any] | None:
    """Return the content of a scan's diagnosis file, None when it is missing or broken."""
    return read_record(diagnosis_path(scan, output_dir))


def why_incomplete(scan: Scan, output_dir: Path, expected: Expected) -> str | None:
    """Say in a few words why a scan must be run; None when it is complete."""
    path = diagnosis_path(scan, output_dir)
    if not path.exists():
        unfinished = next(old_files(scan, output_dir), None) is not None
        return "was interrupted" if unfinished else NOT_PROCESSED
    record = read_diagnosis(scan, output_dir)
    if not record or "Fingerprint" not in record:
        return "its diagnosis file is broken"
    recorded = record.get("Settings")
    recorded = recorded if isinstance(recorded, dict) else {}
    if record.get("Fingerprint") != expected.fingerprint(recorded):
        return _difference(record, recorded, expected)
    if reason := why_other_image(scan, record.get(RAW_IMAGE)):
        return reason
    outputs = record.get("Outputs")
    if not isinstance(outputs, dict):
        return "its diagnosis file is broken"
    return missing_output(outputs, output_dir)


def missing_output(outputs: Mapping[str, int], output_dir: Path) -> str | None:
    """Say which output of a record, path to size (bytes), is missing or was damaged since.

    A file of another size that can be read is one that somebody has corrected: it stays.
    """
    for output, size in outputs.items():
        file = output_dir / output
        if not file.is_file() or file.stat().st_size == 0:
            return f"{file.name} is missing"
        if file.stat().st_size != size and _damaged(file):
            return f"{file.name} is damaged"
    return None


def _damaged(file: Path) -> bool:
    """Whether a file of another size ends too early or holds something else."""
    if file.suffix == ".json":
        return read_record(file) is None
    if file.suffix == ".svg":
        return not file.read_bytes().rstrip().endswith(b"</svg>")
    if file.suffix == ".tsv":
        header, *rows = file.read_bytes().splitlines(keepends=True)
        whole = header.endswith(b"\n") and (rows or [header])[-1].count(b"\t") == header.count(
            b"\t"
        )
        return not whole
    if file.suffix != ".gz":
        return False
    from msnmo_bids.preprocessing.nifti_file import read_nifti

    try:
        read_nifti(file)
    except BadInputError:
        return True
    return False


def _difference(record: dict[str, Any], recorded: dict[str, Any], expected: Expected) -> str:
    """Say what differs between an earlier run and this one."""
    version = (record.get("GeneratedBy") or {}).get("Version")
    if version != expected.version:
        return f"made by version {version}"
    if (record.get("Model") or {}).get("Fingerprint") != expected.weights:
        return "made with other weights"
    now = asdict(expected.settings)
    changed = [
        f"{name} was {recorded[name]}"
        for name, value in now.items()
        if name in recorded and recorded[name] != value and name not in expected.open_settings
    ]
    return f"made with other settings ({', '.join(changed) or 'unknown'})"


def old_files(scan: Scan, output_dir: Path) -> Iterator[Path]:
    """Find all derivatives, figures and half-written files of a scan, the diagnosis file first.

    Only names that this program gives to this very scan match: ``sub-01`` is also the beginning
    of the names of ``sub-01_acq-3d``.
    """
    diagnosis = diagnosis_path(scan, output_dir)
    if diagnosis.exists():
        yield diagnosis
    figures = [Path(figure_path(scan.subject, scan.prefix, kind)) for kind in _figure_kinds()]
    for folder, names in (
        (output_dir / scan.folder, _derivative_pattern(scan.prefix)),
        (output_dir / figures[0].parent, _any_of([figure.name for figure in figures])),
    ):
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir()):
            if file != diagnosis and names.fullmatch(TEMPORARY_NAME.sub("", file.name)):
                yield file


def remove_old_files(scan: Scan, output_dir: Path) -> int:
    """Remove all derivatives of a scan, its diagnosis first: from then on it is incomplete.

    Folders that are empty then go too: a participant without any result has no folder.
    """
    count = 0
    for file in old_files(scan, output_dir):
        file.unlink(missing_ok=True)
        count += 1
    figures = Path(figure_path(scan.subject, scan.prefix, _figure_kinds()[0])).parent
    for folder in (figures, Path(scan.folder), *Path(scan.folder).parents[:-1]):
        with suppress(OSError):
            (output_dir / folder).rmdir()
    if count:
        logger.debug("%s: %d old files removed", scan.relative, count)
    return count


def _derivative_pattern(prefix: str) -> re.Pattern[str]:
    """Return the pattern of the names of a scan's derivatives, whatever the classes are called."""
    names: list[str] = []
    for kind in derivative_kinds([ANY_CLASS]):
        name = derivative_name(prefix, kind)
        names.append(name)
        if kind not in JSON_KINDS:
            names.append(sidecar(name))
    return _any_of(names)


def _any_of(names: list[str]) -> re.Pattern[str]:
    patterns = [re.escape(name).replace(ANY_CLASS, "[0-9A-Za-z]+") for name in names]
    return re.compile("|".join(patterns))


def _figure_kinds() -> list[str]:
    return io_spec()["figures"]["kinds"]


def glance(scan: Scan) -> dict[str, Any] | None:
    """Return what of a raw image can be told without reading it.

    ``Size`` (bytes), ``Modified`` (UTC) and ``SkullStripped`` (as the sidecar has it); None where
    the image is missing or its content is elsewhere (git-annex, git-lfs).
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
    """Return what the diagnosis file says of the raw image: a glance at it, and its ``SHA256``.

    Raises
    ------
    BadInputError
        If the image was changed since it was `seen` (:func:`glance`, before it was read).
    """
    now = glance(scan)
    if now is None or now != seen:
        raise BadInputError(
            "the raw image was changed while it was processed", file=scan.path, remedy="Run again"
        )
    return {**now, "SHA256": _checksum(scan.path, now["Size"], now["Modified"])}


def why_other_image(scan: Scan, recorded: Any) -> str | None:
    """Say why derivatives are not those of the raw image that is there now, in a few words.

    None where they are, or where the image's content is elsewhere, so that nobody can tell.
    `recorded` is ``RawImage`` of the diagnosis file. A checksum is computed only where size or
    time differ.
    """
    if not isinstance(recorded, Mapping):
        return "its diagnosis file does not say which image it is about"
    if recorded.get("SkullStripped") != scan.skull_stripped:
        # Where the image has no content, its sidecar may have none either.
        return None if glance(scan) is None else SIDECAR_CHANGED
    return CHANGED if image_differs(scan, recorded) else None


def image_differs(scan: Scan, recorded: Any) -> bool:
    """Whether a raw image is known to be another one than ``RawImage`` of a diagnosis file."""
    now = glance(scan)
    if now is None or not isinstance(recorded, Mapping):
        return False
    if all(recorded.get(key) == now[key] for key in ("Size", "Modified")):
        return False
    if recorded.get("Size") != now["Size"]:
        return True
    return recorded.get("SHA256") != _checksum(scan.path, now["Size"], now["Modified"])


@cache
def _checksum(path: Path, _size: int, _modified: str) -> str:
    """Return a file's SHA-256, computed once as long as size and time stay."""
    return hash_file(path)
