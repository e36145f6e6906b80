"""Files about the change between two visits: which are complete, which are stale.

A comparison is complete when its record is there, was made by the same version and rule from the
same diagnosis files, and all outputs that it lists are there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.names import change_paths, io_spec
from msnmo_bids.bids.raw_image import KEY, why_other_image
from msnmo_bids.bids.resume import TEMPORARY_NAME, diagnosis_path, read_diagnosis
from msnmo_bids.settings import MACHINE_SETTINGS


def paths_of(comparison: Comparison) -> dict[str, str]:
    """Return the paths of a comparison's files, without sidecars, relative to the output folder."""
    earlier, later = comparison.earlier, comparison.later
    return change_paths(
        (earlier.folder, earlier.prefix),
        (later.folder, later.prefix),
        subject=comparison.subject,
        space=comparison.space,
    )


def fingerprint(comparison: Comparison, output_dir: Path, method: Mapping[str, Any]) -> str:
    """Return a SHA-256 of what the files of a comparison depend on.

    Parameters
    ----------
    comparison : Comparison
        Two scans with derivatives.
    output_dir : Path
        Output folder.
    method : mapping
        Version of the program and limits.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    content = {
        "method": method,
        "order": [comparison.order_by, comparison.interval_days, *map(str, comparison.notes)],
        "scans": [
            hashlib.sha256(diagnosis_path(scan, output_dir).read_bytes()).hexdigest()
            for scan in (comparison.earlier, comparison.later)
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def why_not_comparable(comparison: Comparison, output_dir: Path) -> str | None:
    """Say why two scans cannot be compared; None when they can.

    Both need derivatives of the raw image that is there now, made alike: another threshold alone
    would make lesions grow.
    """
    records = []
    for scan in (comparison.earlier, comparison.later):
        record = read_diagnosis(scan, output_dir)
        if record is None:
            return f"{scan.prefix} has no derivatives"
        if reason := why_other_image(scan, record.get(KEY)):
            return f"{scan.prefix}: {reason}"
        records.append(record)
    if _made_by(records[0]) != _made_by(records[1]):
        return "the two scans were made with different versions, weights or settings"
    return None


def _made_by(record: Mapping[str, Any]) -> tuple[Any, ...]:
    settings = record.get("Settings") or {}
    return (
        (record.get("GeneratedBy") or {}).get("Version"),
        (record.get("Model") or {}).get("Fingerprint"),
        {name: value for name, value in settings.items() if name not in MACHINE_SETTINGS},
    )


def read_changes(comparison: Comparison, output_dir: Path) -> dict[str, Any] | None:
    """Return the record of a comparison, None when it is missing or broken."""
    try:
        text = (output_dir / paths_of(comparison)["record"]).read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError):
        return None
    complete = isinstance(content, dict) and isinstance(content.get("Outputs"), list)
    return content if complete else None


def is_compared(comparison: Comparison, output_dir: Path, method: Mapping[str, Any]) -> bool:
    """Say whether a comparison is complete and up to date."""
    record = read_changes(comparison, output_dir)
    if record is None or record.get("Fingerprint") != fingerprint(comparison, output_dir, method):
        return False
    files = [output_dir / path for path in record["Outputs"]]
    return all(file.is_file() and file.stat().st_size > 0 for file in files)


def change_files(subject: str, output_dir: Path) -> Iterator[Path]:
    """Find all files about changes of a participant, half-written ones too; records first."""
    name = re.compile(rf"sub-{re.escape(subject)}_ses-[^/]+_space-ses[0-9A-Za-z]+_[^/]+")
    figures = output_dir / io_spec()["figures"]["folder"].format(subject=subject)
    folders = [*sorted((output_dir / f"sub-{subject}").glob("ses-*/anat")), figures]
    files = [
        file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if name.fullmatch(TEMPORARY_NAME.sub("", file.name))
    ]
    suffix = io_spec()["changes"]["both"]["record"]["suffix"]
    yield from sorted(files, key=lambda file: not file.name.endswith(suffix))


def remove_stale(subject: str, kept: Iterable[Comparison], output_dir: Path) -> int:
    """Remove all files about changes of a participant but those of some comparisons.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    kept : iterable of Comparison
        Complete ones.
    output_dir : Path
        Output folder.

    Returns
    -------
    int
        Number of files removed.
    """
    wanted = set()
    for comparison in kept:
        record = read_changes(comparison, output_dir) or {"Outputs": []}
        wanted |= {output_dir / path for path in record["Outputs"]}
        wanted.add(output_dir / paths_of(comparison)["record"])
    stale = [file for file in change_files(subject, output_dir) if file not in wanted]
    for file in stale:
        file.unlink(missing_ok=True)
        with suppress(OSError):
            file.parent.rmdir()
    return len(stale)
