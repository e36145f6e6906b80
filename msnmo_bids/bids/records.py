"""What became of scans and of comparisons of visits: on disk, and in ``logs/<run id>/run.json``."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any

from msnmo_bids.bids.comparisons import BY_LABELS
from msnmo_bids.bids.dataset import read_record, write_json
from msnmo_bids.bids.names import bids_uri, derivative_name, prefix_of
from msnmo_bids.bids.scans import SCAN_NAME, Scan, folder_of
from msnmo_bids.bids.sidecars import RAW_DATASET
from msnmo_bids.decision import INDETERMINATE
from msnmo_bids.text import listed, natural_key
from msnmo_bids.vocabulary import NO_LESION

logger = logging.getLogger(__name__)

NOT_PROCESSED = "not processed yet"
#: Field -> its key in ``run.json``.
_KEYS = {
    "relative": "Scan", "prefix": "Prefix", "folder": "Folder", "subject": "Subject",
    "session": "Session", "status": "Status", "step": "Step", "message": "Message",
    "remedy": "Remedy", "crash_file": "CrashFile", "steps": "Steps",
}  # fmt: skip
_PROBLEM = ("step", "message", "remedy", "crash_file")
#: Keys without which a diagnosis file cannot be shown, and what they hold.
_NEEDED: dict[str, type | UnionType] = {
    "Diagnosis": str, "Reason": str | None, "Probabilities": dict, "LesionCount": int,
    "LesionCountSmall": int, "LesionVolume": int | float, "BrainVolume": int | float,
    "Regions": dict, "Flags": list, "VoxelSize": list, "Calibration": dict, "Model": dict,
    "Settings": dict, "GeneratedBy": dict,
}  # fmt: skip


class Status(StrEnum):
    """What became of a scan, or of a comparison of two."""

    COMPLETE = "complete"  #: It has its derivatives, of this run or of an earlier one.
    PENDING = "pending"  #: It waits for a run.
    FAILED = "failed"  #: The latest run tried and could not.


@dataclass(frozen=True)
class ScanRecord:
    """A scan and what became of it."""

    relative: str  #: The raw image, POSIX path from the root of its data set.
    subject: str  #: Label without ``sub-``.
    session: str | None  #: Label without ``ses-``.
    prefix: str  #: Name without ``_FLAIR.nii[.gz]``.
    folder: str  #: Folder of the derivatives, POSIX path from the root of the output.
    status: Status = Status.PENDING  #: Whether there are derivatives.
    #: Of a failure; empty when unknown.
    step: str = ""
    message: str = ""
    remedy: str = ""
    crash_file: str = ""
    #: Step -> what it cost in the run that processed the scan: ``WallSeconds``, ``CPUSeconds`` (of
    #: all cores), ``MemoryGB`` (peak). Empty where that was not measured.
    steps: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  #: What was left out or guessed in the sidecars of the image.
    #: Content of the diagnosis file; empty without results.
    diagnosis: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, scan: Scan, status: Status = Status.PENDING, **problem: Any) -> ScanRecord:
        """Return the record of a scan; `problem` holds step, message and so on."""
        return cls(scan.relative, scan.subject, scan.session, scan.prefix, scan.folder, status,
                   notes=tuple(scan.notes), **problem)  # fmt: skip

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> ScanRecord:
        """Return the record that an entry of ``run.json`` holds (:meth:`entry`)."""
        known: dict[str, Any] = {name: entry.get(key) for name, key in _KEYS.items()}
        known |= {name: str(known[name] or "") for name in _PROBLEM}
        known["steps"] = known["steps"] or {}
        return cls(**{**known, "status": Status(known["status"])})

    def entry(self) -> dict[str, Any]:
        """Return the entry in ``run.json``, JSON-ready; what is empty is None."""
        return {key: getattr(self, name) or None for name, key in _KEYS.items()}

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
        """Whether the scores stand for something: for nothing where the decision missed lesions."""
        return bool(self.diagnosis) and NO_LESION not in self.diagnosis["Flags"]

    @property
    def reason(self) -> str:
        """Why there are no results, in one line; empty when there are."""
        if self.status == Status.COMPLETE:
            return ""
        where = f"{self.step}: " if self.step else ""
        return f"{where}{self.message}" or NOT_PROCESSED


@dataclass(frozen=True)
class VisitsRecord:
    """What is known of the comparison of two visits."""

    #: Labels of the sessions, without ``ses-``.
    earlier: str
    later: str
    name: str  #: Of the comparison.
    record: Mapping[str, Any]  #: Content of its record; empty without results.
    #: Where its table of lesions and its figure are, if there are results.
    table: Path
    figure: Path
    problem: str = ""  #: Why there are no results; empty when there are, or when nothing is known.

    @property
    def title(self) -> str:
        """Heading."""
        return f"ses-{self.earlier} to ses-{self.later}"

    @property
    def order(self) -> str:
        """How it is known which visit came first, in a sentence."""
        source = self.record.get("OrderOfVisits", BY_LABELS)
        if source != BY_LABELS:
            return f"The visits are in the order of the dates in {source}."
        if self.notes:
            return "The visits are in the order of their labels."
        return "There are no dates: the visits are in the order of their labels."

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the order, and of the choice of the two scans."""
        return list(self.record.get("Notes") or ())

    @property
    def interval(self) -> str:
        """Time between the visits."""
        days = self.record.get("IntervalDays")
        return "not known" if days is None else f"{days:.0f} days"


