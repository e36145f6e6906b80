"""What is known of a scan: its entry in the run's record, and its derivatives on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msnmo_bids.bids.names import derivative_name
from msnmo_bids.bids.verdict import INDETERMINATE, NO_LESION
from msnmo_bids.text import natural_key

OK, FAILED, MISSING = "ok", "failed", "missing"
NOT_PROCESSED = "not processed yet"
#: What a page shows where an older or damaged diagnosis file lacks a key.
_EMPTY: dict[str, Any] = {
    "Diagnosis": "n/a",
    "Reason": None,
    "Probabilities": {},
    "LesionCount": None,
    "LesionCountSmall": None,
    "LesionVolume": None,
    "BrainVolume": None,
    "Regions": {},
    "Flags": [],
    "VoxelSize": [],
    "Calibration": {},
    "Model": {},
}


@dataclass(frozen=True)
class ScanRecord:
    """A scan and what became of it.

    Parameters
    ----------
    relative : str
        The raw image, POSIX path from the root of its data set.
    subject : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    prefix : str
        Name without ``_FLAIR.nii[.gz]``.
    folder : str
        Folder of the derivatives, POSIX path from the root of the output.
    status : {"ok", "failed", "missing"}
        Whether there are results.
    step, message, remedy, crash_file : str
        Of a failure; empty when unknown.
    diagnosis : dict
        Content of the diagnosis file; empty without results.
    """

    relative: str
    subject: str
    session: str | None
    prefix: str
    folder: str
    status: str
    step: str = ""
    message: str = ""
    remedy: str = ""
    crash_file: str = ""
    diagnosis: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name of the scan within its participant, for headings."""
        entities = self.prefix.removeprefix(f"sub-{self.subject}").strip("_")
        return entities.replace("_", ", ") or "FLAIR"

    @property
    def is_named(self) -> bool:
        """Whether a diagnosis is named."""
        return self.diagnosis.get("Diagnosis", INDETERMINATE) != INDETERMINATE

    @property
    def has_pattern(self) -> bool:
        """Whether there are lesions, without which the scores stand for nothing."""
        flags = self.diagnosis.get("Flags") or []
        return bool(self.diagnosis) and NO_LESION not in flags and self._count != 0

    @property
    def _count(self) -> int | None:
        return self.diagnosis.get("LesionCount")

    @property
    def reason(self) -> str:
        """Why there are no results, in one line; empty when there are."""
        if self.status == OK:
            return ""
        where = f"{self.step}: " if self.step else ""
        return f"{where}{self.message}" or NOT_PROCESSED


def read_scan(output_dir: Path, entry: Mapping[str, Any]) -> ScanRecord:
    """Join a scan's entry in ``run.json`` with its diagnosis file.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    entry : mapping
        Keys ``Scan``, ``Prefix``, ``Folder``, ``Subject``, ``Session``, ``Status``, ``Step``,
        ``Message``, ``Remedy``, ``CrashFile``; the last five may lack or be None.

    Returns
    -------
    ScanRecord
        ``ok`` exactly when the diagnosis file can be read.
    """
    path = output_dir / entry["Folder"] / derivative_name(entry["Prefix"], "diagnosis")
    diagnosis: dict[str, Any] = {}
    problem = {key: str(entry.get(key) or "") for key in ("Step", "Message", "Remedy", "CrashFile")}
    status = FAILED if entry.get("Status") == FAILED else MISSING
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content:
                diagnosis = {**_EMPTY, **content}
        except (OSError, ValueError):
            pass
        status = OK if diagnosis else FAILED
        if not diagnosis:
            problem = {
                "Step": "report",
                "Message": f"{path.name} cannot be read",
                "Remedy": "Run the participant level again",
            }
    elif status == MISSING and not problem["Message"]:
        problem["Message"] = NOT_PROCESSED
    return ScanRecord(
        relative=entry["Scan"],
        subject=entry["Subject"],
        session=entry.get("Session"),
        prefix=entry["Prefix"],
        folder=entry["Folder"],
        status=status,
        step=problem.get("Step", ""),
        message=problem.get("Message", ""),
        remedy=problem.get("Remedy", ""),
        crash_file=problem.get("CrashFile", ""),
        diagnosis=diagnosis,
    )


def in_order(scans: Iterable[ScanRecord]) -> list[ScanRecord]:
    """Sort scans by participant, session and name, numbers by value."""
    return sorted(
        scans,
        key=lambda scan: tuple(
            map(natural_key, (scan.subject, scan.session or "", scan.prefix, scan.relative))
        ),
    )


def class_names(scans: Iterable[ScanRecord]) -> list[str]:
    """Return the classes of all scans' probabilities, in the network's order."""
    names: dict[str, None] = {}
    for scan in scans:
        names.update(dict.fromkeys(scan.diagnosis.get("Probabilities") or {}))
    return list(names)
