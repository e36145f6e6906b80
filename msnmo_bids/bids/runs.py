"""The record of each participant run (``logs/<run id>/run.json``) and what they say together."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_json
from msnmo_bids.bids.records import ScanRecord, Status

logger = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """One participant run.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    version : str
        Version of the program.
    settings : dict
        Processing settings.
    """

    output_dir: Path
    version: str
    settings: dict[str, Any]
    run_id: str = field(default_factory=lambda: new_run_id())
    started: str = field(default_factory=lambda: _now())
    scans: list[ScanRecord] = field(default_factory=list)
    no_flair: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of the run's log, configuration and crash files."""
        return self.output_dir / "logs" / self.run_id

    def write(self, exit_code: int) -> Path:
        """Write ``run.json`` atomically.

        Parameters
        ----------
        exit_code : int
            Exit code of the run.

        Returns
        -------
        Path
            The file.
        """
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

    Parameters
    ----------
    name : str
        Of the comparison.
    status : Status
        Complete or failed.
    **problem : str
        Of a failure: ``step``, ``message``, ``remedy`` and ``crash_file``, as for a scan.
    """
    keys = {"Step": "step", "Message": "message", "Remedy": "remedy", "CrashFile": "crash_file"}
    said = {key: problem.get(what) or None for key, what in keys.items()}
    return {"Comparison": name, "Status": status, **said}


def latest_comparisons(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the latest entry of every comparison, by its name."""
    return {
        entry["Comparison"]: entry
        for run in runs
        for entry in run.get("Comparisons") or []
        if isinstance(entry, dict) and "Comparison" in entry
    }


def new_run_id() -> str:
    """Return a new run's name, ``"20260131-142501_1f0c9a7e"``: UTC time and random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}"


def read_runs(output_dir: Path) -> list[dict[str, Any]]:
    """Read the records of all runs.

    Parameters
    ----------
    output_dir : Path
        Output folder.

    Returns
    -------
    list of dict
        Oldest first, by the time when they finished; a broken record is left out with a warning.
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
    """Return what the latest run that tried a scan says of it, for every scan.

    Parameters
    ----------
    runs : sequence of dict
        From :func:`read_runs`.

    Returns
    -------
    dict
        Scan (POSIX path from the root of the input) -> its record.
    """
    latest: dict[str, ScanRecord] = {}
    for run in runs:
        for entry in run["Scans"]:
            with suppress(TypeError, ValueError, AttributeError):  # not an entry of ours
                record = ScanRecord.from_entry(entry)
                if record.status != Status.PENDING:
                    latest[record.relative] = with_steps(record, latest)
    return latest


def with_steps(record: ScanRecord, latest: Mapping[str, ScanRecord]) -> ScanRecord:
    """Keep what processing a scan cost when a later run found it complete.

    Parameters
    ----------
    record : ScanRecord
        Of the later run.
    latest : mapping of str to ScanRecord
        Of the runs before.

    Returns
    -------
    ScanRecord
    """
    before = latest.get(record.relative)
    if before is None or record.steps or record.status != Status.COMPLETE:
        return record
    return replace(record, steps=before.steps)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