def read_scan(output_dir: Path, record: ScanRecord) -> ScanRecord:
    """Return a scan's record as it stands on disk: this decides on its status.

    It is complete exactly when the diagnosis file is whole, which is then in `diagnosis`;
    `record` is what the latest run said of it, pending where none did.
    """
    path = output_dir / record.folder / derivative_name(record.prefix, "diagnosis")
    if path.is_file():
        content = read_record(path) or {}
        problem = _problem(content) if content else "cannot be read"
        if not problem:
            return replace(record, status=Status.COMPLETE, step="", message="", remedy="",
                           crash_file="", diagnosis=content)  # fmt: skip
        return replace(record, status=Status.FAILED, step="report", crash_file="",
                       message=f"{path.name} {problem}",
                       remedy="Run the participant level again with --overwrite")  # fmt: skip
    if record.status != Status.FAILED:
        return replace(record, status=Status.PENDING, message=record.message or NOT_PROCESSED)
    return record


def _problem(diagnosis: Mapping[str, Any]) -> str:
    """Say what is wrong with the content of a diagnosis file, which somebody may have edited."""
    if lacks := sorted(_NEEDED.keys() - diagnosis.keys()):
        return f"lacks {listed(lacks)}"
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(diagnosis[name], kind)]
    if not wrong:
        wrong = [name for name, value in _numbers(diagnosis) if not _is_number(value)]
        if not all(isinstance(flag, str) for flag in diagnosis["Flags"]):
            wrong.append("Flags")
        if diagnosis["Diagnosis"] not in (*diagnosis["Probabilities"], INDETERMINATE):
            wrong.append("Diagnosis")
    return f"holds what was not written by msnmo ({listed(wrong)})" if wrong else ""


def _numbers(diagnosis: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what must be a number, with its name."""
    for name in ("LesionCount", "LesionCountSmall", "LesionVolume", "BrainVolume"):
        yield name, diagnosis[name]
    for size in diagnosis["VoxelSize"]:
        yield "VoxelSize", size
    for name in ("Probabilities", "NamingLimits"):
        for key, value in (diagnosis.get(name) or {}).items():
            if name == "Probabilities" or value is not None:
                yield f"{name}.{key}", value
    for name in ("Regions", "Sites"):
        for key, value in (diagnosis.get(name) or {}).items():
            for part in ("Count", "Volume"):
                yield f"{name}.{key}", value.get(part) if isinstance(value, dict) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def scans_with_results(output_dir: Path) -> list[ScanRecord]:
    """Find every scan that has a diagnosis file, whatever the raw data set holds now.

    They are sorted by path and not read yet (:func:`read_scan`); the raw image's name is supposed
    to end in ``.nii.gz``.
    """
    found = []
    for path in sorted(output_dir.glob("sub-*/**/anat/*_diagnosis.json")):
        prefix = prefix_of(path.name)
        folder = path.parent.relative_to(output_dir).as_posix()
        match = SCAN_NAME.fullmatch(f"{prefix}_FLAIR.nii.gz")
        if match and folder == folder_of(match["subject"], match["session"]):  # else a copy
            relative = f"{folder}/{match[0]}"
            found.append(ScanRecord(relative, match["subject"], match["session"], prefix, folder))
    return found


def source_of(record: ScanRecord) -> str:
    """Return the raw image that a scan's results are said to be made from."""
    sources = record.diagnosis.get("Sources")
    prefix = bids_uri("", RAW_DATASET)
    known = [str(uri).removeprefix(prefix) for uri in sources or () if str(uri).startswith(prefix)]
    return known[0] if known else record.relative


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
        names.update(dict.fromkeys(scan.diagnosis.get("Probabilities", {})))
    return list(names)


def new_run_id() -> str:
    """Return a new run's name, ``"20260131-142501_1f0c9a7e"``: UTC time and random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class RunRecord:
    """One participant run: its settings, and what became of its scans and comparisons."""

    output_dir: Path
    version: str
    settings: dict[str, Any]
    run_id: str = field(default_factory=new_run_id)
    started: str = field(default_factory=_now)
    scans: list[ScanRecord] = field(default_factory=list)
    no_flair: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of the run's log, configuration and crash files."""
        return self.output_dir / "logs" / self.run_id

    def write(self, exit_code: int) -> Path:
        """Write ``run.json`` atomically."""
        target = self.folder / "run.json"
        content = {
            "RunId": self.run_id,
            "Started": self.started,
            "Finished": _now(),
            "Version": self.version,
            "Settings": self.settings,
            "Scans": [scan.entry() for scan in self.scans],
            "NoFLAIR": self.no_flair,
            "Comparisons": self.comparisons,
            "ExitCode": int(exit_code),
        }
        write_json(target, content)
        return target


def comparison_entry(name: str, status: Status, **problem: str) -> dict[str, Any]:
    """Return the entry of a comparison of two visits in ``run.json``, JSON-ready.

    `problem` has ``step``, ``message``, ``remedy`` and ``crash_file`` of a failure, as for a scan.
    """
    said = {_KEYS[what]: problem.get(what) or None for what in _PROBLEM}
    return {"Comparison": name, "Status": status, **said}


def latest_comparisons(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the latest entry of every comparison, by its name."""
    return {
        entry["Comparison"]: entry
        for run in runs
        for entry in run.get("Comparisons") or []
        if isinstance(entry, dict) and "Comparison" in entry
    }


def read_runs(output_dir: Path) -> list[dict[str, Any]]:
    """Read the records of all runs, oldest first, by the time when they finished.

    A broken record is left out with a warning.
    """
    runs = []
    for path in sorted((output_dir / "logs").glob("*/run.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(run["Scans"], list):
                raise TypeError("its scans are not a list")
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: the record of the run cannot be read (%s)", path, error)
            continue
        runs.append(run)
    return sorted(runs, key=lambda run: (str(run.get("Finished")), str(run.get("RunId"))))


def latest_records(runs: Sequence[dict[str, Any]]) -> dict[str, ScanRecord]:
    """Return what the latest run that tried a scan says of it, by the scan's path in the input."""
    latest: dict[str, ScanRecord] = {}
    for run in runs:
        for entry in run["Scans"]:
            with suppress(TypeError, ValueError, AttributeError):  # not an entry of ours
                record = ScanRecord.from_entry(entry)
                if record.status != Status.PENDING:
                    latest[record.relative] = with_steps(record, latest)
    return latest


def with_steps(record: ScanRecord, latest: Mapping[str, ScanRecord]) -> ScanRecord:
    """Keep what processing a scan cost when a later run found it complete."""
    before = latest.get(record.relative)
    if before is None or record.steps or record.status != Status.COMPLETE:
        return record
    return replace(record, steps=before.steps)
